"""The account of an import: what became of each field, and how LiteLLM writes its values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from admin import litellm_fields as fields
from admin.config_file import Document, KeyPath, dotted
from admin.litellm_fields import Status

DOLLAR = "\ue000"  # LiteLLM knows no ${…}: a $ there is a character, and is kept from our own reader
ENVIRON = "os.environ/"
MOST = 1_000_000_000_000

_YAML_11 = {"yes": True, "on": True, "no": False, "off": False}
# Reported field by field; everything else that has fields of its own is one subject.
_SECTIONS = frozenset(
    {
        "model_list", "litellm_params", "model_info", "router_settings", "litellm_settings", "general_settings", "cache_params",
        "credential_list", "credential_values", "model_group_alias", "cost_discount_config", "cost_margin_config",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one field. `line` counts from 1 in the file that was read."""

    line: int
    path: str
    status: Status
    message: str


class Account:
    """Each field has one finding, the latest. The methods that take a value write it into a part of the result if it will do."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._outer = {path[:-1] for path in document.lines if path}
        self._findings: dict[KeyPath, Finding] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(sorted(self._findings.values(), key=lambda finding: (finding.line, finding.path)))

    def status(self, path: KeyPath) -> Status | None:
        found = self._findings.get(path)
        return found.status if found is not None else None

    def known(self, path: KeyPath, key: str, value: Any) -> None:
        """A field that one of the tables speaks of."""
        if key in {"callbacks", "success_callback", "failure_callback", "service_callback"}:
            names = value if isinstance(value, list) else [value]
            if all(name == "prometheus" for name in names):
                self.note(path, "converted", "figures are always on /metrics")
                return
        if key in fields.INHERENT and (fields.INHERENT[key][0] is None or fields.INHERENT[key][0] == truth(value)):
            self.note(path, "exact", fields.INHERENT[key][1])
        elif key in fields.MANUAL:
            self.note(path, "manual", fields.MANUAL[key])
        else:
            self.note(path, "unsupported", fields.UNSUPPORTED.get(key, "unknown to this importer"))

    def rest(self) -> None:
        """Every field that no rule has spoken of."""
        for path in self._document.lines:
            if path and not isinstance(path[-1], int) and not self._spoken_of(path) and not self._is_section(path):
                if path[-1] in _SECTIONS:
                    self.note(path, "exact", "nothing in it")
                else:
                    self.known(path, str(path[-1]), None)

    def _spoken_of(self, path: KeyPath) -> bool:
        return any(path[:length] in self._findings for length in range(1, len(path) + 1))

    def _is_section(self, path: KeyPath) -> bool:
        return path[-1] in _SECTIONS and path in self._outer

    def text(self, path: KeyPath, into: dict[str, Any], key: str, value: Any) -> None:
        if not isinstance(value, str | int):
            self.note(path, "manual", "expected text")
            return
        into[key] = str(reference(value))
        if isinstance(value, str) and value.startswith(ENVIRON):
            self.note(path, "converted", f"{key}: ${{{value.removeprefix(ENVIRON)}}}")
        else:
            self.note(path, "exact", f"{key}; a literal secret, which is better kept in the environment")

    def number(
        self,
        path: KeyPath,
        into: dict[str, Any],
        key: str,
        value: Any,
        *,
        least: float = 0,
        most: float = MOST,
        whole: bool = False,
        status: Status = "exact",
    ) -> bool:
        number = numeric(value)
        if number is None or not least <= number <= most:
            self.note(
                path,
                "manual",
                f"expected a number from {least:g} to {most:g}" if most < MOST else f"expected at least {least:g}",
            )
            return False
        into[key] = int(number) if whole or number == int(number) else number
        self.note(path, status, key)
        return True

    def note(self, path: KeyPath, status: Status, message: str) -> None:
        line = self._document.line(path)
        self._findings[path] = Finding(line, dotted(path).replace(DOLLAR, "$"), status, message.replace(DOLLAR, "$"))


def reference(value: Any) -> Any:
    """`os.environ/NAME` as `${NAME}`, every other text as it is."""
    if isinstance(value, str) and value.startswith(ENVIRON):
        return f"${{{value.removeprefix(ENVIRON).strip()}}}"
    return value


def truth(value: Any) -> Any:
    return _YAML_11.get(value.lower(), value) if isinstance(value, str) else value


def numeric(value: Any) -> float | int | None:
    """Also numbers in quotes and PyYAML's 1e-6, which YAML 1.2 reads alike."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def escaped(value: Any) -> Any:
    """Characters $ of the file that was read, which ours would take for references."""
    if isinstance(value, Mapping):
        return {escaped(key): escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escaped(inner) for inner in value]
    return value.replace(DOLLAR, "$$") if isinstance(value, str) else value
