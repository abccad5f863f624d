"""A fleet of inference engines under a load, as a discrete-event simulation: no sockets, no clock, the same numbers from the same seed.

An engine answers `slots` calls at a time and queues the rest. An answer takes the reading of its prompt and the writing of its tokens,
whose number has a long tail. Prompts are conversations: an engine that still has one in its prefix cache reads a tenth of it.
"""

import heapq
import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from gateway.bodies import chat_decoder
from gateway.catalog import Deployment, Model, Strategy
from gateway.routing.asked import Asked
from gateway.routing.loads import Engine as Said
from gateway.routing.loads import Loads, Ticket
from gateway.routing.plan import plan

READ_S = 0.5  # a whole prompt
TOKEN_S = 0.01
CACHED = 0.1  # of READ_S, for a prompt that is in the cache
POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`speeds`: of each engine; `load`: calls per second; `conversations`: that go on at one time; `cache`: how many an engine keeps."""

    name: str
    speeds: tuple[float, ...]
    load: float
    seconds: float = 600.0
    slots: int = 8
    conversations: int = 400
    cache: int = 100
    gateways: int = 2
    slow_from: float | None = None  # from when on the first engine has a third of its speed
    strangers: float = 0.0  # calls per second that come to the first engine from elsewhere; nobody counts their answers


@dataclass(frozen=True, slots=True)
class Call:
    at: float
    conversation: int
    tokens: int
    gateway: int | None  # None: a stranger's


@dataclass(slots=True)
class Engine:
    """`running` is a count; `waiting` calls in order."""

    speed: float
    running: int = 0
    waiting: list[tuple[Call, Ticket | None]] = field(default_factory=list)
    cached: OrderedDict[int, None] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds until the first token and until the last; `ideal_s`: what the call takes on an idle engine of full speed."""

    first_s: float
    whole_s: float
    ideal_s: float
    hit: bool


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Choose = Callable[[Loads, Asked], Deployment]


def calls(scenario: Scenario, random: Random) -> list[Call]:
    """Poisson arrivals of conversations' turns; answers of 60 tokens in the middle and of 2,000 at the most, log-normal."""
    ours = [
        _call(at, scenario, random, random.randrange(scenario.gateways))
        for at in _times(scenario.load, scenario, random)
    ]
    theirs = [_call(at, scenario, random, None) for at in _times(scenario.strangers, scenario, random)]
    return sorted([*ours, *theirs], key=lambda call: call.at)


def _times(rate: float, scenario: Scenario, random: Random) -> list[float]:
    made, at = [], 0.0
    while rate and at < scenario.seconds:
        at += random.expovariate(rate)
        made.append(at)
    return made


def _call(at: float, scenario: Scenario, random: Random, gateway: int | None) -> Call:
    tokens = min(2000, max(1, round(random.lognormvariate(4.1, 1.2))))
    return Call(at, int(scenario.conversations * random.random() ** 2), tokens, gateway)  # some are busier than others


@dataclass(slots=True)
class Fleet:
    """One run. Events are (time, number, what to do)."""

    scenario: Scenario
    choose: Mapping[int, Choose]
    views: list[Loads]
    clock: Clock
    deployments: list[Deployment]
    polled: bool
    engines: list[Engine] = field(init=False)
    outcomes: list[Outcome] = field(default_factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _asked: dict[int, Asked] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engines = [Engine(speed) for speed in self.scenario.speeds]

    def run(self, arriving: list[Call]) -> list[Outcome]:
        for call in arriving:
            self._later(call.at, lambda call=call: self._arrive(call))  # type: ignore[misc]
        if self.polled:
            self._later(POLL_S, self._poll)
        if self.scenario.slow_from is not None:
            self._later(self.scenario.slow_from, self._slow_down)
        ours = sum(call.gateway is not None for call in arriving)
        while len(self.outcomes) < ours:
            self.clock.now, _, act = heapq.heappop(self._events)
            act()
        return self.outcomes

    def _later(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), act))

    def _arrive(self, call: Call) -> None:
        engine, ticket = self.engines[0], None
        if call.gateway is not None:
            view = self.views[call.gateway]
            chosen = self.choose[call.gateway](view, self._request(call.conversation))
            engine, ticket = self.engines[self.deployments.index(chosen)], view.begin(chosen, 0)
        if engine.running < self.scenario.slots:
            self._start(engine, call, ticket)
        else:
            engine.waiting.append((call, ticket))

    def _start(self, engine: Engine, call: Call, ticket: Ticket | None) -> None:
        engine.running += 1
        hit = call.conversation in engine.cached
        engine.cached[call.conversation] = None
        engine.cached.move_to_end(call.conversation)
        if len(engine.cached) > self.scenario.cache:
            engine.cached.popitem(last=False)
        first_at = self.clock.now + READ_S * (CACHED if hit else 1.0) / engine.speed
        end_at = first_at + call.tokens * TOKEN_S / engine.speed
        ideal_s = READ_S * CACHED + call.tokens * TOKEN_S
        outcome = Outcome(first_at - call.at, end_at - call.at, ideal_s, hit)
        self._later(end_at, lambda: self._end(engine, call, ticket, first_at, outcome))

    def _end(self, engine: Engine, call: Call, ticket: Ticket | None, first_at: float, outcome: Outcome) -> None:
        engine.running -= 1
        if call.gateway is not None and ticket is not None:
            self.outcomes.append(outcome)
            self.views[call.gateway].end(ticket, first_at, None, call.tokens, ok=True)
        if engine.waiting:
            self._start(engine, *engine.waiting.pop(0))

    def _poll(self) -> None:
        for view in self.views:
            for one, engine in zip(self.deployments, self.engines, strict=True):
                view.of(one).observe(
                    Said(engine.running, len(engine.waiting), 0.8 * engine.running / self.scenario.slots)
                )
        self._later(self.clock.now + POLL_S, self._poll)

    def _slow_down(self) -> None:
        self.engines[0].speed /= 3

    def _request(self, conversation: int) -> Asked:
        known = self._asked.get(conversation)
        if known is None:
            body = json.dumps(
                {"model": "m", "stream": True, "messages": [{"role": "user", "content": f"{conversation}"}]}
            )
            known = self._asked[conversation] = Asked(chat_decoder.decode(body), body.encode(), {})
        return known


def by_strategy(scenario: Scenario, strategy: Strategy, seed: int, *, polled: bool = False) -> list[Outcome]:
    """What becomes of the scenario's calls under one of the gateway's strategies, each gateway with its own view."""
    chance = Random(seed + 1)
    deployments = [Deployment(f"d{n}", "vllm", "http://x/v1", "m") for n in range(len(scenario.speeds))]
    of = Model("m", tuple(deployments), strategy=strategy)

    def choose(view: Loads, asked: Asked) -> Deployment:
        return plan(of, view, asked, chance.random).order[0]

    return _run(scenario, deployments, dict.fromkeys(range(scenario.gateways), choose), seed, polled=polled)


def round_robin(scenario: Scenario, seed: int) -> list[Outcome]:
    """Each gateway in turn, without looking."""
    deployments = [Deployment(f"d{n}", "vllm", "http://x/v1", "m") for n in range(len(scenario.speeds))]

    def turning(first: int) -> Choose:
        turn = itertools.cycle(deployments[first:] + deployments[:first])
        return lambda _view, _asked: next(turn)

    choose = {gateway: turning(gateway % len(deployments)) for gateway in range(scenario.gateways)}
    return _run(scenario, deployments, choose, seed, polled=False)


def _run(
    scenario: Scenario, deployments: list[Deployment], choose: Mapping[int, Choose], seed: int, *, polled: bool
) -> list[Outcome]:
    clock = Clock()
    views = [Loads(clock, lambda _deployment, _wild: None) for _ in range(scenario.gateways)]
    return Fleet(scenario, choose, views, clock, deployments, polled).run(calls(scenario, Random(seed)))
