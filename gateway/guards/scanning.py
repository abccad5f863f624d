"""Guards that need nobody: what they look for, and what becomes of what they find."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, final

from gateway.errors import GatewayError
from gateway.guards.hidden import Decoding
from gateway.guards.kinds import NAMED
from gateway.guards.masking import Vault, mark
from gateway.guards.pii import Pii
from gateway.guards.policy import BROKEN, Action, Guard
from gateway.guards.report import Outcome, Report, refused
from gateway.guards.scanner import Scanner
from gateway.guards.secrets import Secrets
from gateway.guards.texts import Text
from gateway.guards.window import Piece, Replace, Window
from gateway.guards.words import Patterns, compiled, of_word

if TYPE_CHECKING:  # for those who have it
    from gateway.guards.presidio import Presidio

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
        self._presidio: Presidio | None = None
        match guard.kind:
            case "pii":
                entities = guard.options.get("entities")
                plain = Pii() if entities is None else Pii([name for name in entities if name not in NAMED])
                self._scanner = Decoding(plain)
                self._presidio = _presidio(guard)
                self.heavy = self._presidio is not None
            case "secrets":
                self._scanner = Decoding(Secrets(guard.options["secrets"]) if "secrets" in guard.options else Secrets())
            case _:
                patterns = _patterns(guard)
                if patterns:
                    self._scanner = Patterns(patterns, guard.options.get("window", 512))

    @property
    def opened(self) -> bool:
        return self._presidio is None or self._presidio.opened

    def open(self) -> None:
        """What takes seconds before the first text. Raises LookupError."""
        if self._presidio is not None:
            self._presidio.open()

    def piece(self, report: Report, vault: Vault) -> Piece | None:
        """What one text goes through. It raises Refused at what may not pass."""
        if self._scanner is None:
            return None
        reader = None if self._runs else self._scanner
        window = Window(self._scanner, replacing(self.guard, report, vault), runs=self._runs, reader=reader)
        return Listening(window) if self._only_listens else window

    def whole(self, report: Report, vault: Vault) -> "Holding":
        """The same of a text that is read once it is there whole."""
        assert self._scanner is not None
        replace = replacing(self.guard, report, vault)
        window = Window(self._scanner, replace, runs=self._runs, reader=self._presidio)
        return Holding(window, listens=self._only_listens)

    @property
    def _only_listens(self) -> bool:
        return self.guard.dry_run or self.guard.action == "flag"

    def read(self, texts: Sequence[Text], report: Report, vault: Vault) -> list[str]:
        """What becomes of texts that are there whole. Raises Refused."""
        report.note(self.guard.name, "pass")
        made = []
        for text in texts:
            piece = self.whole(report, vault) if self.heavy else self.piece(report, vault)
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


@final
class Holding:
    """A text that waits until it is whole, and is then read once. `failed` hears what goes wrong, and may raise: else it passes."""

    __slots__ = ("_listens", "_parts", "_window", "failed")

    def __init__(self, window: Window, *, listens: bool) -> None:
        self._window = window
        self._listens = listens
        self._parts: list[str] = []
        self.failed: Callable[[Exception], None] | None = None

    def feed(self, text: str) -> str:
        self._parts.append(text)
        return ""

    def finish(self) -> str:
        text, self._parts = "".join(self._parts), []
        try:
            made = self._window.only(text)
        except GatewayError:
            raise
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(error)
            return text
        return text if self._listens else made


def _presidio(guard: Guard) -> "Presidio | None":
    """None where it is not to be asked: those who name entities that only it finds need it."""
    entities, engine = guard.options.get("entities"), guard.options.get("engine", "auto")
    named = entities is not None and any(name in NAMED for name in entities)
    if engine == "local" or (entities is not None and not named):
        return None
    from gateway.guards.presidio import Presidio, usable  # noqa: PLC0415 — for those who have it

    language, model = guard.options.get("language", "en"), guard.options.get("nlp_model")
    if not (named or engine == "presidio" or usable(language, model)):
        return None
    return Presidio(language, guard.options.get("score", 0.5), model, entities)


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
