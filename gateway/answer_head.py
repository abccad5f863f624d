"""The header lines that every answer has: whose it is, who gave it, and what is left of the budget."""

from gateway import allowance
from gateway.record import Record
from gateway.target import Target
from gateway.targets import where


def answer_head(record: Record, target: Target | None, content_type: bytes) -> bytes:
    """`target` is None for a model in this process."""
    if target is not None and record.attempts == 1 and record.model == record.metric_model:
        place = target.where
    else:
        place = where(record.model or "", record.deployment or "", record.attempts)
    ticket = record.ticket
    return b"content-type: %b\r\nx-request-id: %b\r\n%b%b%bx-penstock-overhead-ms: %d.%03d\r\n" % (
        content_type,
        record.id.encode(),
        place,
        record.relief,
        allowance.headers(ticket.tab.notices) if ticket is not None else b"",
        *divmod(int(record.overhead_s * 1_000_000), 1000),
    )
