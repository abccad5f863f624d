"""Which deployments are well, as this process has seen it. A deployment without a recent failure has no entry and costs nothing.

A credential is an entry of its own: where a provider refuses a key, every deployment that shows the same key there is out with it.
Entries outlive a change of the configuration as long as the deployment's address and key stay the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import msgspec

from gateway.catalog import Deployment, Model
from gateway.resilience.breaker import Breaker, State, Thresholds
from gateway.resilience.failures import ANSWERED, SAYS_NOTHING, Failure

CREDENTIAL: Final = Thresholds(failures=1, open_s=60.0, max_open_s=900.0)
MAX_ERROR: Final = 300  # characters of an upstream's words that are kept to be shown


class Condition(msgspec.Struct, frozen=True):
    """What is shown of one deployment. `for_s`: until it is tried again, 0 if it may be used; `ago_s`: since its last failure."""

    state: State | str
    for_s: float
    reason: str
    last_error: str
    ago_s: float


@final
class _Patient:
    """A deployment with a failure behind it, and the breaker of it."""

    __slots__ = ("breaker", "deployment")

    def __init__(self, deployment: Deployment, breaker: Breaker) -> None:
        self.deployment = deployment
        self.breaker = breaker


@final
class Health:
    """One per process. `now` is a monotonic clock; `random` gives floats in [0, 1)."""

    def __init__(self, now: Callable[[], float], random: Callable[[], float]) -> None:
        self._now = now
        self._random = random
        self._credentials: dict[tuple[str, str | None, tuple[tuple[str, str], ...]], Breaker] = {}
        self.troubled: dict[str, _Patient] = {}  # by deployment id; empty where all is well

    def usable(self, deployments: Sequence[Deployment]) -> tuple[Deployment, ...]:
        """Those that a call may go to, in the same order."""
        if not self.troubled:
            return tuple(deployments)
        now = self._now()
        return tuple(one for one in deployments if all(breaker.usable(now) for breaker in self._breakers(one)))

    def least_bad(self, deployments: Sequence[Deployment]) -> Deployment:
        """The one that is to be well first: something has to be tried where nothing else is left."""
        now = self._now()
        return min(deployments, key=lambda one: max((b.until(now) for b in self._breakers(one)), default=now))

    def begin(self, deployment: Deployment) -> None:
        """A call goes there. Only needed where `troubled` has anything."""
        now = self._now()
        for breaker in self._breakers(deployment):
            breaker.begin(now)

    def let_go(self, deployment: Deployment) -> None:
        """The call ended without a word about the deployment."""
        for breaker in self._breakers(deployment):
            breaker.let_go()

    def succeeded(self, deployment: Deployment, began: float) -> None:
        """A call that began at `began` was answered. Only needed where `troubled` has anything."""
        now = self._now()
        for breaker in self._breakers(deployment):
            breaker.succeeded(now, began)
        patient = self.troubled.get(deployment.id)
        if patient is not None and patient.breaker.forgettable(now):
            del self.troubled[deployment.id]
        credential = _credential(deployment)
        refused = self._credentials.get(credential)
        if refused is not None and refused.state(now) == "closed":
            del self._credentials[credential]

    def probed(self, deployment: Deployment, began: float) -> None:
        """It answered a question that is no call: enough to let calls in again, not enough to forget that calls fail."""
        now = self._now()
        for breaker in self._breakers(deployment):
            if breaker.state(now) == "half_open":
                breaker.succeeded(now, began)
            else:
                breaker.let_go()

    def failed(
        self, model: Model, deployment: Deployment, failure: Failure, words: str, asked_s: float | None, began: float
    ) -> None:
        """A call failed there. `words`: what is shown; `asked_s`: for how long the upstream wants to be left alone."""
        if failure in SAYS_NOTHING:
            self.let_go(deployment)
            return
        if failure in ANSWERED:
            if self.troubled:
                self.succeeded(deployment, began)
            return
        now, chance = self._now(), self._random()
        breaker = self._patient(model, deployment, now).breaker
        breaker.note(now, failure, words[:MAX_ERROR])
        if failure == "credentials":
            breaker.let_go()
            self._credential(deployment, now).failed(now, chance)
            return
        credential = self._credentials.get(_credential(deployment))
        if credential is not None:
            credential.let_go()
        if failure != "rate_limited":
            breaker.failed(now, chance)
        if failure == "rate_limited" or asked_s is not None:
            breaker.cool(now, asked_s, chance)

    def condition(self, deployment_id: str) -> Condition | None:
        """None for a deployment without a recent failure."""
        patient = self.troubled.get(deployment_id)
        if patient is None:
            return None
        now = self._now()
        until = max((breaker.until(now) for breaker in self._breakers(patient.deployment)), default=now)
        breaker = patient.breaker
        return Condition(
            self._state(patient, now),
            until - now,
            breaker.reason or "",
            breaker.last_error or "",
            now - breaker.last_at,
        )

    def keep(self, alive: Mapping[str, Deployment]) -> None:
        """The configuration changed: what is gone or has moved is forgotten. `alive`: every deployment by id."""
        self.troubled = {
            id_: patient
            for id_, patient in self.troubled.items()
            if id_ in alive and _same_place(alive[id_], patient.deployment)
        }
        credentials = {_credential(deployment) for deployment in alive.values()}
        self._credentials = {key: breaker for key, breaker in self._credentials.items() if key in credentials}

    def _state(self, patient: _Patient, now: float) -> State | str:
        credential = self._credentials.get(_credential(patient.deployment))
        if credential is not None and credential.state(now) != "closed":
            return "credentials_refused"
        if now < patient.breaker.cool_until:
            return "cooling"
        return patient.breaker.state(now)

    def _breakers(self, deployment: Deployment) -> list[Breaker]:
        found = []
        patient = self.troubled.get(deployment.id)
        if patient is not None:
            found.append(patient.breaker)
        if self._credentials:
            credential = self._credentials.get(_credential(deployment))
            if credential is not None:
                found.append(credential)
        return found

    def _patient(self, model: Model, deployment: Deployment, now: float) -> _Patient:
        patient = self.troubled.get(deployment.id)
        if patient is None:
            patient = self.troubled[deployment.id] = _Patient(deployment, Breaker(model.breaker, now))
        return patient

    def _credential(self, deployment: Deployment, now: float) -> Breaker:
        key = _credential(deployment)
        breaker = self._credentials.get(key)
        if breaker is None:
            breaker = self._credentials[key] = Breaker(CREDENTIAL, now)
        return breaker


def _credential(deployment: Deployment) -> tuple[str, str | None, tuple[tuple[str, str], ...]]:
    return deployment.base_url, deployment.api_key, deployment.headers


def _same_place(one: Deployment, other: Deployment) -> bool:
    return one is other or (_credential(one) == _credential(other) and one.target == other.target)
