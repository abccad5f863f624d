"""MLflow's webhooks: are they MLflow's, and what do they say?

`X-MLflow-Signature: v1,BASE64` is the HMAC-SHA256 of `DELIVERY.TIMESTAMP.BODY` under the secret that the webhook was made with.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from inference.errors import BadRequest, Forbidden

MOST_BYTES: Final = 1 << 20
_OLD_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class AliasMoved:
    """`model_version_alias.created`."""

    name: str
    alias: str
    version: str


def read(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> AliasMoved | None:
    """What there is to do; None for an event that is nothing to us. Raises Forbidden, BadRequest."""
    delivery, sent = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
    signed = f"{delivery}.{sent}.".encode() + body
    want = b"v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    if not hmac.compare_digest(headers.get("x-mlflow-signature", "").encode("latin-1", "replace"), want):
        raise Forbidden(
            "The webhook's signature is not that of the secret `registry.mlflow.webhook_secret`",
            code="invalid_signature",
        )
    if not sent.isdigit() or abs(now - int(sent)) > _OLD_S:
        raise Forbidden("The webhook is too old, or from the future", code="invalid_signature")
    try:
        said = json.loads(body)
        if (said["entity"], said["action"]) != ("model_version_alias", "created"):
            return None
        data = said["data"]
        return AliasMoved(str(data["name"]), str(data["alias"]), str(data["version"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"The webhook cannot be read: {error}", code="invalid_json") from error
