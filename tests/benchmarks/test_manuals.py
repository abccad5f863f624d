"""Questions about the manuals are made by rules that no retriever has a part in, and none stands in a document."""

import gzip
import shutil
from pathlib import Path

import pytest

from benchmarks import manual_sources
from benchmarks.manual_sources import Question
from benchmarks.manuals import choose

FAQ = """<html><body><section id="f"><h1>FAQ</h1><section id="a"><h2>General</h2>
<section id="a1"><h3>Why is it called that?<a class="headerlink" href="#">¶</a></h3><p>After a show.</p></section>
<section id="a2"><h3>No question</h3><p>x</p></section></section></section></body></html>"""
LIBRARY = """<html><body><dl class="py function"><dt id="textwrap.shorten">shorten()</dt><dd>Makes a text fit.</dd></dl>
<dl class="py function"><dt id="textwrap.indent">indent()</dt>
<dd>Adds 'prefix' to the beginning of selected lines in 'text'.</dd></dl></body></html>"""
COMMAND = """<html><body><div class="refnamediv"><h2>COPY</h2>
<p>COPY \u2014 copy data between a file and a table</p></div><p>COPY moves data.</p></body></html>"""


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_faq_is_cut_into_answers_without_their_questions(tmp_path: Path) -> None:
    """One page for each; neither its text nor its name tells the question."""
    put(tmp_path / "usr/share/doc/python3.11/html/faq/general.html", FAQ)
    pages, questions = manual_sources.python_faq(tmp_path)
    assert [(each.text, each.pages, each.answer) for each in questions] == [
        ("Why is it called that?", ("python-faq/000.html",), "After a show.")
    ]
    assert [page.id for page in pages] == ["python-faq/000.html"]
    assert "called" not in pages[0].text


def test_docstrings_ask_for_what_the_reference_says_in_other_words(tmp_path: Path) -> None:
    """A summary that the reference repeats is no question."""
    put(tmp_path / "usr/share/doc/python3.11/html/library/textwrap.html", LIBRARY)
    pages, questions = manual_sources.python_manual(tmp_path)
    assert [page.id for page in pages] == ["python/library/textwrap.html"]
    assert [(each.id, each.text) for each in questions] == [
        ("docstring/textwrap.shorten", "Collapse and truncate the given text to fit in the given width")
    ]


def test_a_purpose_is_asked_and_taken_out_of_its_page(tmp_path: Path) -> None:
    """Pages with the same purpose answer it all."""
    for name in ("a", "b"):
        put(tmp_path / f"usr/share/doc/postgresql-doc-15/html/{name}.html", COMMAND)
    pages, questions = manual_sources.postgresql_manual(tmp_path)
    assert [(each.text, each.pages) for each in questions] == [
        ("copy data between a file and a table", ("postgresql/a.html", "postgresql/b.html"))
    ]
    assert all("COPY moves data." in page.text and "between" not in page.text for page in pages)


def test_manual_pages_are_rendered(tmp_path: Path) -> None:
    """By mandoc, where it has been unpacked."""
    program = Path(__file__).parents[2] / ".tools/debian/usr/bin/mandoc"
    if not program.exists():
        pytest.skip("needs deploy/setup.sh unpack mandoc")
    (tmp_path / "usr/bin").mkdir(parents=True)
    shutil.copy(program, tmp_path / "usr/bin")
    source = ".TH CUT 1\n.SH NAME\ncut \\- remove sections from each line of files\n.SH DESCRIPTION\nPrints parts.\n"
    folder = tmp_path / "usr/share/man/man1"
    folder.mkdir(parents=True)
    (folder / "cut.1.gz").write_bytes(gzip.compress(source.encode()))
    (folder / "other.1.gz").write_bytes(gzip.compress(b".so man1/cut.1\n"))
    pages, questions = manual_sources.manual_pages(tmp_path)
    assert [page.id for page in pages] == ["man/cut.1.html"]
    assert "Prints parts." in pages[0].text
    assert "remove sections" not in pages[0].text
    assert [each.text for each in questions] == ["remove sections from each line of files"]


def test_a_larger_choice_contains_a_smaller_one() -> None:
    """So that figures of two sizes speak of the same questions."""
    every = [
        Question(f"{kind}/{place}", kind, "x", ("p",))
        for kind in ("faq", "purpose", "docstring")
        for place in range(100)
    ]
    small, large = (choose(every, most) for most in (50, 100))
    assert {each.id for each in small} < {each.id for each in large}
    assert len(large) == 100
