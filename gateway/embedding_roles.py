"""How a model that embeds questions and passages differently is told which of the two a text is: by words before it, or by a field.

Without either, such models find badly, and nobody is told so (E5 and nomic-embed: Wang et al. 2022, Nussbaum et al. 2024).
"""

from collections.abc import Coroutine, Sequence
from typing import Any, Final, final

import msgspec

from gateway import errors, wire
from gateway.call import Call
from gateway.catalog import ROLES, Roles
from gateway.completion import Answers
from gateway.endpoint import EMBEDDINGS


class _Asked(msgspec.Struct, gc=False):
    input: str | list[Any]
    input_type: str | None = None


_asked: Final = msgspec.json.Decoder(_Asked)


@final
class Telling:
    """Before the rest as long as a model has roles: what it is asked is what a provider sees, what is billed for and what is cached."""

    def __init__(self, following: Answers) -> None:
        self._following = following

    def answer(self, call: Call) -> Coroutine[Any, Any, None]:
        """Raises BadRequest."""
        roles = call.model.roles
        if roles is not None and call.endpoint is EMBEDDINGS:
            call.body = told(call.body, roles)
        return self._following.answer(call)


def told(body: bytes, roles: Roles) -> bytes:
    """The body as the model is to get it; as it is where the client says nothing of its texts. Raises BadRequest."""
    asked = wire.parse(_asked, body)
    if asked.input_type is None:
        return body
    role = ROLES.get(asked.input_type)
    if roles.query_type is not None:  # `classification` and others are the provider's own
        name = asked.input_type if role is None else roles.type_of(role)
        return wire.replaced(body, {"input_type": name})
    if role is None:
        raise errors.BadRequest(
            f"'input_type' is one of {', '.join(ROLES)}: the model has prefixes for questions and for passages",
            param="input_type",
            code="invalid_value",
        )
    prefix = roles.prefix(role)
    return wire.replaced(body, {"input": _before(prefix, asked.input)} if prefix else {}, without="input_type")


def _before(prefix: str, given: str | Sequence[Any]) -> str | list[str]:
    if isinstance(given, str):
        return prefix + given
    if not all(isinstance(each, str) for each in given):
        raise errors.BadRequest(
            "The model has prefixes, and 'input_type' puts them before texts, not before token ids: send texts "
            "(LangChain: check_embedding_ctx_length=False), or leave 'input_type' out",
            param="input",
            code="token_input_unsupported",
        )
    return [prefix + each for each in given]
