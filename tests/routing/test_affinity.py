"""Sessions and prefixes stay where they are: under growth, loss and load."""

import json
import random
from collections import Counter
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bodies import responses_decoder
from gateway.catalog import Affinity, Deployment, Limits, Model
from gateway.fronts.messages_request import parse
from gateway.routing.asked import Asked
from gateway.routing.loads import Loads, Ticket
from gateway.routing.plan import plan
from gateway.routing.rendezvous import fingerprint, ranked, score
from gateway.routing.strategies import BOUND
from tests.fixtures.routing import asked, deployment, loads, model

KEYS = [fingerprint(f"key {number}".encode()) for number in range(4000)]


def owner(key: int, names: dict[str, float]) -> str:
    return ranked(key, list(names), lambda name: (fingerprint(name.encode()), names[name]))[0]


def home(of: Model, view: Loads, session: str) -> str:
    return plan(of, view, asked(headers={"x-penstock-session": session}), random.random).order[0].id


def test_keys_are_shared_by_weight() -> None:
    """Chi-square below the 0.1 % point of 2 degrees of freedom."""
    names = {"a": 1.0, "b": 2.0, "c": 5.0}
    counts = Counter(owner(key, names) for key in KEYS)
    expected = {name: len(KEYS) * weight / 8 for name, weight in names.items()}
    assert sum((counts[name] - want) ** 2 / want for name, want in expected.items()) < 13.8


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100), min_size=2),
    st.sampled_from("abcdefg"),
    st.floats(0.01, 100),
)
def test_a_change_of_one_weight_moves_keys_only_to_it_or_from_it(
    before: dict[str, float], name: str, weight: float
) -> None:
    """Whoever is new, or grows, only takes; who shrinks only gives. Nothing moves between the others."""
    after = {**before, name: weight}
    for key in KEYS[:300]:
        was, now = owner(key, before), owner(key, after)
        if was != now:
            assert now == name if weight > before.get(name, 0.0) else was == name


def test_a_score_of_no_weight_is_the_lowest() -> None:
    """A version of weight 0 gets nobody."""
    assert score(1, 2, 0.0) == 0.0 < score(1, 2, 1e-9)


def test_fingerprints_are_the_same_everywhere() -> None:
    """Other processes and later releases must agree: `b2sum -l 64` says so, too."""
    assert fingerprint(b"penstock") == 0xF38ECC36AD342E4F


def test_a_session_stays_at_its_deployment_under_any_load() -> None:
    """Whatever the strategy says, as long as it is well and not at its limit."""
    every = [deployment(name) for name in "abcd"]
    of, view = model(*every, strategy="least_busy"), loads()
    homes = {f"s{number}": home(of, view, f"s{number}") for number in range(200)}
    assert set(homes.values()) == {"a", "b", "c", "d"}
    for one in every[:2]:
        for _ in range(50):
            view.begin(one, 0)
    assert {session: home(of, view, session) for session in homes} == homes
    fewer = model(*every[:3], strategy="least_busy")
    moved = {session for session, place in homes.items() if home(fewer, view, session) != place}
    assert moved == {session for session, place in homes.items() if place == "d"}


def test_a_session_leaves_a_full_deployment() -> None:
    """Affinity is a wish, a limit is not."""
    every = [deployment(name, limits=Limits(parallel=1)) for name in "ab"]
    of, view = model(*every), loads()
    place = home(of, view, "s")
    view.begin(next(one for one in every if one.id == place), 0)
    assert home(of, view, "s") != place


def test_what_names_a_session() -> None:
    """The header before the body's `prompt_cache_key`, the user only where that is wanted."""

    def of(affinity: Affinity, *, header: str | None = None, **fields: str) -> int | None:
        headers = {} if header is None else {"x-penstock-session": header}
        return asked("hello", headers=headers, tags=(), metadata=None, regions=(), **fields).session(affinity)

    assert of("session", header="x") == of("session", header="x", prompt_cache_key="y") == fingerprint(b"x")
    assert of("session", prompt_cache_key="y", user="u") == of("user", prompt_cache_key="y") == fingerprint(b"y")
    assert of("session", user="u") is None
    assert of("user", user="u") == fingerprint(b"u")
    assert of("none", header="x", prompt_cache_key="y", user="u") is None
    assert of("session", prompt_cache_key="") is None


SYSTEM = ("system", "You are a careful assistant. " * 20)


def test_a_conversation_keeps_its_prefix_as_it_grows() -> None:
    """Also a short one: what is hashed ends with the first message that is not the system's."""
    turns = [SYSTEM, ("user", "hi"), ("assistant", "hello"), ("user", "and now?")]
    leads = {asked(turns[:count]).lead() for count in (2, 3, 4)}
    assert len(leads) == 1
    assert asked([SYSTEM, ("user", "ho")]).lead() not in leads
    assert asked(turns[1:2]).lead() == asked(turns[1:]).lead()


def test_a_long_system_prompt_is_shared_by_all_that_begin_with_it() -> None:
    """Only the first 2 KiB count."""
    long = ("system", "Rules of the house. " * 200)
    assert asked([long, ("user", "a")]).lead() == asked([long, ("user", "b")]).lead()
    assert asked([SYSTEM, ("user", "a")]).lead() != asked([long, ("user", "a")]).lead()


def test_a_response_keeps_its_prefix_as_its_input_grows() -> None:
    """However short its turns are; a text stands for one turn, and strange items are nobody's error here."""

    def lead(input_: object) -> int | None:
        body = json.dumps({"model": "m", "instructions": "Be brief.", "input": input_}).encode()
        return Asked(responses_decoder.decode(body), body, {}).lead()

    turns = [{"role": role, "content": text} for role, text in [SYSTEM, ("user", "hi"), ("assistant", "hello")]]
    longer = [*turns, {"type": "function_call", "name": "f"}]
    assert lead(turns[:2]) == lead(turns) == lead(longer) != lead(turns[:1])
    assert lead("hi") != lead("ho")
    assert lead([1, 2]) is None


def test_messages_that_share_their_system_prompt_share_a_prefix() -> None:
    """Anthropic's API has it beside the messages."""

    def lead(system: str, text: str) -> int | None:
        message = {"role": "user", "content": text}
        body = json.dumps({"model": "m", "max_tokens": 9, "system": system, "messages": [message]}).encode()
        return Asked(parse(body), body, {}).lead()

    long = "Rules of the house. " * 200
    assert lead(long, "a") == lead(long, "b") != lead("Other rules. " * 200, "a")
    assert lead("Be brief.", "a") != lead("Be polite.", "a")


@settings(deadline=None)
@given(st.integers(2, 8), st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=20, max_size=200))
def test_no_deployment_takes_much_more_than_its_share_of_hot_prefixes(
    count: int, steps: list[tuple[int, bool]]
) -> None:
    """Bounded loads: when a call is placed, its deployment has at most 1.25 times the average, rounded up."""
    every = [deployment(f"d{number}") for number in range(count)]
    of, view = model(*every, strategy="prefix"), loads()
    running: list[tuple[Deployment, Ticket]] = []
    for conversation, ends in steps:
        if ends and running:
            view.let_go(running.pop(0)[1], sent=True)
        chosen = plan(of, view, asked(f"conversation {conversation}"), random.random).order[0]
        running.append((chosen, view.begin(chosen, 0)))
        assert view.of(chosen).in_flight <= ceil(BOUND * len(running) / count)


def test_calls_that_begin_alike_meet_and_others_spread() -> None:
    """One after another, each prefix has one home; many prefixes use every deployment."""
    every = [deployment(f"d{number}") for number in range(4)]
    of, view = model(*every, strategy="prefix"), loads()
    homes = {
        text: {plan(of, view, asked(text), random.random).order[0].id for _ in range(5)}
        for text in (f"conversation {number}" for number in range(100))
    }
    assert all(len(places) == 1 for places in homes.values())
    counts = Counter(place for (place,) in homes.values())
    assert set(counts) == {"d0", "d1", "d2", "d3"}
    assert max(counts.values()) < 45
