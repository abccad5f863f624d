"""What `models[].embedding` may say."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway import catalog


class EmbeddingSpec(BaseModel):
    """How an embedding model is told questions from passages: what stands before each of them, to the blank at its end, or the
    `input_type` that its provider has for each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_prefix: str = Field(default="", max_length=2000)
    passage_prefix: str = Field(default="", max_length=2000)
    query_input_type: str | None = Field(default=None, min_length=1, max_length=64)
    passage_input_type: str | None = Field(default=None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        typed, prefixed = self.query_input_type is not None, bool(self.query_prefix or self.passage_prefix)
        if typed != (self.passage_input_type is not None):
            raise ValueError("query_input_type and passage_input_type go together")
        if typed and prefixed:
            raise ValueError("a model has prefixes or input types: with both it would be told twice")
        if not typed and not prefixed:
            raise ValueError("name query_prefix or passage_prefix, or both input types")
        return self

    def compile(self) -> catalog.Roles:
        return catalog.Roles(self.query_prefix, self.passage_prefix, self.query_input_type, self.passage_input_type)
