"""The id that an answer carries itself (`chatcmpl-…`, `msg_…`): the one that users of SDKs hold in their hands."""

import re
from typing import Final

MOST: Final = 100  # characters that are kept
_ID: Final = re.compile(rb'"id"\s*:\s*"([!#-\[\]-~]{1,100})"')
_NEAR: Final = 512  # bytes; what stands further behind is no longer the answer's own


def answer_id(opening: bytes) -> str | None:
    """The first id in a whole answer or in the opening of a stream, in whatever API's words."""
    found = _ID.search(opening, 0, _NEAR)
    return None if found is None else found[1].decode()
