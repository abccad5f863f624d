"""Personal data by its form, and by its checksum where it has one. For who needs more there is Presidio (`gateway.guards.presidio`)."""

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address
from typing import Final, final

from gateway.guards.kinds import ENTITIES
from gateway.guards.scanner import Finding

# ISO 13616 registry: how long an account number is, by country.
_IBAN_LENGTHS: Final = dict(
    zip(
        ["AD", "AE", "AL", "AT", "AZ", "BA", "BE", "BG", "BH", "BR", "BY", "CH", "CR", "CY", "CZ", "DE", "DK", "DO", "EE", "EG", "ES", "FI", "FO", "FR", "GB", "GE", "GI", "GL", "GR", "GT", "HR", "HU", "IE", "IL", "IQ", "IS", "IT", "JO", "KW", "KZ", "LB", "LC", "LI", "LT", "LU", "LV", "LY", "MC", "MD", "ME", "MK", "MR", "MT", "MU", "NL", "NO", "PK", "PL", "PS", "PT", "QA", "RO", "RS", "SA", "SC", "SD", "SE", "SI", "SK", "SM", "ST", "SV", "TL", "TN", "TR", "UA", "VA", "VG", "XK"],
        (
            24, 23, 28, 20, 28, 20, 16, 22, 22, 29, 28, 21, 22, 28, 24, 22, 18, 28, 20, 29, 24, 18, 18, 27, 22, 22, 23, 18, 27, 28, 21, 28,
            22, 23, 23, 26, 27, 30, 30, 20, 28, 32, 21, 20, 20, 21, 25, 27, 24, 22, 19, 27, 31, 30, 18, 15, 24, 28, 29, 25, 29, 24, 22, 24,
            31, 18, 24, 19, 24, 27, 25, 28, 23, 24, 26, 29, 22, 24, 20,
        ),
        strict=True,
    )
)  # fmt: skip

_AT_DOMAIN: Final = re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z0-9-]{2,24}")
_LOCAL: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+'-")
_MOST_LOCAL: Final = 64  # RFC 5321 4.5.3.1.1
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IBAN_HEAD: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
_LETTERS_OF_DNI: Final = "TRWAGMYFPDXBNJZSQVHLCKE"
_ODD_OF_FISCAL: Final = dict(
    zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23), strict=True)
)  # fmt: skip
_VERHOEFF_D: Final = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678", "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_P: Final = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)

# A number may stand at the end of what there is, and go on; the longest with its blanks has fewer characters than this.
_NUMBER_TAIL: Final = re.compile(r"[+(]?\d[\d+().\- ]{0,63}\Z|[+(]\Z")
_IBAN_TAIL: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){0,34}[ -]?\Z")
_NINO_TAIL: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2} ?(?:\d{2} ?){0,3}\d?\Z")
_TAIL: Final = 96


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1 annex B."""
    total = 0
    for at, char in enumerate(reversed(_digits(text))):
        value = int(char) * (1 + at % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban(text: str) -> bool:
    """ISO 7064 MOD 97-10."""
    turned = (text[4:] + text[:4]).upper()
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _card(text: str) -> bool:
    digits = _digits(text)
    return digits[0] in "23456" and len(set(digits)) > 1 and luhn(digits)


def _cpf(text: str) -> bool:
    digits = [int(char) for char in _digits(text)]
    if len(set(digits)) == 1:
        return False
    return all(
        sum(digit * (size + 1 - at) for at, digit in enumerate(digits[:size])) * 10 % 11 % 10 == digits[size]
        for size in (9, 10)
    )


def _dni(text: str) -> bool:
    first = text[0].upper()
    number = {"X": "0", "Y": "1", "Z": "2"}.get(first, first) + _digits(text[1:])
    return _LETTERS_OF_DNI[int(number) % 23] == text[-1].upper()


def _fiscal_code(text: str) -> bool:
    """Decreto ministeriale 23 dicembre 1976: letters and digits in odd places have values of their own."""
    upper = text.upper()
    total = sum(
        _ODD_OF_FISCAL[char] if at % 2 == 0 else int(char, 36) % 10 if char.isdigit() else ord(char) - 65
        for at, char in enumerate(upper[:15])
    )
    return chr(65 + total % 26) == upper[15]


def _nir(text: str) -> bool:
    digits = _digits(text)
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


def verhoeff(text: str) -> bool:
    check = 0
    for at, char in enumerate(reversed(_digits(text))):
        check = int(_VERHOEFF_D[check][int(_VERHOEFF_P[at % 8][int(char)])])
    return check == 0


def _pesel(text: str) -> bool:
    digits = [int(char) for char in text]
    month = digits[2] * 10 + digits[3]
    total = sum(digit * (1, 3, 7, 9)[at % 4] for at, digit in enumerate(digits[:10]))
    return 1 <= month % 20 <= 12 and -total % 10 == digits[10]


def _phone(text: str) -> bool:
    digits = _digits(text)
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2


def _ip6(text: str) -> bool:
    if sum(char != ":" for char in text) < 4:
        return False
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _true(_: str) -> bool:
    return True


# Bounded, so that no text takes longer than its length wants. What a pattern finds and its check refuses may hide something that
# begins a character later.
_BY_FORM: Final[dict[str, tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]]] = {
    "credit_card": (
        (
            re.compile(
                r"(?<!\d)(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -]?)\d{6}\2\d{4,5}|\d(?:[ -]\d){12,18}|\d{13,19})(?!\d)"
            ),
            _card,
        ),
    ),
    "phone": (
        (re.compile(r"(?<![\w+])\+\d(?:[ ().-]{0,2}\d){7,14}(?!\d)"), _phone),
        (re.compile(r"(?<![\d.-])(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\d-])"), _phone),
        (re.compile(r"(?<![\d.-])0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}(?![\d-])"), _phone),
    ),
    "ip_address": (
        (re.compile(rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\d|\.\d)"), _true),
        (re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"), _ip6),
    ),
    "us_ssn": ((re.compile(r"(?<![\d-])(?!000|666|9)\d{3}([ -])(?!00)\d{2}\1(?!0000)\d{4}(?![\d-])"), _true),),
    "uk_nino": (
        (
            re.compile(r"(?<![A-Za-z0-9])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D](?![A-Za-z0-9])"),
            _true,
        ),
    ),
    "br_cpf": ((re.compile(r"(?<!\d)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)|(?<!\d)\d{9}-\d{2}(?!\d)"), _cpf),),
    "es_dni": ((re.compile(r"(?<![A-Za-z0-9])(?:\d{8}|[XYZxyz]-?\d{7})-?[A-Za-z](?![A-Za-z0-9])"), _dni),),
    "it_fiscal_code": (
        (
            re.compile(
                r"(?<![A-Za-z0-9])[A-Za-z]{6}[0-9LMNP-Vlmnp-v]{2}[A-EHLMPR-Ta-ehlmpr-t][0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{3}[A-Za-z](?![A-Za-z0-9])"
            ),
            _fiscal_code,
        ),
    ),
    "fr_nir": (
        (re.compile(r"(?<!\d)[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d{2} ?\d{3} ?\d{3} ?\d{2}(?!\d)"), _nir),
    ),
    "in_aadhaar": ((re.compile(r"(?<![\d-])[2-9]\d{3}([ -])\d{4}\1\d{4}(?![\d-])"), verhoeff),),
    "ca_sin": ((re.compile(r"(?<![\d-])[1-79]\d{2}([ -])\d{3}\1\d{3}(?![\d-])"), luhn),),
    "pl_pesel": ((re.compile(r"(?<!\d)\d{11}(?!\d)"), _pesel),),
}  # fmt: skip


@final
class Pii:
    """`entities` are names of `ENTITIES`."""

    def __init__(self, entities: Sequence[str] = ENTITIES) -> None:
        self._entities = tuple(entities)
        self._forms = [(name, *form) for name in self._entities for form in _BY_FORM.get(name, ())]

    def find(self, text: str, start: int) -> list[Finding]:
        found = [
            Finding(*place, name)
            for name, pattern, check in self._forms
            for place in _checked(pattern, check, text, start)
        ]
        if "email" in self._entities and "@" in text:
            found += _emails(text, start)
        if "iban" in self._entities:
            found += _ibans(text, start)
        return found

    def unsettled(self, text: str, start: int) -> int:
        tail_at = max(start, len(text) - _TAIL)
        places = [
            found.start() for tail in (_NUMBER_TAIL, _IBAN_TAIL, _NINO_TAIL) if (found := tail.search(text, tail_at))
        ]
        return min(places, default=len(text))


def _checked(
    pattern: re.Pattern[str], check: Callable[[str], bool], text: str, start: int
) -> Iterator[tuple[int, int]]:
    found = pattern.search(text, start)
    while found is not None:
        if check(found[0]):
            yield found.span()
            found = pattern.search(text, found.end())
        else:
            found = pattern.search(text, found.start() + 1)


def _emails(text: str, start: int) -> Iterator[Finding]:
    """From the @ to the left: who starts there pays for no text without one."""
    for domain in _AT_DOMAIN.finditer(text, start):
        least = max(start, domain.start() - _MOST_LOCAL)
        at = domain.start()
        while at > least and text[at - 1] in _LOCAL:
            at -= 1
        while at < domain.start() and text[at] in ".'":
            at += 1
        name = domain[0].rpartition(".")[2]
        if at < domain.start() and not name.isdigit():
            yield Finding(at, domain.end(), "email")


def _ibans(text: str, start: int) -> Iterator[Finding]:
    for head in _IBAN_HEAD.finditer(text, start):
        length = _IBAN_LENGTHS.get(head[0][:2].upper())
        end = None if length is None else _end_of(text, head.start(), length)
        if end is not None:
            written = text[head.start() : end].replace(" ", "").replace("-", "")
            if iban(written):
                yield Finding(head.start(), end, "iban")


def _end_of(text: str, at: int, length: int) -> int | None:
    """Where so many letters and digits end, between which there may be single blanks; None where there are fewer or more."""
    left, blank = length, True
    while left:
        if at >= len(text):
            return None
        char = text[at]
        if char.isascii() and char.isalnum():
            left, blank = left - 1, False
        elif char not in " -" or blank:
            return None
        else:
            blank = True
        at += 1
    return None if at < len(text) and text[at].isascii() and text[at].isalnum() else at
