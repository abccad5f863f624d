"""`penstock.yaml` read into plain values that remember their lines, so that every later complaint can name one.

YAML 1.2's core rules decide what a plain word means (`no` is a word, not false); anchors and merge keys work, tags do
not. Nothing in a file can make the reader hang, run code or fail with anything but a ConfigError.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from admin.references import UnresolvedError, references, resolve

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000  # after aliases are expanded, which bounds "billion laughs"
MAX_DEPTH = 40

# Kept as written and resolved when a snapshot is loaded: the secret stays out of the database and can be rotated there.
KEPT_UNRESOLVED = frozenset({"api_key", "client_secret", "refresh_token"})

_PREFIX = "tag:yaml.org,2002:"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,2})?")  # always finite


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or worth a warning), where it stands, and what would be right."""

    place: str  # "penstock.yaml:7", "environment PENSTOCK_DATA_DIR", "flag --port"
    path: KeyPath
    message: str
    line: int = 0

    def text(self) -> str:
        return ": ".join(part for part in (self.place, dotted(self.path), self.message) if part)


class ConfigError(Exception):
    """Everything that is wrong with a configuration, in the order of the file."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(problem.text() for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Document:
    """A file as plain values. `references` holds the text as written wherever it refers to the environment."""

    file: str
    data: Mapping[str, object]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    references: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)
    problems: tuple[Problem, ...] = ()

    def line(self, path: KeyPath) -> int:
        """The line of a path, or of the closest thing around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def place(self, path: KeyPath) -> str:
        return f"{self.file}:{self.line(path)}"


def dotted(path: KeyPath) -> str:
    """`models[0].deployments[1].weight`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read(file: Path, environ: Mapping[str, str]) -> Document:
    """The document in `file`. Raises ConfigError where there is nothing to work with at all."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(Problem(str(file), (), f"cannot be read: {error.strerror or error}")) from error
    return parse(content, str(file), environ)


def parse(content: bytes, file: str, environ: Mapping[str, str]) -> Document:
    """The document in `content`. What is wrong in single values is in `problems`; no tree at all raises ConfigError."""
    if len(content) > MAX_BYTES:
        raise ConfigError(Problem(file, (), f"larger than {MAX_BYTES >> 20} MiB, which no configuration needs"))
    root = _compose(content, file)
    if root is None:
        return Document(file, {})
    reader = _Reader(file, environ)
    try:
        data = reader.value(root, ())
    except RecursionError as error:  # a mapping that merges itself
        raise ConfigError(Problem(file, (), f"nested deeper than {MAX_DEPTH} levels")) from error
    if data is None:
        return Document(file, {})
    if not isinstance(data, dict):
        found = "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(Problem(file, (), f"expected keys such as `models:` at the top, found {found}"))
    return Document(file, data, reader.lines, reader.references, tuple(reader.problems))


def _compose(content: bytes, file: str) -> yaml.Node | None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(Problem(f"{file}:{line}", (), "not UTF-8 text")) from error
    try:
        return yaml.BaseLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(Problem(f"{file}:{line}", (), f"not valid YAML: {what}{_hint(text, line)}")) from error
    except RecursionError as error:
        raise ConfigError(Problem(file, (), f"nested deeper than {MAX_DEPTH} levels")) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets chr() of a wild escape through
        raise ConfigError(Problem(file, (), f"not valid YAML: {str(error).splitlines()[0]}")) from error


def _hint(text: str, line: int) -> str:
    """`{key: ${VAR}}` is the one trap that our own syntax adds to YAML's: braces end a plain word inside braces."""
    lines = text.splitlines()
    return '; inside { } or [ ] a reference needs quotes: "${VAR}"' if "${" in lines[min(line, len(lines)) - 1] else ""


class _Reader:
    """Turns YAML's nodes into plain values and collects lines, references and problems on the way."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._values = 0
        self.lines: dict[KeyPath, int] = {}
        self.references: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        self._count(node, path)
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        match node:
            case yaml.MappingNode(tag=tag) if tag == f"{_PREFIX}map":
                return self._mapping(node, path)
            case yaml.SequenceNode(tag=tag) if tag == f"{_PREFIX}seq":
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode(tag=tag) if tag == f"{_PREFIX}str":
                return self._scalar(node, path)
            case _:
                tag = node.tag.replace(_PREFIX, "!!")
                self._problem(path, f"the tag {tag} is not supported; write the value plainly", line)
                return None

    def _count(self, node: yaml.Node, path: KeyPath) -> None:
        self._values += 1
        place = f"{self._file}:{node.start_mark.line + 1}"
        if self._values > MAX_VALUES:
            raise ConfigError(Problem(place, path[:4], f"more than {MAX_VALUES} values; do aliases repeat each other?"))
        if len(path) > MAX_DEPTH:
            raise ConfigError(Problem(place, path[:4], f"nested deeper than {MAX_DEPTH} levels"))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: list[yaml.MappingNode] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_PREFIX}str":
                self._problem(path, "a key must be a single word", line)
            elif key.value == "<<" and key.style is None:
                merged += self._merged(value, path)
            elif key.value in own:
                first = self.lines[(*path, key.value)]
                self._problem((*path, key.value), f'duplicate key "{key.value}", first seen on line {first}', line)
            else:
                self.lines[(*path, key.value)] = line
                own[key.value] = self.value(value, (*path, key.value))
        return {**self._inherited(merged, own, path), **own}

    def _merged(self, value: yaml.Node, path: KeyPath) -> Iterator[yaml.MappingNode]:
        """What `<<:` brings in: one mapping or a list of them (https://yaml.org/type/merge.html)."""
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if isinstance(source, yaml.MappingNode):
                self._count(source, path)
                yield source
            else:
                line = value.start_mark.line + 1
                self._problem(path, "<<: takes a mapping, usually an alias such as *defaults", line)

    def _inherited(
        self, sources: list[yaml.MappingNode], own: Mapping[str, object], path: KeyPath
    ) -> dict[str, object]:
        """Keys of merged mappings that are not written here; the first mapping that has a key wins."""
        inherited: dict[str, object] = {}
        for source in sources:
            wanted = [
                (key, value)
                for key, value in source.value
                if isinstance(key, yaml.ScalarNode) and key.value not in own and key.value not in inherited
            ]
            inherited |= self._mapping(yaml.MappingNode(source.tag, wanted, source.start_mark, source.end_mark), path)
        return inherited

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        text: str = node.value
        plain = node.style is None
        if "$" not in text:
            return _plain(text) if plain else text
        line = node.start_mark.line + 1
        try:
            if references(text):
                self.references[path] = text
                if path[-1:] and path[-1] in KEPT_UNRESOLVED:
                    return text
            value = resolve(text, self._environ)
        except UnresolvedError as problem:
            self._problem(path, str(problem), line)
            return None
        # `redis_url: ${REDIS:-}` means what `redis_url:` means. Numbers stay text: the field decides what it wants.
        return None if plain and not value else value

    def _problem(self, path: KeyPath, message: str, line: int) -> None:
        self.problems.append(Problem(f"{self._file}:{line}", path, message, line))


def _plain(text: str) -> object:
    """What an unquoted word means (YAML 1.2, 10.3.2). Octal, hexadecimal, infinity and giants stay text."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
