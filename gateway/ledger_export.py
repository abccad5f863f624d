"""The ledger as a table for others: CSV with every column, or FOCUS, the format that cloud bills come in (focus.finops.org, 1.2).

Rows are made while they are read, a page in memory at a time. Amounts are exact decimals of US dollars.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection

from gateway import ledger_store
from gateway.ledger_entries import COLUMNS, Entry
from gateway.ledger_groups import Head

NANO: Final = 1_000_000_000
UNITS: Final = {"images": "Images", "seconds": "Seconds", "characters": "Characters", "search_units": "Searches"}

FOCUS_COLUMNS: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SubAccountId",
    "SubAccountName",
    "Tags",
)


def as_csv(tx: Connection, since: float | None = None, until: float | None = None) -> Iterator[str]:
    """Lines with all that the ledger says, `at` in RFC 3339, `cost_usd` as an exact decimal, and the hash of the entry's block."""
    yield _line((*COLUMNS, "cost_usd", "hash"))
    for entry, digest in selected(tx, since, until):
        values = msgspec.structs.asdict(entry) | {"at": _moment(entry.at), "customer": _harmless(entry.customer)}
        yield _line((*values.values(), usd(entry.cost_nanousd), digest.hex()))


def as_focus(tx: Connection, since: float | None = None, until: float | None = None) -> Iterator[str]:
    """Lines in the columns of FOCUS. A call is a usage charge of the hour in which it began."""
    yield _line(FOCUS_COLUMNS)
    for entry, _ in selected(tx, since, until):
        row = _focus(entry)
        yield _line([row[column] for column in FOCUS_COLUMNS])


def selected(tx: Connection, since: float | None, until: float | None) -> Iterator[tuple[Entry, bytes]]:
    """Entries of a range in Unix seconds, `until` exclusive, session by session, each with the hash of its block."""
    first = -1 if since is None else int(since // 86_400)
    last = 1 << 40 if until is None else int(until // 86_400)
    for session in ledger_store.sessions(tx):
        head = ledger_store.head(tx, session)
        if head is not None and _outside(head, first, last):
            continue
        for block, digest in ledger_store.blocks(tx, session, since, until):
            for entry in block.entries():
                if (since is None or entry.at >= since) and (until is None or entry.at < until):
                    yield entry, digest


def _outside(head: Head, first: int, last: int) -> bool:
    """A session's entries need not be looked at. One without a head, which is no entry of ours, is shown: that is for `verify` to say."""
    return head.first_day is None or head.last_day is None or head.last_day < first or head.first_day > last


def usd(nanousd: int) -> str:
    """`1234567890` → `1.23456789`: exact, without an exponent."""
    whole, rest = divmod(abs(nanousd), NANO)
    digits = f"{rest:09d}".rstrip("0")
    return f"{'-' if nanousd < 0 else ''}{whole}{'.' if digits else ''}{digits}"


def _consumed(entry: Entry) -> tuple[float, str]:
    """Tokens where there are any, else what the call was billed by."""
    tokens = entry.input_tokens + entry.output_tokens
    if tokens:
        return tokens, "Tokens"
    more = {} if entry.usage_more is None else msgspec.json.decode(entry.usage_more, type=dict[str, float])
    return next(((more[name], unit) for name, unit in UNITS.items() if more.get(name)), (1, "Requests"))


def _focus(entry: Entry) -> Mapping[str, str]:
    begin = datetime.fromtimestamp(entry.at, UTC).replace(minute=0, second=0, microsecond=0)
    month = begin.replace(day=1, hour=0)
    following = (month + timedelta(days=32)).replace(day=1)
    cost = usd(entry.cost_nanousd)
    quantity, unit = _consumed(entry)
    return {
        "BilledCost": cost,
        "BillingAccountId": entry.org_id or "penstock",
        "BillingCurrency": "USD",
        "BillingPeriodStart": _focus_time(month),
        "BillingPeriodEnd": _focus_time(following),
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": f"{entry.endpoint} {entry.id} ({entry.source})",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _focus_time(begin),
        "ChargePeriodEnd": _focus_time(begin + timedelta(hours=1)),
        "ConsumedQuantity": str(quantity),
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": entry.provider or "",
        "ListCost": cost,
        "PricingQuantity": str(quantity),
        "PricingUnit": unit,
        "ProviderName": entry.provider or "",
        "PublisherName": entry.provider or "",
        "ResourceId": entry.key_id or "",
        "ResourceName": entry.model or "",
        "ResourceType": "Virtual key",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": entry.model or "",
        "SubAccountId": entry.team_id or "",
        "SubAccountName": entry.team_id or "",
        "Tags": _tags(entry),
    }


def _harmless(customer: str | None) -> str | None:
    """A client chose this text; a spreadsheet must not take it for a formula (OWASP, CSV injection)."""
    return (
        f"'{customer}" if customer is not None and customer.startswith(("=", "+", "-", "@", "\t", "\r")) else customer
    )


def _tags(entry: Entry) -> str:
    """A JSON object, as FOCUS has it; a tag without a value is true."""
    tags: dict[str, object] = dict.fromkeys(entry.tag_list(), True)
    if entry.user_id is not None:
        tags["penstock:user"] = entry.user_id
    if entry.customer is not None:
        tags["penstock:customer"] = entry.customer
    return msgspec.json.encode(tags).decode() if tags else ""


def _line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _moment(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="microseconds")


def _focus_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
