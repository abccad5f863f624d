"""HTML: the main content as paragraphs, lists, tables and code, without navigation and scripts."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lxml import etree

from retrieval.parsing import charset
from retrieval.parsing.errors import InvalidFile, TooDeep
from retrieval.parsing.parsed import Kind
from retrieval.parsing.source import Source
from retrieval.parsing.writer import Writer

_DROPPED: Final = frozenset({
    "head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "nav", "footer", "aside",
    "form", "button", "select", "dialog",
})  # fmt: skip
_DROPPED_ROLES: Final = frozenset({"navigation", "search", "banner", "contentinfo", "complementary", "dialog"})
_BLOCKS: Final[Mapping[str, Kind]] = {
    "p": "paragraph", "div": "paragraph", "section": "paragraph", "article": "paragraph", "main": "paragraph",
    "header": "paragraph", "body": "paragraph", "address": "paragraph", "figure": "paragraph",
    "figcaption": "paragraph", "details": "paragraph", "summary": "paragraph", "center": "paragraph",
    "fieldset": "paragraph", "hr": "paragraph", "li": "list", "ul": "list", "ol": "list", "dl": "list", "dt": "list",
    "dd": "list", "table": "table", "tbody": "table", "thead": "table", "tr": "row", "caption": "table",
    "blockquote": "quote", "pre": "code", "h1": "heading", "h2": "heading", "h3": "heading", "h4": "heading",
    "h5": "heading", "h6": "heading",
}  # fmt: skip
_CELLS: Final = frozenset({"td", "th"})
_DECLARED = re.compile(
    rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""", re.IGNORECASE
)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_DEPTH_OF_LIBRARY = 2048


def parse(source: Source, out: Writer) -> None:
    data = source.read()
    text, out.encoding = charset.decode(data, source.charset or _declared(data))
    parse_text(text, out, max_depth=source.limits.depth)


def parse_text(text: str, out: Writer, *, max_depth: int) -> None:
    """HTML that is decoded already. Raises TooDeep, InvalidFile."""
    tree = _tree(text)
    title = tree.findtext(".//title")
    if title and title.strip():
        out.title = out.title or " ".join(title.split())
    for root in (_main(tree), tree):
        before = len(out.blocks)
        _Walk(out, max_depth).over(root)
        if len(out.blocks) > before:
            return


def _tree(text: str) -> Any:
    parser = etree.HTMLParser(huge_tree=True, no_network=True, remove_comments=True, remove_pis=True, encoding="utf-8")
    parser.feed(_XML_DECLARATION.sub("", text, count=1).encode("utf-8", "replace"))
    try:
        tree = parser.close()
    except etree.XMLSyntaxError:  # nothing in it: comments, blanks
        return etree.Element("html")
    if any("depth" in entry.message.lower() for entry in parser.error_log):
        raise TooDeep(f"The page nests more than {_DEPTH_OF_LIBRARY} elements.")
    if tree is None:
        raise InvalidFile("The page could not be read as HTML.")
    return tree


def _main(tree: Any) -> Any:
    """The element that says it is the content, if there is exactly one."""
    for path in (".//main", ".//*[@role='main']", ".//article"):
        found = tree.findall(path)
        if len(found) == 1:
            return found[0]
    return tree


class _Walk:
    """One pass in document order. Text gathers until a block begins or ends."""

    def __init__(self, out: Writer, max_depth: int) -> None:
        self._out = out
        self._max_depth = max_depth
        self._gathered: list[str] = []
        self._line: int | None = None
        self._preformatted = 0
        self._kinds: list[Kind] = ["paragraph"]

    def over(self, root: Any) -> None:
        for event, element in _events(root, self._max_depth):
            tag = element.tag
            if event == "start":
                self._start(tag, element)
            else:
                self._end(tag, element)
                if element is not root and element.tail:
                    self._text(element.tail, element)
        self._flush()

    def _start(self, tag: str, element: Any) -> None:
        if tag in _BLOCKS:
            self._flush()
            self._kinds.append(_BLOCKS[tag])
        if tag == "pre":
            self._preformatted += 1
        elif tag == "br":
            self._gathered.append("\n")
        elif tag == "img" and element.get("alt"):
            self._text(f" {element.get('alt')} ", element)
        elif tag in _CELLS and self._gathered:
            self._gathered.append(" | ")
        if element.text:
            self._text(element.text, element)

    def _end(self, tag: str, element: Any) -> None:
        if tag in _BLOCKS:
            if _BLOCKS[tag] == "heading":
                self._heading(int(tag[1]))
            else:
                self._flush()
            self._kinds.pop()
            if tag == "pre":
                self._preformatted -= 1
        del element

    def _text(self, text: str, element: Any) -> None:
        if self._line is None and text.strip():
            self._line = element.sourceline
        self._gathered.append(text if self._preformatted else re.sub(r"[ \t\r\n\f]+", " ", text))

    def _heading(self, level: int) -> None:
        text, line = self._take()
        self._out.heading(level, text.rstrip("¶ "), line=line)

    def _flush(self) -> None:
        kind = self._kinds[-1]
        text, line = self._take()
        if self._preformatted:
            text = text.strip("\n")
        else:
            text = "\n".join(" ".join(part.split()) for part in text.split("\n")).strip().strip("|").strip()
        self._out.add(kind, text, line=line, tight=kind in {"row", "list"})

    def _take(self) -> tuple[str, int | None]:
        text, line = "".join(self._gathered), self._line
        self._gathered, self._line = [], None
        return text, line


def _events(root: Any, max_depth: int) -> Iterator[tuple[str, Any]]:
    """Starts and ends in document order, without what is no content. Keeps its own stack: depth costs no recursion."""
    yield "start", root
    stack = [(root, iter(root))]
    while stack:
        element, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            yield "end", element
            continue
        if not isinstance(child.tag, str):
            continue
        if _is_dropped(child):
            child.tag = "dropped"
            child.text = None
            yield "end", child  # its tail is content
            continue
        if len(stack) > max_depth:
            raise TooDeep(f"The page nests more than {max_depth} elements.")
        stack.append((child, iter(child)))
        yield "start", child


def _is_dropped(element: Any) -> bool:
    return (
        element.tag in _DROPPED
        or element.get("role") in _DROPPED_ROLES
        or element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or "headerlink" in (element.get("class") or "").split()
    )


def _declared(data: bytes) -> str | None:
    found = _DECLARED.search(data, 0, 4096)
    return (found[1] or found[2]).decode("ascii", "replace") if found else None
