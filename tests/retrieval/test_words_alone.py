"""While the embedding model is away, a search by meaning and words goes on with the words, and says so."""

import pytest

from retrieval.asking import Neighbours, Question, Stage
from retrieval.errors import Refused
from tests.fixtures.anew import House
from tests.fixtures.retrieval import ANN

AWAY = Refused(503, "Embedding: away", "upstream_error", None, again=True)
SKIPPED = Stage("embedding", "skipped", "Embedding: away", "words")


async def test_words_answer_alone_while_the_model_is_away(house: House) -> None:
    """What has them is found, in the plain way and beside other stages; with the model back, meaning is asked again."""
    home, ids = await house.filled("alpha", "beta")
    both = Question(("alpha",), lexical=1.0)
    house.models.failing["words"] = AWAY
    found = await house.retrieval.search(ANN, home, both)
    assert [each.document.source_id for each in found.results] == [ids[0]]
    assert found.stages == (SKIPPED,)
    assert not found.plans
    by_file = await house.retrieval.search(ANN, home, Question(("beta",), lexical=1.0, neighbours=Neighbours(1, 1)))
    assert [each.document.source_id for each in by_file.results] == [ids[1]]
    assert SKIPPED in by_file.stages
    house.models.failing.clear()
    again = await house.retrieval.search(ANN, home, both)
    assert not again.stages
    assert again.plans


async def test_a_search_by_meaning_alone_is_the_models_error(house: House) -> None:
    home, _ = await house.filled("alpha")
    house.models.failing["words"] = AWAY
    with pytest.raises(Refused, match="away"):
        await house.retrieval.search(ANN, home, Question(("alpha",), lexical=0.0))


@pytest.mark.parametrize(
    "refused",
    [
        Refused(402, "Embedding: no", "budget_exceeded", None),
        Refused(429, "Embedding: no", "rate_limit_exceeded", None, again=True),
    ],
)
async def test_what_a_key_may_not_is_no_outage(house: House, refused: Refused) -> None:
    """A budget that is used up, or a limit that is reached, is told."""
    home, _ = await house.filled("alpha")
    house.models.failing["words"] = refused
    with pytest.raises(Refused, match="no"):
        await house.retrieval.search(ANN, home, Question(("alpha",), lexical=1.0))
