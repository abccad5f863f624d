"""What a model with collections attached looks up before it answers: values, compiled with the snapshot that a request holds."""

import msgspec

from gateway.grounding.ports import Wanted


class Retrieval(msgspec.Struct, frozen=True):
    """`wanted` names the collections. `instructions` None: the usual ones."""

    wanted: Wanted
    instructions: str | None = None
