"""Takes out of a text what should not be kept: keys, tokens, passwords in addresses, and what tells who somebody is. Pure.

Patterns find what has a form. A name, or a secret in words, has none: recording content stays a decision.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

Redact = Callable[[str], str]

_SECRETS: Final = (
    (
        "private_key",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    ),
    ("jwt", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
    (
        "api_key",
        re.compile(
            r"\b(?:sk|pk|rk|xox[abprs]|ghp|gho|ghs|ghu|github_pat|glpat|hf|gsk|AIza|AKIA|ASIA)[-_A-Za-z0-9]{12,}"
        ),
    ),
    ("bearer", re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{12,}")),
    (
        "password",
        re.compile(
            r"(?i)\b(?:password|passwd|secret|api[_-]?key|token)\b\\?[\"']?\s*[:=]\s*\\?[\"']?[^\s\"'\\,;}]{4,}"
        ),
    ),
    ("credentials", re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)")),
)
_PERSONAL: Final = (
    ("email", re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b")),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("ssn", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("phone", re.compile(r"(?<![\w.])\+\d{1,3}[ ().-]?(?:\d[ ().-]?){6,12}\d\b")),
    ("ip", re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b")),
)
_NAMED: Final = re.compile(
    r"(?i)(?:[a-z_-]*_)?(?:password|passwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token|authorization)"
)
_CARD: Final = re.compile(r"\b(?:\d[ -]?){12,18}\d\b")


def redact(text: str) -> str:
    """`[email]` where an address was, and so on. JSON stays JSON: its strings are looked at one by one, as they read."""
    if text[:1] in {"{", "["}:
        try:
            return msgspec.json.encode(_walked(msgspec.json.decode(text))).decode()
        except (msgspec.DecodeError, RecursionError):
            pass  # a part of one
    return _plain(text)


def _walked(value: Any) -> Any:
    match value:
        case str():
            return _plain(value)
        case list():
            return [_walked(one) for one in value]
        case dict():
            return {
                _plain(name): "[password]" if isinstance(one, str) and _NAMED.fullmatch(name) else _walked(one)
                for name, one in value.items()
            }
        case _:
            return value


def _plain(text: str) -> str:
    for name, pattern in _SECRETS:
        text = pattern.sub(f"[{name}]", text)
    text = _CARD.sub(lambda found: "[card]" if _luhn(found[0]) else found[0], text)
    for name, pattern in _PERSONAL:
        text = pattern.sub(f"[{name}]", text)
    return text


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: what every card number satisfies, and one number in ten."""
    numbers = [int(digit) for digit in reversed(digits) if digit.isdigit()]
    doubled = [number if place % 2 == 0 else sum(divmod(2 * number, 10)) for place, number in enumerate(numbers)]
    return sum(doubled) % 10 == 0
