"""Real manuals and real questions about them: pages as Debian ships them, less the words that a question is made of.

A question is never made by a retriever, nor from the text that is to be found:

- `faq`: a question of Python's FAQs, as people asked it. Its answer is a document of its own; the question is no part of any document.
- `purpose`: what a manual page says it is for in its one-line summary (NAME). The page is a document without that line.
- `docstring`: the summary that CPython's own code has of a function. The answer is the library reference, which others wrote; what the
  reference repeats word for word is left out.
"""

import builtins
import functools
import gzip
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lxml import etree, html

Kind = Literal["faq", "purpose", "docstring"]
MOST_REPEATED = 0.75  # of a summary's words in one sentence of the reference
_DASH = re.compile(r"\s+[-\u2013\u2014]+\s+")  # between names and purpose
_LEAST_WORDS = 4
_SECTIONS = (1, 2, 3, 4, 5, 7, 8)


@dataclass(frozen=True, slots=True)
class Page:
    """One document. `id` is also its path below the corpus; `text` is HTML."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """`pages` are the ids of documents that answer; `answer` is the text that does, where it is known more closely than by page."""

    id: str
    kind: Kind
    text: str
    pages: tuple[str, ...]
    answer: str = ""


Found = tuple[list[Page], list[Question]]


def python_faq(root: Path) -> Found:
    """Each question and its answer; a page per answer."""
    pages: list[Page] = []
    questions: list[Question] = []
    for file in sorted((root / "usr/share/doc/python3.11/html/faq").glob("*.html")):
        tree = _tree(file.read_text(encoding="utf-8"))
        for section in tree.iterfind(".//section"):
            heading = section.find("h3")
            if heading is None:
                heading = section.find("h2")
            text = "" if heading is None else _text(heading)
            if not text.endswith("?") or section.find("section") is not None:
                continue
            section.remove(heading)
            id_ = f"python-faq/{len(pages):03}.html"  # a name would tell the question
            pages.append(Page(id_, _document("Python FAQ", section)))
            questions.append(Question(id_, "faq", text, (id_,), _text(section)))
    return pages, questions


def python_manual(root: Path) -> Found:
    """The reference of the standard library and of the language; questions are docstrings of what it documents."""
    folder = root / "usr/share/doc/python3.11/html"
    pages = []
    described: dict[str, tuple[str, str]] = {}
    for file in sorted(folder.rglob("*.html")):
        place = file.relative_to(folder)
        if place.parts[0] in {"faq", "_static", "_images", "genindex"} or place.stem.startswith(
            ("genindex", "search", "py-modindex")
        ):
            continue
        text = file.read_text(encoding="utf-8")
        pages.append(Page(f"python/{place}", text))
        if place.parts[0] == "library":
            for entry in _tree(text).iterfind(".//dl[@class]"):
                for name in entry.xpath("./dt[@id]/@id"):
                    body = entry.find("dd")
                    described.setdefault(name, (f"python/{place}", "" if body is None else _text(body)))
    questions = []
    for name, (page, reference) in sorted(described.items()):
        summary = _summary(name)
        if summary is not None and not _is_repeated(summary, reference):
            questions.append(Question(f"docstring/{name}", "docstring", summary, (page,), reference))
    return pages, questions


def manual_pages(root: Path) -> Found:
    """Sections 1 to 8, rendered by mandoc; a page that only refers to another one is not counted twice."""
    found: dict[str, tuple[Page, str]] = {}
    folder = root / "usr/share/man"
    for section in _SECTIONS:
        for file in sorted((folder / f"man{section}").glob("*.gz")):
            source = gzip.decompress(file.read_bytes())
            if source.startswith(b".so "):
                continue
            id_ = f"man/{file.stem}.html"
            rendered = _rendered(root / "usr/bin/mandoc", source)
            if rendered is not None:
                found[id_] = _without_purpose(id_, rendered, ".//section[@class='Sh']", "NAME")
    return _with_purposes(found)


def git_manual(root: Path) -> Found:
    """Git's commands and guides."""
    found = {}
    for file in sorted((root / "usr/share/doc/git-doc").rglob("*.html")):
        id_ = f"git/{file.relative_to(root / 'usr/share/doc/git-doc')}"
        tree = _tree(file.read_text(encoding="utf-8"))
        found[id_] = _without_purpose(id_, tree, ".//div[@id='header']/div[@class='sectionbody']", None)
    return _with_purposes(found)


def postgresql_manual(root: Path) -> Found:
    """The manual of PostgreSQL; questions are the purposes of its commands."""
    found = {}
    for file in sorted((root / "usr/share/doc/postgresql-doc-15/html").glob("*.html")):
        id_ = f"postgresql/{file.name}"
        tree = _tree(file.read_text(encoding="utf-8"))
        found[id_] = _without_purpose(id_, tree, ".//div[@class='refnamediv']", None)
    return _with_purposes(found)


def _without_purpose(id_: str, tree: Any, where: str, heading: str | None) -> tuple[Page, str]:
    """A page less its one-line summary, and what that says."""
    for place in tree.iterfind(where):
        if heading is not None and (place.find("h1") is None or _text(place.find("h1")) != heading):
            continue
        names, *purpose = _DASH.split(_text(place), maxsplit=1)
        if purpose:
            del names
            place.getparent().remove(place)
            return Page(id_, _document(id_, tree)), purpose[0].strip().rstrip(".")
    return Page(id_, _document(id_, tree)), ""


def _with_purposes(found: dict[str, tuple[Page, str]]) -> Found:
    """A question for each purpose that says enough; pages with the same one answer it all."""
    by_purpose: dict[str, list[str]] = {}
    for id_, (_, purpose) in found.items():
        if len(purpose.split()) >= _LEAST_WORDS:
            by_purpose.setdefault(purpose, []).append(id_)
    questions = [Question(f"purpose/{ids[0]}", "purpose", text, tuple(ids)) for text, ids in by_purpose.items()]
    return [page for page, _ in found.values()], questions


def _rendered(mandoc: Path, source: bytes) -> Any | None:
    done = subprocess.run([mandoc, "-T", "html", "-O", "fragment"], input=source, capture_output=True, check=False)
    text = done.stdout.decode("utf-8", "replace")
    return _tree(text) if text.strip() else None


@functools.cache
def _module(name: str) -> Any | None:
    if name not in sys.stdlib_module_names or name in {"antigravity", "this", "idlelib"}:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:  # of another system
        return None


def _summary(name: str) -> str | None:
    """The first sentence of the docstring of `module.name` or of a builtin, without the name itself."""
    head, _, rest = name.partition(".")
    found: Any = _module(head) if rest else getattr(builtins, name, None)
    for part in rest.split(".") if rest else ():
        found = inspect.getattr_static(found, part, None) if inspect.isclass(found) else getattr(found, part, None)
    text = getattr(found, "__doc__", None)
    if not isinstance(text, str) or not (callable(found) or isinstance(found, staticmethod | classmethod)):
        return None
    paragraph = " ".join(re.split(r"\n\s*\n", inspect.cleandoc(text), maxsplit=1)[0].split())
    paragraph = re.sub(r"^[\w.]+\([^)]*\)\s*(?:->\s*[\w\s|\[\],]+?\s*)?(?:--?\s*|(?=[A-Z]))", "", paragraph)
    sentence = re.split(r"(?<=[a-z)\]'`])\.(?:\s|$)", paragraph, maxsplit=1)[0].strip()
    enough = len(sentence.split()) > _LEAST_WORDS and "->" not in sentence and "=" not in sentence
    return sentence if enough and name.rpartition(".")[2].lower() not in sentence.lower() else None


def _is_repeated(summary: str, reference: str) -> bool:
    """Whether one sentence of the reference has nearly all words of the summary."""
    asked = set(re.findall(r"\w+", summary.lower()))
    return any(
        len(asked & set(re.findall(r"\w+", sentence.lower()))) > MOST_REPEATED * len(asked)
        for sentence in re.split(r"(?<=[.:])\s", reference)
    )


def _tree(text: str) -> Any:
    return html.document_fromstring(text.encode(), parser=html.HTMLParser(encoding="utf-8", huge_tree=True))


def _text(element: Any) -> str:
    return " ".join("".join(element.itertext()).replace("¶", " ").split())


def _document(title: str, element: Any) -> str:
    """An element as a page. The title says nothing that the question does not ask for by name."""
    body = etree.tostring(element, encoding="unicode", method="html", with_tail=False)
    return (
        body
        if element.tag == "html"
        else f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{body}</body></html>"
    )


SOURCES: Sequence[Any] = (python_faq, python_manual, manual_pages, git_manual, postgresql_manual)


def every(root: Path) -> Iterator[Found]:
    for source in SOURCES:
        yield source(root)
