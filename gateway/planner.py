"""Plans calls and counts them: the pure plan of `gateway.routing` with this process's loads, health and chance put in."""

from collections.abc import Awaitable, Callable, Sequence
from typing import final

import msgspec

from gateway import errors
from gateway.call import Call
from gateway.catalog import Deployment
from gateway.journal_records import Routed
from gateway.resilience.failures import ANSWERED, Failure
from gateway.resilience.health import Health
from gateway.resilience.wishes import NONE
from gateway.routing.asked import Asked
from gateway.routing.conditions import admits, serves
from gateway.routing.loads import Loads, Ticket
from gateway.routing.plan import plan
from gateway.routing.windows import roomy
from gateway.shares import Hold

REGION = b"x-penstock-region"
NOTHING = Routed()
TRIES = 3


@final
class Planner:
    """One per process. A model with one deployment that takes every call pays for nothing here."""

    def __init__(
        self,
        health: Health,
        loads: Loads,
        random: Callable[[], float],
        fetch: Callable[[Hold], Awaitable[None]] | None = None,
    ) -> None:
        """`fetch` borrows from where processes share the limits of deployments; None where there is one process."""
        self._fetch = fetch
        self._health = health
        self._loads = loads
        self._random = random

    def order(self, call: Call) -> tuple[Deployment, ...]:
        """The deployments that may be tried now, best first. Says why in the call's record."""
        deployments = call.model.deployments
        pinned = None if call.overrides is NONE else call.overrides.deployment
        if pinned is not None:
            return tuple(deployment for deployment in deployments if deployment.id == pinned)
        if not _decides(call):
            return self._health.usable(deployments) if self._health.troubled else deployments
        chosen = plan(call.model, self._loads, _asked(call), self._random, self._health.usable)
        if chosen.reason is not None:
            routed = call.record.routed or NOTHING
            call.record.routed = msgspec.structs.replace(routed, reason=chosen.reason)
        return chosen.order

    def eligible(self, call: Call) -> tuple[Deployment, ...]:
        """Those that the request may go to at all, well or not. Raises NotFound if there is none."""
        deployments = call.model.deployments
        if call.overrides.deployment is not None or not _decides(call):
            return deployments
        asked = _asked(call)
        found = tuple(deployment for deployment in deployments if admits(deployment, asked))
        if not found and deployments:
            if asked.providers is not None and not any(one.provider in asked.providers for one in deployments):
                raise errors.BadRequest(
                    f"No deployment of '{call.request.model}' speaks the API of {call.endpoint.mount}",
                    param="model",
                    code="unsupported_endpoint",
                )
            if not any(serves(deployment, asked.kind) for deployment in deployments):
                raise errors.BadRequest(
                    f"No deployment of '{call.request.model}' serves {call.endpoint.place}; GET /v1/models says what each does",
                    param="model",
                    code="unsupported_endpoint",
                )
            raise errors.NotFound(
                f"No deployment of '{call.request.model}' is meant for a request with these tags, metadata and region",
                code="no_matching_deployment",
            )
        return tuple(roomy(found, asked.body, call.request))

    def usable(self, deployments: Sequence[Deployment]) -> Sequence[Deployment]:
        """Those that are well."""
        return self._health.usable(deployments) if self._health.troubled else deployments

    def tokens(self, call: Call) -> int:
        """About how many the call needs, for limits of deployments."""
        asked = _asked(call)
        return asked.prompt_tokens + asked.output_tokens

    def fits(self, call: Call, deployment: Deployment, tokens: int) -> bool:
        """Whether a deployment has room for the call in what this process has of its limits."""
        return self._loads.fits(deployment, tokens, call.record.key, sure=True)

    @property
    def shares(self) -> bool:
        """Whether other processes use the same limits."""
        return self._fetch is not None

    async def borrow(self, deployment: Deployment, tokens: int) -> None:
        """Has this process's part of a deployment's limits be large enough for one more call, if there is as much.

        Without a wait as long as there is enough: what is borrowed at once is what is used in two seconds.
        """
        for _ in range(TRIES):  # others may take it in between
            lacking = self._loads.lacking(deployment, tokens)
            if not lacking or self._fetch is None:
                return
            try:
                await self._fetch(lacking)
            except errors.RateLimited:
                self._loads.denied(deployment)
            except errors.LimitsUnavailable:
                self._loads.cut_off(deployment)
            else:
                self._loads.borrowed(lacking)

    def frees_s(self, deployment: Deployment) -> float | None:
        """When a deployment that is at its limit may have room again; None where that is when a call ends."""
        return self._loads.frees_s(deployment)

    def enter(self, call: Call, deployment: Deployment) -> Ticket:
        """Counts an attempt at a deployment of a steered model. Raises Overloaded where it is at its limit by now."""
        asked = _asked(call)
        tokens = asked.prompt_tokens + asked.output_tokens
        if call.overrides.deployment is None and not self._loads.fits(deployment, tokens, call.record.key, sure=True):
            wait_s = self._loads.frees_s(deployment)
            raise errors.Overloaded(
                f"Deployment {deployment.id!r} is at its limit",
                code="deployment_limit",
                headers=() if wait_s is None else (("retry-after", f"{max(1, round(wait_s))}"),),
            )
        return self._loads.begin(deployment, tokens, call.record.key)

    def leave(self, call: Call, ticket: Ticket, failure: Failure | None) -> None:
        """An attempt that was entered is over."""
        record = call.record
        continued = record.first_token_at is not None and record.first_token_at < ticket.began
        if not record.sent or failure in ANSWERED or continued:
            self._loads.let_go(ticket, sent=record.sent)
            return
        usage = record.usage
        prompt = None if usage is None else usage.input
        output = record.received if usage is None else usage.output
        self._loads.end(ticket, record.first_token_at, prompt, output, ok=failure is None)

    def let_go(self, call: Call, ticket: Ticket) -> None:
        """It ended without a word about the deployment: the client left, or nothing was sent."""
        self._loads.let_go(ticket, sent=call.record.sent)


def _decides(call: Call) -> bool:
    """What is bound to a region may have nowhere to go, even where there is one deployment."""
    endpoint = call.endpoint
    if call.model.steered or endpoint.door is not None or endpoint.providers is not None:
        return True
    if REGION in call.exchange.headers:
        return True
    key = call.record.key
    return key is not None and bool(key.regions)


def _asked(call: Call) -> Asked:
    record = call.record
    key = record.key
    return Asked(
        call.request,
        call.body if call.endpoint.door is None else b"",  # no text to be read, and its size says nothing of tokens
        call.exchange.headers,
        tags=record.tags or (),
        metadata=None if key is None else key.metadata,
        regions=() if key is None else key.regions,
        wild=call.match,
        kind=call.endpoint.kind,
        key=key,
        providers=call.endpoint.providers,
    )


def regions_of(call: Call) -> tuple[str, ...]:
    """Every region that a call is bound to, by its key and by its header."""
    asked = _asked(call)
    return asked.regions
