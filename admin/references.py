"""References to the environment inside configuration values: `${VAR}`, `${VAR:-default}`, and `$$` for a plain `$`."""

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"\$\$|\$\{([^}]*)(\})?")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class UnresolvedError(ValueError):
    """A reference that cannot be replaced; the message names the variable and the way out."""


def resolve(text: str, environ: Mapping[str, str]) -> str:
    """`text` with every reference replaced.

    As in a shell, `:-` also stands in for a variable that is set but empty. Raises UnresolvedError.
    """

    def replacement(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, default = _parse(match)
        value = environ.get(name)
        if default is not None:
            return value or default
        if value is None:
            raise UnresolvedError(f"environment variable {name} is not set; set it or give a default: ${{{name}:-…}}")
        return value

    return _TOKEN.sub(replacement, text)


def references(text: str) -> tuple[str, ...]:
    """The names of the variables that `text` refers to. Raises UnresolvedError where one is malformed."""
    return tuple(_parse(match)[0] for match in _TOKEN.finditer(text) if match[0] != "$$")


def _parse(match: re.Match[str]) -> tuple[str, str | None]:
    reference = _REFERENCE.fullmatch(match[1]) if match[2] else None
    if reference is None:
        found = match[0][:40]
        raise UnresolvedError(
            f"a reference is written ${{NAME}} or ${{NAME:-default}}, found {found!r}; a plain $ is $$"
        )
    return reference[1], reference[2]
