"""How an attempt at a deployment did not answer."""

import msgspec

from gateway import errors
from gateway.catalog import Deployment
from gateway.resilience.failures import Failure


class Failed(msgspec.Struct, frozen=True):
    """How an attempt ended. `asked_s`: what the upstream asked to wait."""

    deployment: Deployment
    failure: Failure
    error: errors.GatewayError
    asked_s: float | None = None
