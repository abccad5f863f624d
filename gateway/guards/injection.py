"""How much a text looks like an attempt to talk a model out of its instructions: a score of what such attempts have in common.

A heuristic: it knows the usual phrases in the usual languages and what hides them, and nothing of what is meant. For more there is the
classifier that a guard may name.
"""

import re
from typing import Final

from gateway.guards.view import View

MOST_CHARACTERS: Final = 200_000  # that are looked at, from both ends

_THEIRS: Final = r"(?:\w{1,20} ){0,3}?(?:previous|prior|preceding|earlier|above|foregoing|initial|original|system|existing|your|all)(?: of)?(?: \w{1,20}){0,2}? "
_RULES: Final = r"(?:instruction|direction|prompt|rule|guideline|constraint|restriction|command|context|message|polic(?:y|ies)|programming|training|guardrail)"
_SIGNS: Final = tuple(
    (weight, name, re.compile(pattern, re.IGNORECASE))
    for weight, name, pattern in (
        (
            0.9,
            "override",
            r"\b(?:ignore|disregard|forget|override|bypass|overlook|neglect|do not follow|don't follow|stop following) "
            rf"{_THEIRS}{_RULES}",
        ),
        (0.9, "override", r"\b(?:ignore|disregard|forget) (?:everything|anything|all) (?:(?:that )?(?:was|has been|i|you)|above|before|prior|previous)"),
        (0.9, "override", r"\b(?:ignorier|vergiss|missacht)\w*\b.{0,40}?\b(?:anweisung|regel|vorgabe|instruktion)"),
        (0.9, "override", r"\b(?:ignore[zr]?|oublie[zr]?)\b.{0,40}?\b(?:instructions?|consignes?|r[eè]gles?)\b.{0,20}?\b(?:pr[ée]c[ée]dent|ant[ée]rieur|ci-dessus)"),
        (0.9, "override", r"\b(?:ignora|olvida|ignore|esque[çc]a)\w*\b.{0,40}?\b(?:instruccion|instru[çc][õo]|reglas|regras)"),
        (0.9, "override", r"忽略.{0,12}(?:指令|提示|说明|规则|指示)|(?:指示|命令)を(?:すべて)?無視"),
        (
            0.8,
            "exfiltration",
            r"\b(?:reveal|show|print|repeat|output|display|tell me|give me|leak|dump|write out|what (?:is|are|was|were))\b.{0,24}?"
            r"\b(?:(?:your|hidden|secret) (?:\w{1,20} ){0,2}?(?:prompt|instructions|guidelines)|system (?:prompt|message|instructions))\b",
        ),
        (0.6, "exfiltration", r"\brepeat (?:the )?(?:words|text|everything) (?:above|before)\b"),
        (0.7, "persona", r"\byou (?:are|will be|must act as|shall be) (?:now )?(?:dan\b|an? (?:unrestricted|unfiltered|uncensored|jailbroken|evil))"),
        (0.7, "persona", r"\b(?:do anything now|developer mode (?:enabled|on|output)|jailbreak(?:ed)? mode|god mode|no (?:ethical|moral|safety) (?:guidelines|restrictions|filters))\b"),
        (0.5, "persona", r"\b(?:pretend|act|behave|respond|answer)\b.{0,20}?\b(?:as if|like)?\b.{0,20}?\b(?:no|without(?: any)?) (?:rules|restrictions|limits|limitations|filters|guidelines|policies)\b"),
        (0.7, "forged_turn", r"<\|(?:im_start|im_end|system|endoftext|start_header_id|eot_id)\|>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant)(?:_prompt)?>"),
        (0.6, "forged_turn", r"^\s{0,8}#{0,4} ?(?:system|assistant|developer) ?(?:message|prompt|override|note)? ?:"),
        (0.5, "forged_turn", r"\b(?:new|updated|real|actual|admin(?:istrator)?|developer) (?:system )?(?:instructions?|prompt|rules) ?(?:follow|:|are\b)"),
        (0.5, "tool_abuse", r"\b(?:without (?:asking|telling|informing|notifying) (?:the )?(?:user|anyone)|do not (?:tell|inform|mention|alert) (?:this to )?(?:the )?user)\b"),
        (0.5, "tool_abuse", r"!\[[^\]]{0,80}\]\(https?://[^)\s]{1,300}(?:\?|&)[a-z]{1,20}=(?:\{|%7B|\[|<)"),
    )
)  # fmt: skip


def score(text: str) -> tuple[float, tuple[str, ...]]:
    """From 0 to 1, and the signs that were seen. Signs of different kinds add up; ten of one kind are one."""
    if len(text) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        text = f"{text[:half]}\n{text[-half:]}"
    view = View(text).text
    hidden = len(text) - len(view) > max(8, len(text) // 20)
    line = " ".join(view.split(" ")) if "  " in view else view
    best: dict[str, float] = {"hidden_text": 0.4} if hidden else {}
    for weight, name, sign in _SIGNS:
        if weight > best.get(name, 0.0) and sign.search(line):
            best[name] = weight
    clear = 1.0
    for weight in best.values():
        clear *= 1 - weight
    return 1 - clear, tuple(best)
