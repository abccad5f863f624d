"""Objects of gzipped lines of JSON in S3, or in whatever speaks its API (MinIO, R2, GCS): PUT with Signature Version 4.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import gzip
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, final
from urllib.parse import quote, urlsplit

import msgspec

from admin.telemetry.account import Account
from admin.telemetry.sinks.posting import Poster

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SAFE: Final = "/-_.~"


class Credentials(msgspec.Struct, frozen=True):
    """Of whoever may write into the bucket."""

    access_key: str
    secret_key: str
    session_token: str | None = None


def signed(
    credentials: Credentials, region: str, method: str, url: str, headers: Mapping[str, str], body: bytes, at: datetime
) -> dict[str, str]:
    """The headers with those that sign them. `url` has no query; its path is percent-encoded."""
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    parts = urlsplit(url)
    every = {name.lower(): value for name, value in headers.items()}
    every |= {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    if credentials.session_token is not None:
        every["x-amz-security-token"] = credentials.session_token
    names = sorted(every)
    lines = "".join(f"{name}:{' '.join(every[name].split())}\n" for name in names)
    canonical = f"{method}\n{parts.path or '/'}\n\n{lines}\n{';'.join(names)}\n{digest}"
    scope = f"{day}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    proof = hmac.new(key, f"{ALGORITHM}\n{stamp}\n{scope}\n{hashed}".encode(), hashlib.sha256).hexdigest()
    told = f"Credential={credentials.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={proof}"
    return every | {"authorization": f"{ALGORITHM} {told}"}


@final
class S3:
    """`PREFIX/2026/11/28/18/<first request's id>-<hash>.jsonl.gz`: a batch that comes twice is one object."""

    name = "s3"

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str,
        region: str,
        endpoint: str | None,
        credentials: Credentials,
        timeout_s: float,
        content: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """With an `endpoint` the bucket is a part of the path, as others than Amazon want it."""
        self._base = f"{endpoint.rstrip('/')}/{bucket}" if endpoint else f"https://{bucket}.s3.{region}.amazonaws.com"
        self._prefix = prefix
        self._region = region
        self._credentials = credentials
        self._content = content
        self._now = now
        self._poster = Poster(timeout_s, {})

    def deliver(self, batch: Sequence[Account]) -> None:
        kept = [account for account in batch if account.recorded]
        if not kept:
            return
        lines = b"".join(msgspec.json.encode(account.facts(content=self._content)) + b"\n" for account in kept)
        body = gzip.compress(lines, mtime=0)
        hour = datetime.fromtimestamp(kept[0].at, UTC).strftime("%Y/%m/%d/%H")
        name = f"{self._prefix}{hour}/{kept[0].id}-{hashlib.sha256(body).hexdigest()[:8]}.jsonl.gz"
        url = f"{self._base}/{quote(name, safe=SAFE)}"
        headers = {"content-type": "application/gzip"}
        self._poster.send(
            "PUT", url, body, signed(self._credentials, self._region, "PUT", url, headers, body, self._now())
        )

    def tick(self) -> None: ...

    def close(self) -> None:
        self._poster.close()
