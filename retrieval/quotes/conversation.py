"""What a conversation asks, and what in it can be quoted: documents handed over, found by tools, or pasted into messages."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from retrieval.chunking import sentences
from retrieval.quotes.passage import Passage

_TAG: Final = re.compile(
    r"<(document|documents|context|passage|source|doc|file|result|article)\b([^>]*)>(.*?)</\1\s*>",
    re.DOTALL | re.IGNORECASE,
)
_NAMED: Final = re.compile(
    r"""\b(?:title|name|source|filename|path|url|id|index)\s*=\s*["']?([^"'>]+)["']?""", re.IGNORECASE
)
_NUMBERED: Final = re.compile(r"""\b(?:id|index|number)\s*=\s*["']?(\d{1,4})["'\s]*(?=\s|$)""", re.IGNORECASE)
_LABEL: Final = re.compile(  # what the prompts of frameworks put above their context
    r"^[ \t#*]*(?:context(?: information)?(?: is below)?|documents?|sources?|passages?|search results|background|information)"
    r"[ \t*]*:[ \t*]*\n?",
    re.IGNORECASE | re.MULTILINE,
)
_QUESTION: Final = re.compile(
    r"^[ \t#*]*(?:user )?(?:question|query|q|frage|pregunta|task)[ \t*]*:[ \t*]*(.+?)\s*\Z",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_ANSWER: Final = re.compile(r"\n[ \t#*]*(?:helpful |final )?answer[ \t*]*:?[ \t*]*\Z", re.IGNORECASE)
_PARAGRAPH: Final = re.compile(r"\S(?:[^\n]|\n(?![ \t]*\n))*")
_RULE: Final = re.compile(r"^[ \t]*[-=*_]{3,}[ \t]*$", re.MULTILINE)
_INSTRUCTION: Final = re.compile(
    r"\s*(?:you are|you're|you have|you will|you must|your task|answer|use the|using the|given the|based on|if you|if the|do not|don't|"
    r"please|always|never|respond|reply|say that|cite|be concise|keep the|only use|as an ai)\b",
    re.IGNORECASE,
)
_MOST_TO_READ: Final = 200_000  # characters in which a sentence that asks is looked for
_LONGEST_QUESTION: Final = 600  # characters: a message that is longer is, or holds, a document


class Asked(NamedTuple):
    question: str
    passages: tuple[Passage, ...]


def read(messages: Sequence[dict[str, Any]], documents: Sequence[Any] = ()) -> Asked:
    """The last message of the user asks. What else people or tools said can be quoted; what models and instructions said cannot."""
    passages = list(_given(documents))
    question = ""
    last = max((place for place, message in enumerate(messages) if message.get("role") == "user"), default=-1)
    for place, message in enumerate(messages):
        role, text = str(message.get("role")), _text(message.get("content"))
        if place == last:
            question, shown = _split(text)
            passages += _passages(shown, "the question")
        elif role == "user":
            passages += _passages(text, f"message {place + 1}")
        elif role in {"tool", "function"}:
            passages += _passages(text, str(message.get("name") or f"tool result {place + 1}"))
        elif role in {"system", "developer"}:
            passages += _passages(_without_instructions(text), "the instructions")
    return Asked(question, tuple(passage for passage in passages if passage.text.strip()))


def _given(documents: Sequence[Any]) -> Iterator[Passage]:
    """The `documents` of vLLM, Cohere and Hugging Face: texts, or objects with a text and a title."""
    for place, document in enumerate(documents, start=1):
        if isinstance(document, str):
            yield Passage(document, f"document {place}")
        elif isinstance(document, dict):
            data = document.get("data")
            inner = data if isinstance(data, dict) else document
            name = _first(inner, ("title", "name", "filename", "url", "id")) or f"document {place}"
            text = _first(inner, ("text", "content", "contents", "snippet", "body"))
            yield Passage(text, name, document_id=_first(document, ("id",)) or None)


def _first(fields: dict[str, Any], names: Sequence[str]) -> str:
    return next((fields[name] for name in names if isinstance(fields.get(name), str)), "")


def _text(content: Any) -> str:
    """A message's text, whatever form it has; pictures and sounds have none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict)]
    return "\n\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _split(text: str) -> tuple[str, str]:
    """A message into what it asks and what it shows."""
    text = _ANSWER.sub("", text)
    labelled = _QUESTION.search(text)
    if labelled is not None:
        return labelled[1].strip(), text[: labelled.start()]
    tagged = _TAG.search(text)
    if tagged is not None:
        return " ".join(_TAG.sub(" ", text).split())[-_LONGEST_QUESTION:], text
    begin, end = _asking(text)
    if end:
        return text[begin:end].strip(), text[:begin] + " " * (end - begin) + text[end:]
    if len(text) <= _LONGEST_QUESTION:
        return text.strip(), ""
    questions = re.findall(r"[^.!?\n]*\?", text)
    return (questions[-1].strip() if questions else text[:_LONGEST_QUESTION]), text


def _asking(text: str) -> tuple[int, int]:
    """Where a question stands beside what it is about: the last or first paragraph, or the last sentence. `(0, 0)`: nowhere."""
    paragraphs = [match.span() for match in _PARAGRAPH.finditer(text)]
    if len(paragraphs) > 1:
        last, first = paragraphs[-1], paragraphs[0]
        for begin, end in (last, first):
            if end - begin <= _LONGEST_QUESTION and text[begin:end].rstrip().endswith("?"):
                return begin, end
        if len(text) > _LONGEST_QUESTION >= last[1] - last[0]:  # an order, such as "Summarise this"
            return last
    said = list(sentences.spans(text)) if len(text) <= _MOST_TO_READ else []
    if len(said) > 1 and text[said[-1][0] : said[-1][1]].endswith("?"):
        return said[-1]
    return 0, 0


def _passages(text: str, source: str) -> Iterator[Passage]:
    """What is tagged, by its tags; else what stands below a label; else all of it."""
    tagged = [match for match in _TAG.finditer(text) if match[3].strip()]
    if tagged:
        for number, match in enumerate(tagged, start=1):
            named = _NAMED.search(match[2])
            inside = list(_passages(match[3], source)) if _TAG.search(match[3]) else []
            if inside:
                yield from inside
            else:
                name = named[1].strip() if named is not None else f"{match[1].lower()} {number}"
                its = _NUMBERED.search(match[2])
                yield Passage(match[3], name, match.start(3), number=None if its is None else int(its[1]))
        return
    label = _LABEL.search(text)
    start = label.end() if label is not None else 0
    shown = _RULE.sub(lambda rule: "\n" * min(2, len(rule[0])) + " " * max(0, len(rule[0]) - 2), text[start:])
    yield Passage(shown, source, start)


def _without_instructions(text: str) -> str:
    """A system message's documents: what is tagged or labelled, else its paragraphs that give no orders."""
    if _TAG.search(text):
        return text
    label = _LABEL.search(text)
    if label is not None:
        return text[label.end() :]
    return "\n\n".join(part for part in re.split(r"\n[ \t]*\n", text) if not _INSTRUCTION.match(part))
