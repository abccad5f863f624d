"""Bodies and answers of `/admin/v1/features`."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, JsonValue, model_validator

from admin.rest.registry_bodies import Description, Tags, Word
from admin.rest.wire import at
from gateway.settings import Section
from inference.features.view import Feast, FeatureView, Missing, Native, Source, require_columns
from inference.features.writing import values
from inference.registry.names import NAME
from inference.signature import Column, DataType

Age = Annotated[float, Field(gt=0, le=3_153_600_000)]
Size = Annotated[int, Field(ge=1, le=16_384)]


class EntityBody(Section):
    """A column that says whom a row is about."""

    name: Word
    datatype: DataType = "INT64"


class FeatureBody(Section):
    """`size`: of a vector; without one it is a single value. `default` is what a prediction gets where the policy says `default`."""

    name: Word
    datatype: DataType
    size: Size | None = None
    nullable: bool = True
    default: JsonValue = None

    def column(self) -> Column:
        shape = (-1,) if self.size is None else (-1, self.size)
        return Column(self.name, self.datatype, shape, nullable=self.nullable)


class SourceBody(Section):
    """`native`: in this database; `push` is the name of a push source. `feast`: at a `server` that `features.feast` names, as `view`."""

    kind: Literal["native", "feast"] = "native"
    push: Word | None = None
    server: Word | None = None
    view: Word | None = None

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if self.kind == "feast" and self.server is None:
            raise ValueError("a view at Feast names its server")
        if self.kind == "feast" and self.push is not None:
            raise ValueError("a view at Feast is pushed to there")
        if self.kind == "native" and (self.server is not None or self.view is not None):
            raise ValueError("server and view are for those at Feast")
        return self

    def source(self) -> Source:
        if self.kind == "feast":
            return Feast(self.server or "", self.view)
        return Native(self.push)


class FeatureViewBody(Section):
    """`ttl_s`: how old a value may be; `missing`: what a prediction gets instead of one that is not there or older."""

    name: Annotated[str, Field(pattern=NAME)]
    entities: Annotated[tuple[EntityBody, ...], Field(min_length=1, max_length=16)]
    features: Annotated[tuple[FeatureBody, ...], Field(min_length=1, max_length=2000)]
    ttl_s: Age | None = None
    missing: Missing = "error"
    source: SourceBody = SourceBody()
    description: Description | None = None
    tags: Tags = Field(default={})

    def view(self, revision: int, actor: str) -> FeatureView:
        """Raises BadRequest."""
        now = time.time()
        entities = tuple(Column(each.name, each.datatype) for each in self.entities)
        features = tuple(each.column() for each in self.features)
        require_columns(entities, features)
        return FeatureView(
            name=self.name,
            number=revision,
            entities=entities,
            features=features,
            source=self.source.source(),
            ttl_s=self.ttl_s,
            missing=self.missing,
            defaults=defaults(self.features),
            version=1,
            revision=revision,
            description=self.description,
            tags=dict(self.tags),
            created_by=actor,
            created_at=now,
            updated_at=now,
        )


class FeatureViewChangeBody(Section):
    """What is left out stays. `features` are more of them, with those that are there or without; none can be taken away or retyped."""

    features: Annotated[tuple[FeatureBody, ...], Field(min_length=1, max_length=2000)] | None = None
    ttl_s: Age | None = None
    missing: Missing | None = None
    source: SourceBody | None = None
    description: Description | None = None
    tags: Tags | None = None


class FeatureColumnView(BaseModel):
    """`size`: of a vector."""

    name: str
    datatype: DataType
    size: int | None
    nullable: bool
    default: JsonValue


class EntityColumnView(BaseModel):
    name: str
    datatype: DataType


class FeatureSourceView(BaseModel):
    kind: Literal["native", "feast"]
    push: str | None
    server: str | None
    view: str | None


class FeatureViewView(BaseModel):
    """`version` counts how often features came to it."""

    name: str
    version: int
    entities: list[EntityColumnView]
    features: list[FeatureColumnView]
    ttl_s: float | None
    missing: Missing
    source: FeatureSourceView
    description: str | None
    tags: dict[str, str]
    created_by: str
    created_at: datetime
    updated_at: datetime


class RowsView(BaseModel):
    """How many rows were written."""

    view: str
    rows: int


def defaults(features: tuple[FeatureBody, ...]) -> dict[str, Any]:
    """Each in its feature's type. Raises BadRequest."""
    made = {}
    for each in features:
        if each.default is not None:
            [made[each.name]] = values(each.column(), [each.default], lambda name, _: f"features.{name}.default")
    return made


def feature_view_view(view: FeatureView) -> FeatureViewView:
    return FeatureViewView(
        name=view.name,
        version=view.version,
        entities=[EntityColumnView(name=each.name, datatype=each.datatype) for each in view.entities],
        features=[_feature(each, view.defaults) for each in view.features],
        ttl_s=view.ttl_s,
        missing=view.missing,
        source=_source(view.source),
        description=view.description,
        tags=dict(view.tags),
        created_by=view.created_by,
        created_at=at(view.created_at),
        updated_at=at(view.updated_at),
    )


def _feature(column: Column, known: Mapping[str, Any]) -> FeatureColumnView:
    return FeatureColumnView(
        name=column.name,
        datatype=column.datatype,
        size=column.shape[1] if len(column.shape) > 1 else None,
        nullable=column.nullable,
        default=known.get(column.name),
    )


def _source(source: Source) -> FeatureSourceView:
    if isinstance(source, Feast):
        return FeatureSourceView(kind="feast", push=None, server=source.server, view=source.view)
    return FeatureSourceView(kind="native", push=source.push, server=None, view=None)
