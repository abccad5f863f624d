"""The second check: what it sets apart, what it lets pass, and how precise the cache by meaning is with it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.question_pairs import every, held_out
from benchmarks.semantic_cache import Row, rows, vectors
from gateway.cache.facts import agree, facts
from gateway.cache.precision import Precision, wilson
from gateway.settings import SemanticSpec

if TYPE_CHECKING:
    from embedding.model import Model

APART = """
Can a manager fire an employee? | Can an employee fire a manager?
does the client call the server | does the server call the client
How do I move files to the archive? | How do I move files from the archive?
Is a whale bigger than an elephant? | Is an elephant bigger than a whale?
translate cat to french | translate french to cat
Flights from Oslo to Rome | Flights from Rome to Oslo
What is the best laptop? | What is the worst laptop?
How do I log in? | How do I log out?
Who is the president of Chile? | Who was the president of Chile?
What's my balance? | What's your balance?
Should I buy shares? | Should I sell shares?
remind me at 5pm | remind me at 5am
price of model X100 | price of model X200
error E1001 | error E1010
What is 12 + 5? | What is 12 * 5?
what is 12 - 5? | what is 5 - 12?
a > b | b > a
What does C do? | What does C++ do?
Is it legal to drive at 17? | Is it illegal to drive at 17?
What can I do in Berlin? | What can't I do in Berlin?
print(1) | print(2)
Tell me about Java | Tell me about the island Java
Is this for him? | Is this for her?
Who said it? | When did they say it?
1.5 litres of milk | 15 litres of milk
2 eggs and 3 apples | 3 eggs and 2 apples
東京の人口 | 大阪の人口
Как сбросить пароль? | Как сменить пароль?
Wie ist das Wetter in Wien? | Wie ist das Wetter in Bern?
""".strip().splitlines()

TOGETHER = """
What's the capital of France? | what is the capital of France
How do I reset my password? | I want to reset my password.
Please tell me why the sky is blue. | Why is the sky blue?
10,000 euros in dollars | €10000 in dollars
How many days are in two weeks? | how many days are in 2 weeks
Does the API support pagination? | Is pagination supported by the API?
Wie ist das Wetter in Wien? | wie ist das Wetter in Wien
""".strip().splitlines()


@pytest.mark.parametrize("pair", APART)
def test_what_has_another_answer_is_set_apart(pair: str) -> None:
    """Whatever the vectors say; in both directions."""
    one, other = (facts(text.strip()) for text in pair.split(" | "))
    assert not agree(one, other)
    assert not agree(other, one)
    assert agree(one, one)


@pytest.mark.parametrize("pair", TOGETHER)
def test_what_only_is_said_otherwise_passes(pair: str) -> None:
    """In both directions."""
    one, other = (facts(text.strip()) for text in pair.split(" | "))
    assert agree(one, other)
    assert agree(other, one)


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_two_texts_can_be_compared(one: str, other: str) -> None:
    """Nothing that a client may write breaks the check; it is the same both ways, and every text agrees with itself."""
    first, second = facts(one), facts(other)
    assert agree(first, second) == agree(second, first)
    assert agree(first, facts(one))


async def test_precision_on_the_pairs_is_what_is_declared(open_embedding_model: "Callable[[], Model]") -> None:
    """At the default threshold at least 0.99 of what is answered by meaning is right, also of pairs that were never looked at; and it is of
    use: more than half of what is asked in other words is found. Similarity alone is wrong for a third and more."""
    same = [pair for pair in every() if agree(facts(pair.one), facts(pair.other))]
    some = held_out()[:150]
    known = await vectors(open_embedding_model, [*same, *some])  # of what the check refuses, no vector is asked for
    default = SemanticSpec().threshold
    for pairs in (every(), held_out()):
        (checked,) = rows([pair for pair in pairs if pair in same], known, (default,), checked=True)
        assert checked.precision >= 0.99, checked
        assert checked.right > 0.5 * sum(pair.same for pair in pairs), checked
    plain: list[Row] = rows(some, known, (0.8, 0.9, 0.95), checked=False)
    assert all(row.precision < 0.7 for row in plain)


def test_an_interval_is_honest_about_few_and_about_none() -> None:
    """Wilson's, by the numbers of his paper's successors (Brown, Cai and DasGupta 2001): 0 of 10 may be 0.28."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10).upper == pytest.approx(0.2775, abs=0.001)
    assert wilson(10, 10).lower == pytest.approx(0.7225, abs=0.001)
    lower, upper = wilson(95, 100)
    assert lower == pytest.approx(0.8882, abs=0.001)
    assert upper == pytest.approx(0.9785, abs=0.001)


def test_the_threshold_rises_where_answers_are_wrong_and_comes_back() -> None:
    """Wrong ones below 0.9 push it above them and no further; what is right from there on lets it fall, never below what is configured."""
    precision = Precision(0.85, 0.95)
    for number in range(60):
        precision.judge(0.86 + 0.001 * (number % 20), right=False)
        precision.judge(0.95, right=True)
    assert 0.86 < precision.threshold <= 0.95
    assert precision.interval.upper >= 0.95
    risen = precision.threshold
    for _ in range(600):
        precision.judge(0.97, right=True)
    assert 0.85 <= precision.threshold < risen
    precision.configure(0.9, 0.95)
    assert precision.threshold >= 0.9


def test_one_wrong_answer_among_a_hundred_moves_nothing() -> None:
    """It is what was declared; five are not."""
    precision = Precision(0.85, 0.99)
    for number in range(101):
        precision.judge(0.9, right=number != 100)
    assert precision.threshold == 0.85
    for _ in range(4):
        precision.judge(0.9, right=False)
    assert precision.threshold > 0.85
