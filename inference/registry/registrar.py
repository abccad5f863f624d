"""From a file that somebody offers to a version that can be written down: looked at apart, converted, kept on the disk, under one hash."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from inference.errors import ArtefactRefused, BadRequest, TooLarge, Unavailable
from inference.mlflow.folder import write_folder
from inference.mlflow.tracking import Tracking
from inference.registry.artefacts import Artefacts, verified
from inference.registry.records import NewVersion, Source, Version
from inference.registry.release import release_hash
from inference.runtimes import archive
from inference.runtimes.job import Convert, Examined, Job
from inference.runtimes.sandbox import Sandbox
from inference.signature import Column, Signature

if TYPE_CHECKING:
    from inference.runtimes.peers import Peer

HOW_TO_PIN = "Save it with skops (`skops.io.dump`), or, if you trust whoever made it, name its hash under `registry.pickles`: {digest}"


@dataclass(frozen=True, slots=True)
class Offer:
    """What is to be registered. `digest` is what its owner says the file's SHA-256 is. `signature` is the owner's word, if it is given."""

    runtime: str
    artefact: Path
    filename: str
    reference: Path | None = None
    uri: str | None = None
    digest: str | None = None
    inputs: tuple[Column, ...] | None = None
    example: Any = None
    target: str | None = None
    classes: tuple[Any, ...] | None = None
    convert: Convert = "auto"
    quantise: float | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@final
class Registrar:
    """`pickles`: the SHA-256 of those that may be opened. Blocks: for a thread."""

    def __init__(
        self,
        artefacts: Artefacts,
        sandbox: Sandbox,
        pickles: frozenset[str],
        most_bytes: int,
        tracking: Tracking | None = None,
        peers: "Mapping[str, Peer] | None" = None,
    ) -> None:
        self.artefacts = artefacts
        self._tracking = tracking
        self.most_bytes = most_bytes
        self._sandbox = sandbox
        self._pickles = pickles
        self._peers = peers or {}

    def examined(self, offer: Offer, folder: Path) -> NewVersion:
        """The version, with its files on the disk. `folder` is one of `Artefacts.aside`, with the offered files in it.

        Raises InferenceError.
        """
        size = offer.artefact.stat().st_size
        if size > self.most_bytes:
            raise TooLarge(f"An artefact may have {self.most_bytes:,} bytes", param="artifact")
        if size == 0:
            raise ArtefactRefused("The artefact is empty", param="artifact", code="artefact_invalid")
        digest = _digest(offer.artefact)
        if offer.digest is not None and offer.digest != digest:
            raise BadRequest(
                f"digest: the file that arrived has the SHA-256 {digest}",
                param="metadata.digest",
                code="digest_mismatch",
            )
        try:
            found = self._sandbox.examine(self._job(offer, folder, digest))
        except ArtefactRefused as error:
            if error.code != "pickle_refused":
                raise
            raise ArtefactRefused(
                f"{error.message.rstrip('.')}. {HOW_TO_PIN.format(digest=digest)}", param="artifact", code=error.code
            ) from error
        return self._kept(offer, found, folder)

    @property
    def tracking(self) -> Tracking:
        """MLflow. Raises BadRequest where the configuration names none."""
        if self._tracking is None:
            raise BadRequest(
                "The configuration names no server of MLflow: set `registry.mlflow.tracking_uri`",
                param="metadata.uri",
                code="mlflow_not_configured",
            )
        return self._tracking

    def fetched(self, uri: str, offer: Offer, folder: Path) -> Offer:
        """What MLflow has under `models:/NAME@ALIAS`, as an offer with what is known of it there. Raises InferenceError."""
        found = self.tracking.fetch(uri, folder / "fetched")
        packed = archive.pack(found.folder, folder / "artifact")
        return replace(
            offer,
            runtime="mlflow",
            artefact=packed,
            filename=f"{found.uri.removeprefix('models:/').replace('/', '-')}.tar",
            uri=found.uri,
            lineage={**found.lineage, **offer.lineage},
            description=offer.description or found.description,
            tags={**found.tags, **offer.tags},
        )

    def published(self, version: Version, folder: Path, alias: str | None) -> str:
        """What is served of a version, at MLflow: its number there. Raises InferenceError."""
        made = folder / "publish"
        made.mkdir()
        content = verified(self.artefacts.path(version.digest), version.digest)
        if version.runtime == "mlflow":
            raise BadRequest("A pyfunc of MLflow is there already", code="not_published")
        write_folder(made, version.runtime, content)
        tags = {
            "penstock.model": version.model,
            "penstock.version": str(version.version),
            "penstock.bundle": version.bundle,
            **{name: value for name, value in version.tags.items() if not name.startswith("mlflow.")},
        }
        metrics = {name: float(value) for name, value in version.lineage.get("metrics", {}).items()}
        return self.tracking.publish(version.model, made, alias=alias, tags=tags, metrics=metrics)

    def _job(self, offer: Offer, folder: Path, digest: str) -> Job:
        return Job(
            runtime=offer.runtime,
            path=str(offer.artefact),
            folder=str(folder),
            most_bytes=self.most_bytes,
            pinned=digest in self._pickles,
            convert=offer.convert,
            quantise=offer.quantise,
            inputs=offer.inputs,
            example=offer.example,
            reference=None if offer.reference is None else str(offer.reference),
            target=offer.target,
            classes=offer.classes,
            peer=self._peer(offer),
        )

    def _peer(self, offer: Offer) -> "Peer | None":
        """Raises ArtefactRefused, BadRequest."""
        if offer.runtime != "remote":
            return None
        from inference.runtimes.peers import named, require  # noqa: PLC0415 — httpx comes with it

        try:
            return require(self._peers, named(offer.artefact.read_bytes()).peer)
        except Unavailable as error:
            raise BadRequest(error.message, param="artifact", code=error.code) from None

    def _kept(self, offer: Offer, found: Examined, folder: Path) -> NewVersion:
        served = Path(found.path)
        # The process that says so has opened a stranger's file: what it names is looked at again.
        if served.is_symlink() or not served.is_file() or not served.resolve().is_relative_to(folder.resolve()):
            raise ArtefactRefused("The process that looked at the model named a file that is not its own")
        try:
            digest, size = self.artefacts.keep(served)
            same = served == offer.artefact
            source_digest, source_size = (digest, size) if same else self.artefacts.keep(offer.artefact)
        except OSError as error:
            raise Unavailable(
                f"The folder of artefacts cannot be written: {error.strerror}", code="storage_failed"
            ) from error
        source = Source(found.source_runtime, source_digest, source_size, offer.filename, offer.uri)
        if offer.runtime == "mlflow":
            source = Source("mlflow", source_digest, source_size, offer.filename, offer.uri)
        facts = {**offer.facts, **found.facts}
        signature = Signature(found.signature.inputs, found.signature.outputs)
        return NewVersion(
            runtime=found.runtime,
            digest=digest,
            bytes=size,
            source=source,
            signature=signature,
            facts=facts,
            lineage=offer.lineage,
            profile=found.profile,
            bundle=release_hash(
                runtime=found.runtime,
                digest=digest,
                source=source,
                signature=signature,
                facts=facts,
                lineage=offer.lineage,
                profile=found.profile,
            ),
            description=offer.description,
            tags=dict(offer.tags),
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
