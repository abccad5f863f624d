"""Signs requests to AWS (Signature Version 4) with botocore, which is there with the extra `litellm` and loaded with the first of them."""

from collections.abc import Mapping
from typing import Any, final

from gateway import errors
from gateway.catalog import Deployment
from gateway.native.bedrock import option
from gateway.units.door import Lines

SERVICE = "bedrock"


@final
class Signer:
    """One per process; called in threads. Credentials are found once for a deployment, and renew themselves."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Deployment, Any]] = {}

    def __call__(
        self, deployment: Deployment, region: str, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Lines:
        """The lines that the signature adds. Raises UpstreamError where there are no credentials."""
        try:
            from botocore.auth import SigV4Auth  # noqa: PLC0415 — a third of a second, for who signs
            from botocore.awsrequest import AWSRequest  # noqa: PLC0415 — as above
            from botocore.exceptions import BotoCoreError  # noqa: PLC0415 — as above
        except ImportError:
            raise errors.UpstreamError(
                "Signing requests to AWS needs botocore: pip install 'penstock[litellm]'; a Bedrock API key as api_key needs nothing",
                code="upstream_credentials",
            ) from None
        request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
        try:
            SigV4Auth(self._credentials(deployment), SERVICE, region).add_auth(request)
        except (BotoCoreError, OSError) as error:
            raise errors.UpstreamError(
                f"The request to deployment {deployment.id!r} could not be signed: {error}", code="upstream_credentials"
            ) from None
        return tuple((name, str(value)) for name, value in request.headers.items() if name.lower() not in headers)

    def keep(self, alive: Mapping[str, Deployment]) -> None:
        """Forgets those of deployments that are gone or changed."""
        self._known = {id_: known for id_, known in self._known.items() if alive.get(id_) is known[0]}

    def _credentials(self, deployment: Deployment) -> Any:
        known = self._known.get(deployment.id)
        if known is not None and known[0] is deployment:
            return known[1].get_frozen_credentials()
        from botocore.credentials import Credentials  # noqa: PLC0415 — as above
        from botocore.session import Session  # noqa: PLC0415

        key, secret = option(deployment, "aws-access-key-id"), option(deployment, "aws-secret-access-key")
        if key is not None and secret is not None:
            found: Any = Credentials(key, secret, option(deployment, "aws-session-token"))
        else:
            found = Session(profile=option(deployment, "aws-profile-name")).get_credentials()
        if found is None:
            raise errors.UpstreamError(
                f"Deployment {deployment.id!r} has no AWS credentials: set x-litellm-aws-access-key-id and "
                "x-litellm-aws-secret-access-key, an api_key, or AWS's own variables",
                code="upstream_credentials",
            )
        self._known[deployment.id] = (deployment, found)
        return found.get_frozen_credentials()
