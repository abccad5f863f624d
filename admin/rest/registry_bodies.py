"""Bodies and answers of `/admin/v1/registry`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, JsonValue, model_validator

from admin.registry_history import Event, Happened
from admin.rest.wire import at, moment
from gateway.settings import Section
from inference.registry.names import DIGEST, NAME, Runtime, require_alias
from inference.registry.records import Alias as AliasRecord
from inference.registry.records import Approval, Gate, Model, Version
from inference.signature import Column, DataType

MAX_TAGS = 100

Word = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Tags = Annotated[dict[Word, Annotated[str, Field(max_length=2000)]], Field(max_length=MAX_TAGS)]
Description = Annotated[str, Field(max_length=10_000)]
Label = str | int | bool


def _alias(name: str) -> str:
    try:
        return require_alias(name)
    except Exception as error:
        raise ValueError(str(error).partition(": ")[2]) from error


AliasName = Annotated[str, AfterValidator(_alias)]


class GateBody(Section):
    """How many people have to approve a version before the alias is moved to it, and in which roles."""

    approvals: Annotated[int, Field(ge=1, le=20)] = 1
    roles: Annotated[tuple[Literal["platform_admin", "org_admin", "team_admin"], ...], Field(min_length=1)] = (
        "platform_admin",
    )


class ModelBody(Section):
    """A model is made by its first version; it only has to be made before that to have gates from the start."""

    name: Annotated[str, Field(pattern=NAME)]
    description: Description | None = None
    tags: Tags | None = None
    gates: Annotated[dict[AliasName, GateBody], Field(max_length=20)] | None = None


class ModelChangeBody(Section):
    """What is left out stays. `tags` and `gates` are replaced whole. `name`: its new one; nothing answers to the old one."""

    name: Annotated[str, Field(pattern=NAME)] | None = None
    description: Description | None = None
    tags: Tags | None = None
    gates: Annotated[dict[AliasName, GateBody], Field(max_length=20)] | None = None


class VersionChangeBody(Section):
    """What is left out stays. A version that is archived is kept, and not served."""

    description: Description | None = None
    tags: Tags | None = None
    archived: bool | None = None


class AliasBody(Section):
    version: Annotated[int, Field(ge=1, le=2_147_483_647)]


class PublishBody(Section):
    """The alias that is set at MLflow with it."""

    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")] | None = None


class ApprovalBody(Section):
    alias: AliasName = "champion"
    comment: Annotated[str | None, Field(max_length=2000)] = None


class ColumnBody(Section):
    """As `inference.signature.Column`."""

    name: Word
    datatype: DataType
    shape: Annotated[tuple[Annotated[int, Field(ge=-1, le=1_000_000)], ...], Field(min_length=1, max_length=8)] = (-1,)
    required: bool = True
    nullable: bool = False
    categories: Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)] | None = None
    minimum: float | None = None
    maximum: float | None = None

    def column(self) -> Column:
        return Column(**self.model_dump())


class SignatureBody(Section):
    """Only what goes in: what comes out is learnt by running the model."""

    inputs: Annotated[tuple[ColumnBody, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        names = [each.name for each in self.inputs]
        if len(set(names)) != len(names):
            raise ValueError("two inputs have the same name")
        return self


class CodeBody(Section):
    commit: Word | None = None
    dirty: bool | None = None
    repository: Word | None = None


class DataBody(Section):
    revision: Word | None = None
    source: Word | None = None
    rows: Annotated[int, Field(ge=0)] | None = None


class EnvironmentBody(Section):
    lock: Word | None = None
    python: Word | None = None
    packages: Annotated[dict[Word, Word], Field(max_length=2000)] | None = None


class FeatureViewBody(Section):
    """Of a view that is known here a prediction gets the features whose names are the model's; `inputs` has the others' by the model's.

    `missing`: what of one that is not there, or too old; without it the view's word counts.
    """

    name: Word
    version: Word | None = None
    missing: Literal["error", "null", "default"] | None = None
    inputs: Annotated[dict[Word, Word], Field(max_length=2000)] | None = None


class LineageBody(Section):
    """Where a version comes from, as far as its owner says."""

    code: CodeBody | None = None
    data: DataBody | None = None
    parameters: Annotated[dict[Word, JsonValue], Field(max_length=1000)] | None = None
    environment: EnvironmentBody | None = None
    seed: int | None = None
    hardware: Word | None = None
    metrics: Annotated[dict[Word, float], Field(max_length=1000)] | None = None
    run: Word | None = None
    feature_view: FeatureViewBody | None = None
    preprocessing: dict[Word, JsonValue] | None = None


class PriceBody(Section):
    """US dollars of a call and of each of its rows."""

    request: Annotated[float, Field(ge=0, le=1000)] = 0.0
    row: Annotated[float, Field(ge=0, le=1000)] = 0.0


class QuantiseBody(Section):
    """Eight bits for weights, if it loses no more than that and is faster here."""

    max_loss: Annotated[float, Field(ge=0, le=1)] = 0.01


class VersionBody(Section):
    """The field `metadata` of the form. `uri` is `models:/NAME@ALIAS` at MLflow, instead of a file.

    `input_example`: rows that the model takes, as objects or as lists of numbers.
    `target`: the column of labels in the file `reference`. `classes`: labels behind the class numbers of XGBoost and LightGBM.
    `digest`: the SHA-256 that the artefact should have. `alias` is set with the registration, or nothing is registered.
    """

    runtime: Runtime = "mlflow"
    uri: Annotated[str, Field(max_length=300)] | None = None
    alias: AliasName | None = None
    digest: Annotated[str, Field(pattern=DIGEST)] | None = None
    description: Description | None = None
    tags: Tags = Field(default_factory=dict)
    signature: SignatureBody | None = None
    input_example: list[JsonValue] | dict[str, JsonValue] | None = None
    target: Word | None = None
    classes: Annotated[tuple[Label, ...], Field(min_length=2, max_length=100_000)] | None = None
    convert: Literal["auto", "never", "require"] = "auto"
    quantise: QuantiseBody | None = None
    price: PriceBody | None = None
    lineage: LineageBody = LineageBody()


class AliasView(BaseModel):
    name: str
    version: int
    set_by: str
    set_at: datetime


class ModelView(BaseModel):
    """`aliases`: where each leads."""

    name: str
    description: str | None
    tags: dict[str, str]
    gates: dict[str, GateBody]
    aliases: dict[str, int]
    latest_version: int | None
    created_at: datetime
    updated_at: datetime


class HistoryView(BaseModel):
    """`name` is what the model was called then, `version` the one that it is about: of a rollout the one that stays. `before` and
    `after` hold the fields that differ, as in the audit, whose entry `id` names."""

    id: str
    at: datetime
    event: Event
    actor: str
    name: str
    version: int | None
    alias: str | None
    rollout: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class SourceView(BaseModel):
    runtime: str
    digest: str
    bytes: int
    filename: str
    uri: str | None


class ColumnView(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    required: bool
    nullable: bool
    categories: list[str] | None
    minimum: float | None
    maximum: float | None


class SignatureView(BaseModel):
    inputs: list[ColumnView]
    outputs: list[ColumnView]


class VersionView(BaseModel):
    """`runtime` and `digest` are of what is served, `source` of what was given; they differ where a model was converted.

    `bundle`: the hash over model, preprocessing, feature view, signature and reference profile.
    """

    model: str
    version: int
    aliases: list[str]
    runtime: str
    digest: str
    bytes: int
    source: SourceView
    signature: SignatureView
    facts: dict[str, JsonValue]
    lineage: dict[str, JsonValue]
    has_profile: bool
    bundle: str
    description: str | None
    tags: dict[str, str]
    created_by: str
    created_at: datetime
    archived_at: datetime | None


class PublishedView(BaseModel):
    """Where a version is at MLflow."""

    name: str
    version: str
    uri: str


class ApprovalView(BaseModel):
    id: str
    alias: str
    version: int
    actor: str
    role: str
    comment: str | None
    at: datetime


class ProfileView(BaseModel):
    """What the columns of the training data looked like."""

    rows: int
    columns: dict[str, dict[str, JsonValue]]
    target: dict[str, JsonValue] | None = None


class Gone(BaseModel):
    """What was deleted."""

    name: str
    version: int | None = None
    alias: str | None = None
    deleted: Annotated[bool, Field(description="Always true.")] = True


def gates(body: Mapping[str, GateBody] | None) -> dict[str, Gate] | None:
    return None if body is None else {name: Gate(each.approvals, each.roles) for name, each in body.items()}


def model_view(model: Model, aliases: Mapping[str, int], latest: int | None) -> ModelView:
    return ModelView(
        name=model.name,
        description=model.description,
        tags=dict(model.tags),
        gates={
            name: GateBody.model_validate({"approvals": g.approvals, "roles": g.roles})
            for name, g in model.gates.items()
        },
        aliases=dict(aliases),
        latest_version=latest,
        created_at=at(model.created_at),
        updated_at=at(model.updated_at),
    )


def version_view(version: Version, aliases: list[str]) -> VersionView:
    def columns(some: tuple[Column, ...]) -> list[ColumnView]:
        return [
            ColumnView(
                name=each.name,
                datatype=each.datatype,
                shape=list(each.shape),
                required=each.required,
                nullable=each.nullable,
                categories=None if each.categories is None else list(each.categories),
                minimum=each.minimum,
                maximum=each.maximum,
            )
            for each in some
        ]

    source = version.source
    return VersionView(
        model=version.model,
        version=version.version,
        aliases=aliases,
        runtime=version.runtime,
        digest=version.digest,
        bytes=version.bytes,
        source=SourceView(
            runtime=source.runtime, digest=source.digest, bytes=source.bytes, filename=source.filename, uri=source.uri
        ),
        signature=SignatureView(inputs=columns(version.signature.inputs), outputs=columns(version.signature.outputs)),
        facts=dict(version.facts),
        lineage=dict(version.lineage),
        has_profile=version.profiled,
        bundle=version.bundle,
        description=version.description,
        tags=dict(version.tags),
        created_by=version.created_by,
        created_at=at(version.created_at),
        archived_at=moment(version.archived_at),
    )


def alias_view(alias: AliasRecord) -> AliasView:
    return AliasView(name=alias.alias, version=alias.version, set_by=alias.set_by, set_at=at(alias.set_at))


def approval_view(approval: Approval) -> ApprovalView:
    return ApprovalView(
        id=approval.id,
        alias=approval.alias,
        version=approval.version,
        actor=approval.actor,
        role=approval.role,
        comment=approval.comment,
        at=at(approval.at),
    )


def lineage(body: LineageBody) -> dict[str, Any]:
    made: dict[str, Any] = body.model_dump(mode="json", exclude_none=True)
    return made


def history_view(happened: Happened) -> HistoryView:
    entry = happened.entry
    return HistoryView(
        id=entry.id,
        at=at(entry.at),
        event=happened.event,
        actor=entry.actor,
        name=happened.name,
        version=happened.version,
        alias=happened.alias,
        rollout=happened.rollout,
        before=None if entry.before is None else dict(entry.before),
        after=None if entry.after is None else dict(entry.after),
    )
