"""Credentials by their form: keys of providers and clouds, tokens, private keys, and what is assigned to a name that says so."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import log2
from typing import Final, final

from gateway.guards.kinds import SECRETS
from gateway.guards.scanner import Finding

_KEY: Final = "[A-Za-z0-9_-]"

# No more of a run than its cap is one secret; what makes one is in its first characters, so that a longer run is found all the same.
_FORMS: Final[dict[str, str]] = {
    "penstock_key": rf"sk-ps-{_KEY}{{32,128}}",
    "anthropic_key": rf"sk-ant-{_KEY}{{20,512}}",
    "openrouter_key": r"sk-or-v1-[0-9a-f]{32,128}",
    "openai_key": rf"sk-(?:proj|svcacct|admin|None)-{_KEY}{{20,512}}|sk-[A-Za-z0-9]{{32,256}}|sess-[A-Za-z0-9]{{32,128}}",
    "aws_access_key": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Z0-9])",
    "github_token": r"gh[pousr]_[A-Za-z0-9]{36,512}|github_pat_[A-Za-z0-9_]{22,512}",
    "gitlab_token": rf"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|oas)-{_KEY}{{20,512}}",
    "google_key": rf"AIza{_KEY}{{35}}|ya29\.{_KEY}{{20,512}}|GOCSPX-{_KEY}{{28}}",
    "slack_token": r"xox[abeoprs]-[A-Za-z0-9-]{10,512}|xapp-[A-Za-z0-9-]{20,512}|hooks\.slack\.com/services/[A-Za-z0-9/]{24,128}",
    "stripe_key": r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,256}|whsec_[A-Za-z0-9+/=]{24,128}",
    "twilio_key": r"(?<![A-Za-z0-9])SK[0-9a-f]{32}(?![A-Za-z0-9])",
    "sendgrid_key": rf"SG\.{_KEY}{{16,64}}\.{_KEY}{{16,128}}",
    "huggingface_token": r"hf_[A-Za-z0-9]{30,128}",
    "groq_key": r"gsk_[A-Za-z0-9]{40,128}",
    "xai_key": r"xai-[A-Za-z0-9]{40,256}",
    "perplexity_key": r"pplx-[A-Za-z0-9]{32,128}",
    "replicate_token": r"r8_[A-Za-z0-9]{30,128}",
    "npm_token": r"npm_[A-Za-z0-9]{36,128}",
    "pypi_token": rf"pypi-{_KEY}{{50,512}}",
    "digitalocean_token": r"do[opr]_v1_[0-9a-f]{64}",
    "azure_key": r"AccountKey=[A-Za-z0-9+/=]{40,128}|SharedAccessKey=[A-Za-z0-9+/=]{40,128}",
    "jwt": rf"(?<!{_KEY})eyJ{_KEY}{{8,3072}}\.eyJ{_KEY}{{8,3072}}\.{_KEY}{{8,1024}}",
    "private_key": (
        r"-----BEGIN[A-Z0-9 ]{0,40} PRIVATE KEY(?: BLOCK)?-----"
        r"[\s\S]{0,8000}?(?:-----END[A-Z0-9 ]{0,40}-----|\Z|(?=[\s\S]{8000}))"
    ),
    "password_in_url": r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[A-Za-z0-9_.+=%~$&!*#?-]{0,64}:[A-Za-z0-9_.+=%~$&!*#?-]{3,128}@(?=[A-Za-z0-9])",
}  # fmt: skip
_NAMED: Final = re.compile(
    r"(?i)(?:api[_-]?key|apikey|secret(?:[_-]?(?:access[_-]?)?key)?|access[_-]?token|auth[_-]?token|token|passw(?:or)?d|pwd|bearer)"
    r"[\"']?[ ]{0,3}[:=]{0,2}[ ]{0,3}[\"']?([A-Za-z0-9+/=_.~-]{16,512})"
)
_NAMED_TAIL: Final = re.compile(
    r"(?i)(?:key|secret|token|password|passwd|pwd|bearer)[\"']?[ ]{0,3}[:=]{0,2}[ ]{0,3}[\"']?[A-Za-z0-9+/=_.~-]{0,512}\Z"
)
_PEM_TAIL: Final = re.compile(r"-----BEGIN[A-Z0-9 ]{0,60}-{0,5}\Z")
_TAIL: Final = 640
MIN_BITS: Final = 3.5  # per character: words have less, and keys of sixteen characters and more have more

NAMED: Final = "assigned_secret"
_COMPILED: Final = {name: re.compile(form) for name, form in _FORMS.items()}


@final
class Secrets:
    """`kinds` are names of `SECRETS`."""

    def __init__(self, kinds: Sequence[str] = SECRETS) -> None:
        self._forms = [(name, _COMPILED[name]) for name in kinds if name in _COMPILED]
        self._named = NAMED in kinds

    def find(self, text: str, start: int) -> list[Finding]:
        found = [Finding(*one.span(), name) for name, form in self._forms for one in form.finditer(text, start)]
        return [*found, *_assigned(text, start)] if self._named else found

    def unsettled(self, text: str, start: int) -> int:
        tail_at = max(start, len(text) - _TAIL)
        tails = (_PEM_TAIL, _NAMED_TAIL) if self._named else (_PEM_TAIL,)
        return min((found.start() for tail in tails if (found := tail.search(text, tail_at))), default=len(text))


def bits(text: str) -> float:
    """Shannon's entropy per character."""
    return sum(-count / len(text) * log2(count / len(text)) for count in Counter(text).values())


def _assigned(text: str, start: int) -> Iterator[Finding]:
    """What a name calls a secret, and looks like one: no word, and no place in a file."""
    for one in _NAMED.finditer(text, start):
        value = one[1]
        mixed = any(char.isdigit() for char in value) and any(char.isalpha() for char in value)
        if mixed and bits(value) >= MIN_BITS:
            yield Finding(*one.span(1), NAMED)
