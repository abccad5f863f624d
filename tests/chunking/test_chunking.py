"""Passages cover their document, keep their limits, say exactly where they stand, and stay where nothing changed."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedding import bundled, cl100k
from retrieval.chunking import sentences, strategies
from retrieval.chunking.chunk import Chunk, Document, Sizes
from retrieval.chunking.context import with_context
from retrieval.chunking.semantic import breaks, by_meaning
from retrieval.chunking.tokens import Cl100k, Estimate, Measure, vocabulary
from retrieval.parsing import registry
from retrieval.parsing.errors import EmptyFile
from retrieval.parsing.source import Source

WORDS = (
    "water",
    "gate",
    "turbine",
    "flow",
    "Dr.",
    "the",
    "3.5",
    "opens.",
    "Why?",
    "(see",
    "e.g.",
    "水門",
    "затвор",
    "x" * 40,
    "🚰",
    "é",
)
GLUE = (" ", " ", " ", "\n", "\n\n", "\n\n## Part\n\n", "\n- ", "\t", "。", "\n    ")
Strategy = Callable[[Document, Measure, Sizes], Sequence[Chunk]]
STRATEGIES: Sequence[Strategy] = (
    strategies.by_tokens,
    strategies.by_sentences,
    strategies.by_headings,
    strategies.by_definitions,
)


@pytest.fixture(scope="module")
def openai() -> Cl100k:
    pytest.importorskip("tiktoken")
    return Cl100k(cl100k.installed().ranks())


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Prose, lists, headings, scripts without blanks, and endless words."""
    pieces = draw(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GLUE)), max_size=120))
    end = draw(
        st.one_of(
            st.just(""),
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40),
            st.integers(1, 600).map(lambda n: "z" * n),
        )
    )
    return "".join(word + glue for word, glue in pieces) + end


def document(text: str, name: str = "a.md") -> Document:
    if not text.strip():
        return Document(text)
    try:
        parsed = registry.read(Source(name, text.encode("utf-8", "replace")))
    except EmptyFile:
        return Document(text)
    return Document(parsed.text, parsed.blocks)


def check(document: Document, chunks: Sequence[Chunk], measure: Measure, sizes: Sizes) -> None:
    text = document.text
    covered = bytearray(len(text))
    at = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.tokens == len(measure.ends(chunk.text))
        assert chunk.tokens <= sizes.max_tokens or len(chunk.text) == 1
        assert chunk.start >= at
        assert chunk.line == 1 + text.count("\n", 0, chunk.start)
        at = chunk.start
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    assert [text[place] for place, there in enumerate(covered) if not there and not text[place].isspace()] == []


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda one: one.__name__)
@given(text=texts(), room=st.integers(16, 90), share=st.sampled_from([0, 0.1, 0.5]))
@example(text="z" * 5000, room=16, share=0.5)
@example(text="水" * 500, room=16, share=0.5)
@example(text=" \n ", room=16, share=0.5)
def test_passages_cover_the_text_within_their_limits(strategy: Strategy, text: str, room: int, share: float) -> None:
    """Each character that is not blank is in a passage, offsets and lines are exact, no passage is too long."""
    source, sizes = document(text), Sizes(room, int(room * share))
    check(source, strategy(source, Estimate(), sizes), Estimate(), sizes)


@given(text=texts())
def test_the_same_holds_for_a_real_tokenizer(openai: Cl100k, text: str) -> None:
    """cl100k_base cuts inside characters and across blanks; limits and offsets hold all the same."""
    source, sizes = document(text), Sizes(32, 16)
    check(source, strategies.by_tokens(source, openai, sizes), openai, sizes)


@given(text=texts())
def test_an_overlap_is_bounded_and_no_passage_lies_in_another(text: str) -> None:
    """What repeats the passage before is at most the overlap, give or take the token at its edge."""
    source, sizes = document(text), Sizes(60, 20)
    chunks = strategies.by_tokens(source, Estimate(), sizes)
    for before, after in pairwise(chunks):
        assert after.end > before.end
        repeated = source.text[after.start : before.end]
        assert len(Estimate().ends(repeated)) <= sizes.overlap_tokens + 1


@given(text=texts(), more=texts())
def test_what_is_appended_changes_the_end_alone(text: str, more: str) -> None:
    """Passages that do not reach into the last one's room are the same, with or without what follows."""
    sizes = Sizes(40, 10)
    before = strategies.by_tokens(Document(text), Estimate(), sizes)
    after = strategies.by_tokens(Document(text + " " + more), Estimate(), sizes)
    settled = before[:-3]
    assert [(chunk.start, chunk.text) for chunk in after[: len(settled)]] == [
        (chunk.start, chunk.text) for chunk in settled
    ]


@pytest.mark.parametrize("sizes", [Sizes(120, 0), Sizes(120, 60)])
def test_an_edit_changes_only_passages_near_it(sizes: Sizes) -> None:
    """A paragraph in the middle of 300 is rewritten: nearly every passage has the text that it had, so few are embedded anew."""
    chance = random.Random(7)
    vocabulary = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 9))) for _ in range(2000)]

    def paragraph() -> str:
        count = chance.randint(2, 8)
        return " ".join(
            " ".join(chance.choices(vocabulary, k=chance.randint(5, 20))).capitalize() + "." for _ in range(count)
        )

    changed = []
    for _ in range(10):
        paragraphs = [paragraph() for _ in range(300)]
        edited = [*paragraphs[:150], paragraph(), paragraph(), *paragraphs[151:]]
        before, after = (
            strategies.by_tokens(document("\n\n".join(each), "a.txt"), Estimate(), sizes)
            for each in (paragraphs, edited)
        )
        known = {chunk.text for chunk in before}
        changed.append(sum(chunk.text not in known for chunk in after))
        assert len(after) > 200
    assert sum(changed) / len(changed) <= 12
    assert max(changed) <= 30


def test_a_passage_knows_its_page_and_headings() -> None:
    """Anchors are the block's; what repeats the passage before does not decide the heading."""
    text = "# A\n\n" + "First words. " * 20 + "\n\n## B\n\n" + "Second words. " * 20
    chunks = strategies.by_tokens(document(text), Estimate(), Sizes(40, 20))
    assert {chunk.heading for chunk in chunks} == {("A",), ("A", "B")}
    assert [chunk.heading for chunk in chunks] == sorted(chunk.heading for chunk in chunks)


def test_sections_are_cut_at_headings_and_tiny_ones_are_joined() -> None:
    """A heading with three words is not a passage of its own; a long section is several."""
    text = "# A\n\nshort\n\n# B\n\n" + "Long text. " * 60 + "\n\n# C\n\n" + "More text. " * 20
    chunks = strategies.by_headings(document(text), Estimate(), Sizes(100, 0))
    assert chunks[0].text.startswith("# A\n\nshort")
    assert not any("# C" in chunk.text and not chunk.text.startswith("# C") for chunk in chunks)
    assert chunks[-1].heading == ("C",)


def test_code_is_cut_by_definitions() -> None:
    """Each function is one passage that knows its name."""
    body = "        total = width * height + depth\n" * 8
    text = f"def one(width):\n{body}\n\nclass Gate:\n    def two(self):\n{body}\n\ndef tiny():\n    pass\n"
    chunks = strategies.by_definitions(document(text, "a.py"), Estimate(), Sizes(100, 0))
    assert [chunk.heading for chunk in chunks] == [("one",), ("Gate",), ("tiny",)]
    assert chunks[1].text.startswith("class Gate:\n    def two(self):")


def test_children_lie_in_their_parents() -> None:
    """The child is searched, the parent shown."""
    source = document("# A\n\n" + "Some words stand here. " * 100)
    families = strategies.into_families(
        source, Estimate(), strategies.by_tokens(source, Estimate(), Sizes(200, 0)), Sizes(40, 0)
    )
    assert len(families.children) > 2 * len(families.parents) > 2
    for child in families.children:
        assert child.parent is not None
        parent = families.parents[child.parent]
        assert parent.start <= child.start < child.end <= parent.end
    check(source, families.children, Estimate(), Sizes(40, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Ada met J. Doe, e.g. in Paris. They spoke.", ["Dr. Ada met J. Doe, e.g. in Paris.", "They spoke."]),
        ("It costs 3.50 dollars. He said “No.” Then left.", ["It costs 3.50 dollars.", "He said “No.”", "Then left."]),
        ("水門を開く。水が流れる。", ["水門を開く。", "水が流れる。"]),
        ("A list:\n- one\n- two\n\nAfter it", ["A list:", "- one", "- two", "After it"]),
        ("a file.py is small. and so on", ["a file.py is small. and so on"]),
        ("So did I. Then he left.", ["So did I.", "Then he left."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    """Marks end a sentence, abbreviations and numbers do not."""
    assert [text[start:end] for start, end in sentences.spans(text)] == expected


@pytest.mark.parametrize("marks", ["." * 400_000, "?!" * 200_000, "." + ")" * 400_000, "\n" * 400_000])
@pytest.mark.timeout(60)
def test_endless_marks_are_read_once(marks: str) -> None:
    """Time that grows with the square of the text would be half an hour here."""
    assert list(sentences.spans(f"{marks} One.")) != []
    assert len(list(sentences.spans(f"One{marks} Two."))) == 2


@pytest.mark.parametrize(("most", "overlap"), [(15, 0), (100, 51), (100, -1)])
def test_impossible_sizes_are_refused(most: int, overlap: int) -> None:
    """An overlap of more than half would never come to an end."""
    with pytest.raises(ValueError, match="must be"):
        Sizes(most, overlap)


async def test_meaning_decides_where_a_subject_ends() -> None:
    """Twelve sentences about one thing, twelve about another: the cut lies between them."""
    about = [f"Water number {place} flows through the gate." for place in range(12)]
    other = [f"Bread number {place} comes out of the oven." for place in range(12)]
    text = " ".join(about + other)

    async def embed(groups: Sequence[str]) -> list[list[float]]:
        return [[group.count("Water") + 0.01 * len(group), group.count("Bread")] for group in groups]

    chunks = await by_meaning(Document(text), Estimate(), embed, Sizes(400, 0))
    assert [chunk.text.count("Water") for chunk in chunks] in ([12, 0], [11, 1, 0], [12, 0, 0])
    check(Document(text), chunks, Estimate(), Sizes(400, 0))


def test_even_meanings_are_not_cut() -> None:
    """No distance stands out where all are alike."""
    assert breaks([[1.0, 0.0]] * 50) == []
    assert breaks([]) == []


async def test_each_passage_gets_its_context() -> None:
    """The document's part of the question is the same for all, so that a provider caches it; the answer is embedded before the text."""
    source = Document("Gate one. " * 50)
    chunks = strategies.by_sentences(source, Estimate(), Sizes(40, 0))
    asked = []

    async def ask(shared: str, question: str) -> str:
        asked.append((shared, question))
        return "  About\n gates. "

    told = await with_context(source, chunks, ask)
    assert len({shared for shared, _ in asked}) == 1
    assert [chunk.text for chunk in told] == [chunk.text for chunk in chunks]
    assert told[0].embedded_text == f"About gates.\n\n{chunks[0].text}"


async def test_a_long_document_is_shown_around_the_passage() -> None:
    """A question never carries more than the limit."""
    source = Document("Opening words. " + "Middle words here. " * 2000 + "The end.")
    chunks = strategies.by_sentences(source, Estimate(), Sizes(400, 0))
    lengths = []

    async def ask(shared: str, question: str) -> str:
        lengths.append(len(shared))
        assert "Opening words." in shared
        return question[:10]

    await with_context(source, chunks, ask, most_characters=8000)
    assert max(lengths) < 8100


async def test_a_model_that_fails_ends_the_work() -> None:
    """The caller gets the model's own error, and may try again."""

    async def ask(shared: str, question: str) -> str:
        raise ConnectionError(len(shared + question))

    source = Document("Some words. " * 50)
    with pytest.raises(ConnectionError):
        await with_context(source, strategies.by_sentences(source, Estimate(), Sizes(40, 0)), ask)


def test_cl100k_counts_as_openai_does(openai: Cl100k) -> None:
    """Known counts, and the ends of tokens inside a character."""
    assert list(openai.ends("hello world")) == [5, 11]
    assert list(openai.ends("tiktoken is great!")) == [1, 3, 8, 11, 17, 18]
    assert openai.ends("🚰")[-1] == 1
    assert len(openai.ends("a" * 100_000)) < 100_000  # and ends in time


def test_the_tokens_of_the_embedding_model_can_be_the_measure() -> None:
    """What counts against its window of 256."""
    if not bundled.installed():
        pytest.skip("needs the `embedded` extra")
    measure = vocabulary(bundled.tokenizer_file())
    assert list(measure.ends("A penstock feeds.")) == [1, 6, 10, 16, 17]
    source = document("Every turbine has a gate. " * 200)
    check(source, strategies.by_tokens(source, measure, Sizes(254, 50)), measure, Sizes(254, 50))
