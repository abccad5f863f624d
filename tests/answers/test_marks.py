"""Marks of citation: the same in a text and in its pieces, nothing lost, nothing that is not a mark taken for one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.grounding.marks import Marker, read

PARTS = st.sampled_from(
    [
        "It closes ",
        "【1】",
        " 【2, 3】",
        "[1]",
        "[1, 2]",
        "a[2]",
        "[9]",
        "【9】",
        "【",
        "】",
        "[",
        "]",
        " ",
        ".",
        "[1](x)",
        "é𝄞",
    ]
)


def known(number: int) -> bool:
    return number in (1, 2, 3)


@given(st.lists(PARTS, max_size=12).map("".join), st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_pieces_give_what_the_whole_gives(text: str, cuts: list[int], strip: bool) -> None:
    """Wherever a stream is cut."""
    marker = Marker(known, strip=strip)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [marker.feed(text[start:end]) for start, end in itertools.pairwise(places)]
    pieces.append(marker.close())
    whole = read(text, known, strip=strip)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert tuple(note for piece in pieces for note in piece.notes) == whole.notes
    assert all(0 <= note.index <= len(whole.text) for note in whole.notes)
    if not strip:
        assert whole.text == text


@pytest.mark.parametrize(
    ("text", "shown", "notes"),
    [
        ("Four seconds 【1】.", "Four seconds.", [(12, 1)]),
        ("Four 【1†gates.md】【2】!", "Four!", [(4, 1), (4, 2)]),
        ("Four 【1, 9】", "Four", [(4, 1)]),
        ("Four 【9】", "Four 【9】", []),
        ("Four [1].", "Four [1].", [(5, 1)]),
        ("x[1] and [link][1](there) and\n[1]: there", "x[1] and [link][1](there) and\n[1]: there", []),
    ],
)
def test_a_mark_becomes_a_note(text: str, shown: str, notes: list[tuple[int, int]]) -> None:
    """Stripped where it can be nothing else."""
    piece = read(text, known, strip=True)
    assert piece.text == shown
    assert [(one.index, one.number) for one in piece.notes] == notes


def test_what_may_be_a_mark_waits_and_no_longer() -> None:
    """A piece is shown as soon as it cannot become one."""
    marker = Marker(known, strip=True)
    assert marker.feed("closes 【").text == "closes"
    assert marker.feed("1").text == ""
    assert marker.feed("】 now").text == " now"
    assert marker.feed(" [x").text == " [x"
