"""Guards as they are configured: in `penstock.yaml` under `guards`, over REST and in the database."""

from typing import Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from gateway.guards.kinds import ENTITIES, NAMED, SECRETS
from gateway.guards.policy import Action, Kind, OnError, Stage
from gateway.settings import Name, Section

MAX_STORED: Final = 16_384
MAX_SCHEMA_BYTES: Final = 256 * 1024
MAX_WINDOW: Final = 8192
GuardName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$")]
Category = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Secret = Annotated[str, Field(min_length=1, max_length=MAX_STORED)]
HeaderName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
HeaderValue = Annotated[str, Field(max_length=MAX_STORED, pattern=r"^[^\r\n\x00]*$")]
Sentence = Annotated[str, Field(min_length=1, max_length=2000)]
Share = Annotated[float, Field(ge=0, le=1)]


def _known(kinds: tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in kinds:
            raise ValueError(f"known here: {', '.join(kinds)}")
        return name

    return AfterValidator(check)


def _pattern(text: str) -> str:
    from gateway.guards import words  # noqa: PLC0415 — RE2 is loaded for who has patterns

    words.compiled(text)
    return text


def _bounded(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    if schema is not None and len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
        raise ValueError(f"must be at most {MAX_SCHEMA_BYTES} bytes of JSON")
    return schema


Entity = Annotated[str, Field(max_length=64), _known((*ENTITIES, *NAMED))]
SecretKind = Annotated[str, Field(max_length=64), _known(SECRETS)]
Regex = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_pattern)]


class PatternSpec(Section):
    """A pattern in RE2's syntax, and a name, which is what is told of a match. A bare text is a pattern without a name."""

    name: Category = "pattern"
    pattern: Regex


def _named(given: Any) -> Any:
    return {"pattern": given} if isinstance(given, str) else given


NamedPattern = Annotated[PatternSpec, BeforeValidator(_named)]


# Which options a kind has, and which stages and actions; the first are what it does if nothing is said.
_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "pii": frozenset({"entities", "engine", "language", "score", "nlp_model"}),
    "secrets": frozenset({"secrets"}),
    "patterns": frozenset({"deny", "allow", "words", "window"}),
    "topics": frozenset({"allow_topics", "deny_topics", "threshold", "embedding_model"}),
    "injection": frozenset({"threshold", "url", "secret", "headers", "model"}),
    "max_cost": frozenset({"max_usd"}),
    "json_schema": frozenset({"json_schema", "repair"}),
    "http": frozenset({"url", "secret", "headers", "window"}),
    "moderation": frozenset({"model", "threshold", "categories", "window"}),
    "llama_guard": frozenset({"model", "prompt", "categories", "window"}),
    "classifier": frozenset({"model", "labels", "threshold", "window"}),
}
_STAGES: Final[dict[str, tuple[Stage, ...]]] = {
    "pii": ("before", "parallel", "after", "stream"),
    "secrets": ("before", "parallel", "after", "stream"),
    "patterns": ("before", "parallel", "after", "stream"),
    "topics": ("before", "parallel", "after", "stream"),
    "injection": ("before", "parallel"),
    "max_cost": ("before",),
    "json_schema": ("after",),
    "http": ("before", "parallel", "after", "stream"),
    "moderation": ("before", "parallel", "after", "stream"),
    "llama_guard": ("before", "parallel", "after", "stream"),
    "classifier": ("before", "parallel", "after", "stream"),
}
_REWRITES: Final = frozenset({"pii", "secrets", "patterns", "http"})
_NEEDED: Final = {
    "max_cost": "max_usd",
    "http": "url",
    "llama_guard": "model",
    "classifier": "model",
    "moderation": "model",
}


def _listed(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


class GuardSpec(Section):
    """One guard. It is for every call with `default: true`, else for those that `keys`, `teams` and `models` name, all that is named
    must hold; a model (`guards:`) and a key (`metadata.guards`) may name it, too. A lower `order` comes first.
    """

    name: GuardName
    kind: Kind
    stage: Annotated[tuple[Stage, ...], BeforeValidator(_listed), Field(min_length=1, max_length=4)] = ("before",)
    action: Action = "block"
    on_error: OnError = "fail_closed"
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 5
    dry_run: bool = False
    enabled: bool = True
    order: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    default: bool = False
    keys: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    teams: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    models: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()

    entities: Annotated[tuple[Entity, ...] | None, Field(min_length=1)] = None
    engine: Literal["auto", "local", "presidio"] = "auto"
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = "en"
    score: Share = 0.5
    nlp_model: Annotated[str, Field(max_length=100, pattern=r"^[a-z]{2,3}_[a-z0-9_]+$")] | None = None
    secrets: Annotated[tuple[SecretKind, ...] | None, Field(min_length=1)] = None
    deny: Annotated[tuple[NamedPattern, ...], Field(max_length=500)] = ()
    allow: Annotated[tuple[Regex, ...], Field(max_length=500)] = ()
    words: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=2000)] = ()
    window: Annotated[int, Field(ge=16, le=MAX_WINDOW)] = 512
    allow_topics: Annotated[tuple[Sentence, ...], Field(max_length=200)] = ()
    deny_topics: Annotated[tuple[Sentence, ...], Field(max_length=200)] = ()
    embedding_model: Name | None = None
    threshold: Share | None = None
    max_usd: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    json_schema: Annotated[dict[str, JsonValue] | None, AfterValidator(_bounded)] = None
    repair: Annotated[int, Field(ge=0, le=5)] = 0
    url: Annotated[str, Field(max_length=2000, pattern=r"^https?://[^\s/@]+(/\S*)?$")] | None = None
    secret: Secret | None = Field(default=None, repr=False)
    headers: dict[HeaderName, HeaderValue] = Field(default={}, repr=False)
    model: Name | None = None
    prompt: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    categories: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=200)] = ()
    labels: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=200)] = ()

    @model_validator(mode="after")
    def _what_the_kind_has(self) -> Self:
        every = frozenset().union(*_OPTIONS.values())
        for name in sorted(every - _OPTIONS[self.kind]):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is not for guards of the kind {self.kind}")
        needed = _NEEDED.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"a guard of the kind {self.kind} needs {needed}")
        if self.kind == "patterns" and not (self.deny or self.allow or self.words):
            raise ValueError("a guard of the kind patterns needs deny, allow or words")
        if self.kind == "topics" and not (self.allow_topics or self.deny_topics):
            raise ValueError("a guard of the kind topics needs allow_topics or deny_topics")
        return self

    @model_validator(mode="after")
    def _stages_and_actions(self) -> Self:
        for stage in self.stage:
            if stage not in _STAGES[self.kind]:
                raise ValueError(
                    f"a guard of the kind {self.kind} has the stages {', '.join(_STAGES[self.kind])}, not {stage}"
                )
        if len(set(self.stage)) < len(self.stage):
            raise ValueError("a stage stands twice")
        if self.action in {"redact", "mask_restore"} and self.kind not in _REWRITES:
            raise ValueError(f"a guard of the kind {self.kind} changes no text: its action is block or flag")
        if self.action in {"redact", "mask_restore"} and "parallel" in self.stage:
            raise ValueError("what runs beside the call comes too late to change it: block or flag")
        if self.action == "mask_restore" and self.stage != ("before",):
            raise ValueError("mask_restore is for the stage before: what it masks there comes back in the answer")
        if self.action == "mask_restore" and self.kind == "http":
            raise ValueError("a guard of the kind http says itself what a text becomes: its action is redact")
        if self.allow and ("stream" in self.stage or self.action not in {"block", "flag"}):
            raise ValueError("allow is for whole texts, and for the actions block and flag")
        named = [name for name in self.entities or () if name in NAMED]
        if named and self.engine == "local":
            raise ValueError(f"only presidio finds {', '.join(named)}: use the engine auto or presidio")
        if (named or self.engine == "presidio") and "stream" in self.stage:
            raise ValueError(
                "presidio reads whole texts: use the stage after, or the engine local without its entities"
            )
        return self
