"""How a judge is asked, and how it is understood. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from inference.rollouts.rollout import Judge

MOST_CHARACTERS: Final = 12_000  # of each part


def messages(task: str, judge: Judge, parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The parts are what is judged, as JSON: no text of theirs can pass for the task."""
    told = task if judge.rubric is None else f"{task}\nLook at this above all: {judge.rubric}"
    shown = msgspec.json.encode({name: text[:MOST_CHARACTERS] for name, text in parts.items()})
    return [{"role": "system", "content": told}, {"role": "user", "content": shown.decode()}]


def said(text: str) -> Mapping[str, Any]:
    """The JSON object in an answer, whatever stands around it; empty for what is not understood."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = msgspec.json.decode(text[start : end + 1])
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
