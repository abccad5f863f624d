"""Guards that need nobody: what they look for, and what becomes of what they find."""

import importlib.util
from collections.abc import Sequence
from typing import Final, final

from gateway.guards.hidden import Decoding
from gateway.guards.masking import Vault, mark
from gateway.guards.pii import Pii
from gateway.guards.policy import BROKEN, Action, Guard
from gateway.guards.report import Outcome, Report, refused
from gateway.guards.scanner import Scanner
from gateway.guards.secrets import Secrets
from gateway.guards.texts import Text
from gateway.guards.window import Piece, Replace, Window
from gateway.guards.words import Patterns, compiled, of_word

LOCAL: Final = frozenset({"pii", "secrets", "patterns"})
_MEANT: Final[dict[Action, Outcome]] = {"block": "block", "redact": "redact", "mask_restore": "mask", "flag": "flag"}


@final
class Local:
    """One such guard. `scanner` is None where it has nothing to look for; `heavy`: it is for a thread."""

    def __init__(self, guard: Guard) -> None:
        if guard.options.get(BROKEN):
            raise ValueError("it cannot be used as it is stored; the log says why")
        self.guard = guard
        self.heavy = False
        self._allow = [compiled(pattern) for pattern in guard.options.get("allow", ())]
        self._runs = guard.kind != "patterns"
        self._scanner: Scanner | None = None
        self._whole: Scanner | None = None
        match guard.kind:
            case "pii":
                plain = Pii(guard.options["entities"]) if "entities" in guard.options else Pii()
                self._scanner = self._whole = Decoding(plain)
                engine = guard.options.get("engine", "auto")
                if engine == "presidio" or (
                    engine == "auto" and importlib.util.find_spec("presidio_analyzer") is not None
                ):
                    from gateway.guards.presidio import Presidio  # noqa: PLC0415 — for those who have it

                    self._whole = Presidio(
                        self._scanner, guard.options.get("language", "en"), guard.options.get("score", 0.5)
                    )
                    self.heavy = True
            case "secrets":
                self._scanner = self._whole = Decoding(
                    Secrets(guard.options["secrets"]) if "secrets" in guard.options else Secrets()
                )
            case _:
                patterns = _patterns(guard)
                if patterns:
                    self._scanner = self._whole = Patterns(patterns, guard.options.get("window", 512))

    def piece(self, report: Report, vault: Vault, *, whole: bool = False) -> Piece | None:
        """What one text goes through. It raises Refused at what may not pass."""
        scanner = self._whole if whole else self._scanner
        if scanner is None:
            return None
        replace = replacing(self.guard, report, vault)
        if self.guard.dry_run or self.guard.action == "flag":
            return Listening(Window(scanner, replace, runs=self._runs))
        return Window(scanner, replace, runs=self._runs)

    def read(self, texts: Sequence[Text], report: Report, vault: Vault) -> list[str]:
        """What becomes of texts that are there whole. Raises Refused."""
        report.note(self.guard.name, "pass")
        made = []
        for text in texts:
            piece = self.piece(report, vault, whole=True)
            made.append(text.value if piece is None else piece.feed(text.value) + piece.finish())
        if self._allow:
            spoken = [text.value for text in texts if text.role in {"user", "assistant"}]
            if not all(any(pattern.search(one) for pattern in self._allow) for one in spoken):
                tell(self.guard, report, ("not_allowed",))
        return made


@final
class Listening:
    """A text that goes on at once, whatever is found in it."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Window) -> None:
        self._inner = inner

    def feed(self, text: str) -> str:
        self._inner.feed(text)
        return text

    def finish(self) -> str:
        self._inner.finish()
        return ""


def replacing(guard: Guard, report: Report, vault: Vault) -> Replace:
    """What stands in the place of what a guard finds."""

    def replace(value: str, category: str) -> str:
        if guard.dry_run or guard.action in {"flag", "block"}:
            tell(guard, report, (category,))
            return value
        if guard.action == "mask_restore":
            report.note(guard.name, "mask", (category,))
            return vault.mask(value, category)
        report.note(guard.name, "redact", (category,))
        return mark(category)

    return replace


def tell(guard: Guard, report: Report, categories: Sequence[str], why: str | None = None) -> None:
    """Notes what a guard without a text of its own to put there has found. Raises Refused where it blocks."""
    if guard.dry_run:
        report.note(guard.name, _MEANT[guard.action], categories, trial=True)
        return
    report.note(guard.name, "flag" if guard.action == "flag" else "block", categories)
    if guard.action != "flag":
        raise refused(guard.name, categories, why)


def _patterns(guard: Guard) -> list[tuple[str, str]]:
    named = [(one.get("name", "pattern"), one["pattern"]) for one in guard.options.get("deny", ())]
    return [*named, *(("word", of_word(word)) for word in guard.options.get("words", ()))]
