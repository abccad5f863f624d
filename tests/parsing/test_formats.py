"""Every format gives its text, in order, with blocks that say where each piece stood."""

import json
from pathlib import Path

import pytest

from retrieval.parsing import media
from retrieval.parsing.parsed import Parsed
from retrieval.parsing.registry import read
from retrieval.parsing.source import Source
from tests.fixtures import documents

HTML = """<!doctype html><html><head><title>Penstock guide</title><script>var x = 1;</script></head>
<body><nav><a href="/">Home</a></nav>
<div role="main"><h1>Guide<a class="headerlink" href="#g">¶</a></h1>
<p>A <b>gate</b> holds
the water.</p>
<h2>Parts</h2><ul><li>valve</li><li>seal</li></ul>
<pre>open()
  close()</pre>
<table><tr><th>Part</th><th>Count</th></tr><tr><td>bolt</td><td>3</td></tr></table>
</div><footer>Imprint</footer></body></html>"""
MARKDOWN = (
    "---\ntitle: x\n---\n# Guide\n\nFirst *words*.\n\n## Parts\n\n- valve\n- seal\n\n"
    "```py\n# no heading\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
)
PYTHON = '''"""A module."""

import os


@decorated
def open_gate(n):
    """Opens."""
    return n


class Gate:
    """A gate."""

    width = 3

    def close(self):
        return 0
'''
GO = """package gate

import "fmt"

// Open lifts the gate.
// It blocks.
func Open(n int) error {
\tfmt.Println(n)

\treturn nil
}

type Gate struct {
\tWidth int
}
"""


def parsed(name: str, content: bytes | str, declared: str | None = None) -> Parsed:
    data = content.encode() if isinstance(content, str) else content
    result = read(Source(name, data, declared=declared))
    check_anchors(result)
    return result


def check_anchors(result: Parsed) -> None:
    """Blocks are in order, inside the text, do not overlap and hold something."""
    at = 0
    for block in result.blocks:
        assert at <= block.start < block.end <= len(result.text)
        assert result.text[block.start : block.end].strip()
        at = block.end


def said(result: Parsed) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(block.kind, result.text[block.start : block.end], block.headings) for block in result.blocks]


def test_plain_text_keeps_every_character_and_counts_lines() -> None:
    """The text is the file's; paragraphs know the line that they begin on."""
    text = "First\nparagraph.\n\n\n  Second.\n"
    result = parsed("a.txt", text)
    assert result.text == text
    assert [(block.line, text[block.start : block.end]) for block in result.blocks] == [
        (1, "First\nparagraph."),
        (5, "Second."),
    ]


def test_markdown_stays_as_written_and_knows_its_headings() -> None:
    """Fences hide what looks like a heading; a header of metadata is no content."""
    result = parsed("guide.md", MARKDOWN)
    assert result.text == MARKDOWN
    assert result.title == "Guide"
    assert said(result) == [
        ("heading", "# Guide", ("Guide",)),
        ("paragraph", "First *words*.", ("Guide",)),
        ("heading", "## Parts", ("Guide", "Parts")),
        ("list", "- valve\n- seal", ("Guide", "Parts")),
        ("code", "```py\n# no heading\n```", ("Guide", "Parts")),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |", ("Guide", "Parts")),
    ]
    assert [block.line for block in result.blocks] == [4, 6, 8, 10, 13, 17]


def test_html_gives_its_main_content_without_navigation() -> None:
    """Scripts, menus and footers are no content; whitespace is the browser's; code keeps its indentation."""
    result = parsed("guide.html", HTML)
    assert result.title == "Penstock guide"
    assert said(result) == [
        ("heading", "Guide", ("Guide",)),
        ("paragraph", "A gate holds the water.", ("Guide",)),
        ("heading", "Parts", ("Guide", "Parts")),
        ("list", "valve", ("Guide", "Parts")),
        ("list", "seal", ("Guide", "Parts")),
        ("code", "open()\n  close()", ("Guide", "Parts")),
        ("row", "Part | Count", ("Guide", "Parts")),
        ("row", "bolt | 3", ("Guide", "Parts")),
    ]
    assert [block.line for block in result.blocks][:3] == [3, 4, 6]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>a</p>b<p>c</p>", "a\n\nb\n\nc"),
        ("<nav>only menu</nav>text<script>x</script> goes on", "text goes on"),
        ("<table><tr><td><p>one</p></td><td>two</td></tr></table>", "one\ntwo"),
        ("<p>x &amp; y &lt;z&gt; &#8364;</p>", "x & y <z> €"),
        ("<p>never closed <b>bold <i>both</p><div>next", "never closed bold both\n\nnext"),
        ("<p>a<br>b</p>", "a\nb"),
        ("<!-- only a comment --><p>seen</p>", "seen"),
        ('<img alt="a dam"><p hidden>gone</p>', "a dam"),
    ],
)
def test_html_that_people_write(page: str, text: str) -> None:
    """Stray text, missing ends, layout tables and entities come out as a browser shows them."""
    assert parsed("a.html", page).text == text


def test_html_is_decoded_as_it_declares() -> None:
    """The charset stands in the page itself."""
    page = '<meta charset="windows-1251"><p>Привет, мир</p>'.encode("cp1251")
    result = parsed("a.html", page)
    assert (result.text, result.encoding) == ("Привет, мир", "cp1251")


def test_csv_rows_carry_their_column_names() -> None:
    """Quoted fields may hold line breaks; a row knows the line where it begins."""
    result = parsed("stock.csv", 'part;count;note\nvalve;12;"two\nlines"\n\nseal;;\n')
    assert [(block.line, result.text[block.start : block.end]) for block in result.blocks] == [
        (2, "part: valve | count: 12 | note: two lines"),
        (5, "part: seal"),
    ]


def test_csv_without_a_header_is_rows() -> None:
    """Numbers are no names."""
    assert parsed("x.csv", "1,2\n3,4\n").text == "1 | 2\n3 | 4"
    assert parsed("x.tsv", "a\tb\n").text == "a | b"


def test_json_values_carry_their_paths() -> None:
    """Numbers stay as written; each record is a block under its path."""
    result = parsed("x.json", '{"gate": {"width": 1.10, "open": [true, null]}, "name": "north"}')
    assert said(result) == [
        ("row", "gate.width: 1.10\ngate.open[0]: true\ngate.open[1]: null", ("gate",)),
        ("row", "name: north", ("name",)),
    ]


def test_json_lines_are_records_with_lines() -> None:
    """One record a line, blank lines between them or not."""
    rows = [{"q": "one"}, {"q": "two"}]
    result = parsed("x.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert [(block.line, result.text[block.start : block.end]) for block in result.blocks] == [
        (1, "q: one"),
        (3, "q: two"),
    ]


def test_python_is_cut_by_its_grammar() -> None:
    """Decorators and docstrings belong to their definition, methods to their class."""
    result = parsed("gate.py", PYTHON)
    assert result.text == PYTHON
    assert [(block.headings, block.line) for block in result.blocks] == [
        ((), 1),
        (("open_gate",), 6),
        (("Gate",), 12),
        (("Gate", "close"), 17),
    ]
    assert result.text[result.blocks[1].start :].startswith("@decorated")


def test_other_languages_are_cut_by_indentation() -> None:
    """Comments above a function belong to it; blank lines inside do not cut it."""
    result = parsed("gate.go", GO)
    assert [block.headings for block in result.blocks] == [(), ("Open",), ("Gate",)]
    assert result.text[result.blocks[1].start : result.blocks[1].end].startswith("// Open lifts")
    assert result.text[result.blocks[1].start : result.blocks[1].end].endswith("}")


@pytest.mark.parametrize("name", ["retrieval/parsing/sandbox.py", "deploy/setup.sh", "benchmarks/chat.lua", "Makefile"])
def test_no_line_of_code_is_lost(name: str) -> None:
    """Between two blocks there is nothing but blank space."""
    path = Path(__file__).parents[2] / name
    result = parsed(name, path.read_bytes(), media.PLAIN)
    gaps = list(result.text)
    for block in result.blocks:
        gaps[block.start : block.end] = [" "] * (block.end - block.start)
    assert "".join(gaps).strip() == ""


def test_pdf_pages_and_outline() -> None:
    """A paragraph knows its page, and the bookmark that it stands under."""
    content = documents.pdf(
        [["Introduction", "Water flows down.", "", "It turns wheels."], [], ["Gates", "They close."]],
        [("Introduction", 0), ("Gates", 2)],
    )
    result = parsed("a.pdf", content)
    assert [block.page for block in result.blocks] == [1] * (len(result.blocks) - 1) + [3]
    assert "Water flows down." in result.text
    assert result.blocks[0].headings == ("Introduction",)
    assert result.blocks[-1].headings == ("Gates",)
    assert result.warnings == ("1 of 3 pages hold no text (pages 2): pictures need OCR first.",)


def test_word_documents() -> None:
    """Headings by style, items, and tables whose rows stand on their own."""
    assert said(parsed("a.docx", documents.word())) == [
        ("heading", "Handbook", ("Handbook",)),
        ("paragraph", "Welcome to the plant.", ("Handbook",)),
        ("heading", "Turbines", ("Handbook", "Turbines")),
        ("paragraph", "Each turbine has a gate.", ("Handbook", "Turbines")),
        ("list", "- Grease it.", ("Handbook", "Turbines")),
        ("row", "Turbine: North | Power: 12 MW", ("Handbook", "Turbines")),
    ]


def test_slides() -> None:
    """A slide is a page under its title; notes and tables are read as well."""
    result = parsed("a.pptx", documents.slides())
    assert [(block.page, *one) for block, one in zip(result.blocks, said(result), strict=True)] == [
        (1, "heading", "Gates", ("Gates",)),
        (1, "paragraph", "A gate holds the water.", ("Gates",)),
        (1, "note", "Say why.", ("Gates",)),
        (2, "heading", "Figures", ("Figures",)),
        (2, "row", "Year: 2025 | Output: 9 GWh", ("Figures",)),
    ]


def test_workbooks() -> None:
    """A row knows its sheet and its number; hidden sheets stay hidden."""
    result = parsed("a.xlsx", documents.workbook())
    assert [
        (block.page, block.line, result.text[block.start : block.end], block.headings) for block in result.blocks
    ] == [
        (1, 2, "Part: Valve | Count: 12", ("Stock",)),
        (1, 3, "Part: Seal", ("Stock",)),
        (1, 4, "Part: Bolt | Count: 3.5", ("Stock",)),
    ]


def test_mail_with_attachments_of_other_kinds() -> None:
    """The plain body is taken, attachments stand under their names, what cannot be read is named."""
    inner = documents.mail({"deep.txt": b"the deepest text"})
    result = parsed(
        "a.eml", documents.mail({"a.docx": documents.word(), "photo.jpg": b"\xff\xd8\xff\xe0", "fwd.eml": inner})
    )
    assert result.title == "Gate inspection"
    assert result.text.startswith("From: Ada <ada@example.org>\nTo: ops@example.org\nDate: Mon, 02 Nov 2026")
    assert said(result)[1:3] == [
        ("paragraph", "The gate was inspected.", ("Gate inspection",)),
        ("paragraph", "It closes in four seconds.", ("Gate inspection",)),
    ]
    assert ("paragraph", "Each turbine has a gate.", ("Gate inspection", "a.docx", "Handbook", "Turbines")) in said(
        result
    )
    assert said(result)[-1] == (
        "paragraph",
        "the deepest text",
        ("Gate inspection", "fwd.eml", "Gate inspection", "deep.txt"),
    )
    assert result.warnings == (
        "The attachment photo.jpg was left out: The file is a JPEG picture: no text can be read from it.",
    )


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", "Grüße"),
        ("utf-16", "Grüße aus dem Tal"),
        ("utf-32", "Grüße aus dem Tal"),
        ("utf-16-le", "A long enough line of text without a mark"),
        ("utf-16-be", "A long enough line of text without a mark"),
        ("cp1252", "Die Straße führt über die Brücke in das schöne Städtchen, wo Jürgen wohnt. " * 4),
        ("cp1251", "Плотина удерживает воду, затвор регулирует её поток в турбину. " * 4),
        ("shift_jis", "水門は水の流れを調整するための設備です。ダムの上流にあります。" * 4),
    ],
)
def test_encodings_are_told_from_the_bytes(encoding: str, text: str) -> None:
    """By mark, by zero bytes, by statistics: the text is right whatever it is called."""
    assert parsed("a.txt", text.encode(encoding)).text == text


def test_what_no_database_can_hold_is_replaced() -> None:
    """A lone surrogate from JSON becomes U+FFFD: PostgreSQL and UTF-8 refuse it."""
    assert parsed("x.json", '{"a": "x\\ud800y\\u0000z"}').text == "a: x�y�z"


@pytest.mark.parametrize(
    ("name", "content", "declared", "expected"),
    [
        ("paper", documents.pdf([["x"]]), "text/plain", media.PDF),
        ("notes.txt", documents.pdf([["x"]]), None, media.PDF),
        ("page", b"  <!DOCTYPE HTML><p>x</p>", None, media.HTML),
        ("unknown.zzz", b"plain words", "text/markdown; charset=utf-8", media.MARKDOWN),
        ("run", b"#!/bin/sh\necho hi\n", None, media.CODE),
        ("BM.txt", b"BM is how this begins", None, media.PLAIN),
    ],
)
def test_the_kind_is_what_the_content_says(name: str, content: bytes, declared: str | None, expected: str) -> None:
    """First bytes, then the name, then what was declared."""
    assert parsed(name, content, declared).media_type == expected
