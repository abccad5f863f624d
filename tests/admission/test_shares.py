"""Max-min fair shares, and a minute of tokens that active keys share by them."""

from math import inf, isclose

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.fair_minute import FairMinute
from gateway.admission.maxmin import shares

weights = st.floats(0.1, 10)
demands = st.one_of(st.floats(0, 1000), st.just(inf))


@given(st.floats(0, 1000), st.dictionaries(st.integers(), st.tuples(weights, demands), min_size=1, max_size=8))
def test_shares_are_max_min_fair(amount: float, wants: dict[int, tuple[float, float]]) -> None:
    """The sum is all there is or all that is wanted; who does not get what it wants has no less for its weight than anybody."""
    found = shares(amount, wants)
    wanted = sum(demand for _, demand in wants.values())
    assert isclose(sum(found.values()), min(amount, wanted), rel_tol=1e-6, abs_tol=1e-6)
    level = max((found[key] / weight for key, (weight, _) in wants.items()), default=0.0)
    for key, (weight, demand) in wants.items():
        assert -1e-9 <= found[key] <= demand + 1e-9
        if found[key] < demand - 1e-6:
            assert isclose(found[key] / weight, level, rel_tol=1e-6, abs_tol=1e-6)


LIMIT = 6_000


class Sharing:
    """A limit that is used by keys which come again and again, as a gateway would let them."""

    def __init__(self) -> None:
        self.fair = FairMinute()
        self.now = 1000.0
        self.used: list[tuple[float, str, int]] = []

    def ask(self, key: str, tokens: int, weight: float = 1.0) -> bool:
        now = self.now
        total = sum(amount for at, _, amount in self.used if at > now - 60)
        if total + tokens <= LIMIT and self.fair.allows(now, LIMIT, key, weight, tokens):
            self.fair.use(now, key, weight, tokens)
            self.used.append((now, key, tokens))
            return True
        self.fair.turned_away(now, key, weight, 2.0)
        return False

    def last_minute(self, key: str) -> int:
        return sum(amount for at, who, amount in self.used if at > self.now - 60 and who == key)


def test_one_key_alone_has_the_whole_limit() -> None:
    """Nothing is set aside for nobody."""
    sharing = Sharing()
    assert all(sharing.ask("a", 100) for _ in range(60))
    assert not sharing.ask("a", 100)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=2, max_size=4), st.integers(20, 200))
def test_keys_that_want_more_get_their_shares_by_weight(own: list[float], tokens: int) -> None:
    """From the second minute on, also if one of them had everything before; together they use what there is."""
    sharing = Sharing()
    while sharing.ask("0", 100):
        pass
    for _ in range(800):
        sharing.now += 0.25
        for number, weight in enumerate(own):
            while sharing.ask(str(number), tokens, weight):
                pass
    got = [sharing.last_minute(str(number)) for number in range(len(own))]
    # A minute is counted in slots of five seconds, so a thirteenth is always still out; and a call is all or nothing.
    slack = LIMIT / 12 + len(own) * tokens
    assert sum(got) >= LIMIT - slack - LIMIT / 12
    for weight, one in zip(own, got, strict=True):
        fair = LIMIT * weight / sum(own)
        assert one <= fair + tokens
        assert one >= (fair - tokens) * 12 / 13 - fair / 6


def test_what_a_key_does_not_use_is_the_others() -> None:
    """A modest one has what it wants, the greedy ones share the rest."""
    sharing = Sharing()
    turned_away = 0
    for second in range(300):
        sharing.now += 1
        for key in ("greedy", "greedier"):
            while sharing.ask(key, 50):
                pass
        if second >= 130:
            turned_away += not sharing.ask("modest", 10)
    assert turned_away <= 66  # until what the others had taken has slid out of the minute, and never again
    assert 500 <= sharing.last_minute("modest") <= 600
    rest = LIMIT - 600
    for key in ("greedy", "greedier"):
        assert rest / 2 * 0.75 <= sharing.last_minute(key) <= rest / 2 + 60


def test_a_newcomer_waits_for_no_longer_than_the_minute() -> None:
    """Somebody has taken everything, and goes on asking."""
    sharing = Sharing()
    while sharing.ask("a", 100):
        pass
    for _ in range(66):
        sharing.now += 1
        sharing.ask("a", 100)
        if sharing.ask("b", 100):
            break
    else:
        raise AssertionError("b has starved")
    for _ in range(70):
        sharing.now += 1
        sharing.ask("b", 100)
        sharing.ask("a", 100)
    assert sharing.last_minute("b") >= LIMIT * 0.4


def test_a_call_larger_than_a_share_is_served_to_who_has_used_nothing() -> None:
    """Or a key with large prompts would never be served beside others."""
    sharing = Sharing()
    sharing.ask("a", 2000)
    sharing.fair.turned_away(sharing.now, "a", 1.0, 60.0)
    assert sharing.ask("b", 3500)
    assert not sharing.ask("b", 100)


def test_who_does_not_come_back_has_nothing_kept() -> None:
    """Five seconds after the moment that it was told."""
    sharing = Sharing()
    assert sharing.ask("a", 3000)
    sharing.fair.turned_away(sharing.now, "b", 1.0, 2.0)
    assert not sharing.ask("a", 100)
    sharing.now += 7.5
    assert sharing.ask("a", 100)


def test_keys_are_forgotten() -> None:
    """Memory is bounded by who is active."""
    sharing = Sharing()
    for number in range(1000):
        sharing.now += 1
        sharing.ask(str(number), 10)
    assert sharing.fair.active(sharing.now) <= 130
    sharing.now += 130
    assert sharing.fair.active(sharing.now) == 0
