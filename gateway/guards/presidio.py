"""Microsoft Presidio, where it is installed: names, places and dates that have no form of their own. Whole texts, in a thread."""

from typing import Any, Final, final

from gateway.guards.scanner import Finding, Scanner

NEEDED: Final = "install presidio-analyzer and the language model of spaCy that it uses"
# Those that have a form are found here already, by the same names as everywhere.
_OURS: Final = frozenset({"EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "URL"})


@final
class Presidio:
    """`inner` is asked beside it. Opened with the first text: raises LookupError if it cannot be."""

    def __init__(self, inner: Scanner, language: str, score: float) -> None:
        self._inner = inner
        self._language = language
        self._score = score
        self._analyzer: Any = None

    def find(self, text: str, start: int) -> list[Finding]:
        if self._analyzer is None:
            self._analyzer = _opened()
        found = self._analyzer.analyze(text=text, language=self._language, score_threshold=self._score)
        named = [
            Finding(one.start, one.end, one.entity_type.lower())
            for one in found
            if one.entity_type not in _OURS and one.start >= start
        ]
        return [*self._inner.find(text, start), *named]

    def unsettled(self, text: str, start: int) -> int:  # noqa: ARG002 — the port's name: it reads whole texts
        return start


def _opened() -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine  # noqa: PLC0415 — hundreds of megabytes, for those who have it
    except ImportError as error:
        raise LookupError(f"presidio is not there: {NEEDED}") from error
    try:
        return AnalyzerEngine()
    except (OSError, SystemExit) as error:
        raise LookupError(f"presidio has no language model: {NEEDED}") from error
