"""The section `registry`: where classic models lie, what may be read of them, and which MLflow they come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr

from gateway.settings import PositiveSeconds, Section

if TYPE_CHECKING:
    from inference.runtimes.peers import Peer


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


class PeerSection(Section):
    """A server whose models are served here as well: Triton, KServe, MLServer (`oip`), or TorchServe by its own REST."""

    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    protocol: Literal["oip", "torchserve"] = "oip"
    api_key: SecretStr | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 5.0


PeerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


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
    peers: Mapping[PeerName, PeerSection] = Field(default={}, max_length=100)

    def elsewhere(self) -> "Mapping[str, Peer]":
        if not self.peers:
            return {}
        from inference.runtimes.peers import Peer  # noqa: PLC0415 — httpx comes with it

        return {
            name: Peer(
                name,
                each.url.rstrip("/"),
                each.protocol,
                None if each.api_key is None else each.api_key.get_secret_value(),
                each.timeout_s,
            )
            for name, each in self.peers.items()
        }
