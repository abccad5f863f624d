"""What `models[].router` may say."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.routers.policy import Router

ModelName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f]+$")]


class RouterSpec(BaseModel):
    """A classic model reads the question: the model that `labels` has for its label answers, `otherwise` where it is not sure."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    classifier: ModelName
    labels: Annotated[dict[str, ModelName], Field(min_length=1, max_length=256)]
    otherwise: ModelName
    threshold: float = Field(default=0.5, ge=0, le=1)
    timeout_s: float = Field(default=0.05, gt=0, le=60)

    def compile(self) -> Router:
        return Router(self.classifier, self.labels, self.otherwise, self.threshold, self.timeout_s)
