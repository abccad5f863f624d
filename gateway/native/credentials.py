"""Where clients of other APIs show their key, put where keys are looked for. Nothing else of what they show is left to be passed on."""

import re
from collections.abc import Mapping
from typing import Final

from gateway.authentication import is_bearer

_OTHERS: Final = (b"x-api-key", b"api-key", b"x-goog-api-key")
_AWS: Final = (b"x-amz-date", b"x-amz-security-token", b"x-amz-content-sha256")
_SIGNED: Final = re.compile(rb"AWS4-HMAC-SHA256 Credential=([^/, ]+)/")


def keyed(headers: Mapping[bytes, bytes], in_query: str | None = None) -> Mapping[bytes, bytes]:
    """The headers, whose credentials are one `authorization`, if there are any. `in_query`: a key that came there.

    AWS's SDKs sign: the id of their access key is a key of ours then, which stands for itself as it does anywhere else.
    """
    shown = headers.get(b"authorization")
    signed = _SIGNED.match(shown) if shown is not None else None
    if signed is not None:
        shown = b"Bearer " + signed[1]
    elif shown is None or not is_bearer(shown):
        found = next((headers[name] for name in _OTHERS if headers.get(name)), (in_query or "").encode())
        shown = b"Bearer " + found.strip() if found else None
    left_out = {b"authorization", *_OTHERS, *_AWS}
    kept = {name: value for name, value in headers.items() if name not in left_out}
    return kept if shown is None else {**kept, b"authorization": shown}
