"""The section `registry`: where classic models lie, what may be read of them, and which MLflow they come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from gateway.settings import PositiveSeconds, Section


class MlflowSection(Section):
    """A server of MLflow: where `models:/…` is looked up, and what is published goes. `python`: an interpreter that has MLflow.

    `webhook_secret`: of its webhooks to `/webhooks/mlflow`, which there is only with one.
    """

    tracking_uri: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    python: Path | None = None
    token: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    webhook_secret: Annotated[SecretStr, Field(min_length=8)] | None = None

    def environ(self) -> Mapping[str, str]:
        """As MLflow's client reads its credentials."""
        said = {
            "MLFLOW_TRACKING_TOKEN": self.token and self.token.get_secret_value(),
            "MLFLOW_TRACKING_USERNAME": self.username,
            "MLFLOW_TRACKING_PASSWORD": self.password and self.password.get_secret_value(),
        }
        return {name: value for name, value in said.items() if value}


class RegistrySection(Section):
    """Where the artefacts of classic models lie, how large one may be, and what a process that reads one may take.

    `pickles`: SHA-256 of the pickles that may be loaded, which is to run their code. No other is.
    """

    directory: Path | None = None
    max_mb: float = Field(default=512, gt=0, le=1 << 20)
    pickles: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(default=(), max_length=1000)
    memory_mb: float = Field(default=4096, ge=512, le=1 << 20)
    timeout_s: PositiveSeconds = 120
    mlflow: MlflowSection = MlflowSection()
