"""What a client hears of a body that does not fit: the field, and what is wrong with it, in words that it can know."""

from typing import Any

import pytest
from pydantic import BaseModel

from admin.api.search_wire import SearchBody
from admin.api.vector_store_wire import BatchBody, FileBody, StoreBody
from admin.api.wire import checked
from gateway.errors import BadRequest

KINDS = "Input should be a valid boolean or a valid integer or a valid number or a valid string."


@pytest.mark.parametrize(
    ("model", "body", "param", "message"),
    [
        (FileBody, {"file_id": "f", "attributes": {"k": "x" * 513}}, "attributes.k", "at most 512 characters, not 513."),
        (FileBody, {"file_id": "f", "attributes": {"k": None}}, "attributes.k", KINDS),
        (FileBody, {"file_id": "f", "attributes": {"k": {"a": 1}}}, "attributes.k", KINDS),
        (FileBody, {"file_id": "f", "attributes": {"bool": "x" * 513}}, "attributes.bool", "at most 512 characters"),
        (FileBody, {"file_id": "f", "attributes": {"k" * 65: 1}}, f"attributes.{'k' * 65}", "at most 64 characters"),
        (FileBody, {"file_id": "f", "attributes": dict.fromkeys("abcdefghijklmnopq", 1)}, "attributes", "at most 16 items"),
        (FileBody, {"file_id": "f", "attributes": {"k" * 5000: 1}}, f"attributes.{'k' * 189}", "not 5000."),
        (BatchBody, {"files": [{"file_id": "f", "attributes": {"k": []}}]}, "files.0.attributes.k", KINDS),
        (BatchBody, {}, None, "The body is not valid: give either file_ids or files."),
        (SearchBody, {"query": ""}, "query", "Text should have at least 1 character, not 0."),
        (SearchBody, {"query": []}, "query", "List should have at least 1 item, not 0."),
        (SearchBody, {"query": 3}, "query", "Input should be a valid string or a valid list."),
        (SearchBody, {"query": ["a", ""]}, "query.1", "at least 1 character"),
        (SearchBody, {"query": ["a", 3]}, "query.1", "Input should be a valid string."),
        (StoreBody, {"metadata": {"k": 1}}, "metadata.k", "Input should be a valid string."),
        (StoreBody, {"colour": 1}, "colour", "Extra inputs are not permitted."),
        (StoreBody, [], None, "Send a JSON object."),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_field(model: type[BaseModel], body: Any, param: str | None, message: str) -> None:
    """Nothing of how it is checked here, and of a value that may be of several kinds what its own kind demands."""
    with pytest.raises(BadRequest) as caught:
        checked(model, body)
    assert caught.value.param == param
    assert message in caught.value.message
    assert not [word for word in ("[", "<", "Tuple", "function") if word in caught.value.message]
