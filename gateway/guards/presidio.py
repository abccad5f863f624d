"""Microsoft Presidio, where it is installed with a language model of spaCy: names, places and dates that have no form of their own.

It reads whole texts, in a thread, and nothing is fetched for it: what is not installed is not there.
"""

import importlib.util
import threading
from collections.abc import Sequence
from typing import Any, Final, final

from gateway.guards.kinds import NAMED, NAMED_USUALLY
from gateway.guards.scanner import Finding
from gateway.guards.windows import TooLongError, parts

NEEDED: Final = "pip install presidio-analyzer, and a language model of spaCy, as en_core_web_lg"
MOST_PART: Final = 50_000  # characters that it reads at a time
OVERLAP: Final = 500
MOST_TEXT: Final = 1_000_000
_SIZES: Final = ("trf", "lg", "md", "sm")
_KINDS: Final = ("web", "news")


def model_of(language: str) -> str | None:
    """The largest language model that is installed."""
    names = (f"{language}_core_{kind}_{size}" for size in _SIZES for kind in _KINDS)
    return next((name for name in names if importlib.util.find_spec(name) is not None), None)


def usable(language: str, model: str | None) -> bool:
    """Whether it can be asked: it and a language model are there."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        return False
    return model_of(language) is not None if model is None else importlib.util.find_spec(model) is not None


@final
class Presidio:
    """`entities` are names of `NAMED`; None: the usual ones."""

    def __init__(self, language: str, score: float, model: str | None, entities: Sequence[str] | None) -> None:
        self._language = language
        self._score = score
        self._model = model
        wanted = NAMED_USUALLY if entities is None else tuple(name for name in entities if name in NAMED)
        self._entities = [name.upper() for name in wanted]
        self._lock = threading.Lock()
        self._analyzer: Any = None

    @property
    def opened(self) -> bool:
        return self._analyzer is not None

    def open(self) -> None:
        """Takes seconds, once. Raises LookupError if it cannot be opened."""
        with self._lock:
            if self._analyzer is None:
                self._analyzer = _opened(self._language, self._model)

    def find(self, text: str, start: int) -> list[Finding]:
        """Raises LookupError, TooLongError."""
        if len(text) > MOST_TEXT:
            raise TooLongError(f"it reads {MOST_TEXT} characters at most")
        self.open()
        found: list[Finding] = []
        for number, part in enumerate(parts(text, MOST_PART, OVERLAP)):
            at = number * (MOST_PART - OVERLAP)
            named = self._analyzer.analyze(
                text=part, language=self._language, score_threshold=self._score, entities=self._entities
            )
            found += [
                Finding(at + one.start, at + one.end, one.entity_type.lower())
                for one in named
                if at + one.start >= start
            ]
        return found

    def unsettled(self, text: str, start: int) -> int:  # noqa: ARG002 — the port's name: it reads whole texts
        return start


def _opened(language: str, model: str | None) -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine  # noqa: PLC0415 — hundreds of megabytes, for those who have it
        from presidio_analyzer.nlp_engine import NlpEngineProvider  # noqa: PLC0415 — as above
    except ImportError as error:
        raise LookupError(f"presidio is not there: {NEEDED}") from error
    name = model or model_of(language)
    if name is None or importlib.util.find_spec(name) is None:  # it would try to fetch one
        raise LookupError(f"presidio has no language model for '{language}': {NEEDED}")
    models = [{"lang_code": language, "model_name": name}]
    try:
        engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
        return AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
    except (OSError, SystemExit) as error:
        raise LookupError(f"presidio cannot open {name}") from error
