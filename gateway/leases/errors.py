"""What a lease store can answer instead of an amount.

    LeaseError
    ├── StoreUnavailable    no answer within the deadline, or the store is known to be away: nothing was lent
    │   ├── Forgotten       the store lost its data, and with them what this session told it
    │   └── Quarantined     the store lost its data and waits for the living sessions to say what they hold
    └── SessionClosed       the session's shares were folded into their accounts: it may never borrow again

None of them reaches a client as it is: the caller decides whether to fail closed or to go on with a local share.
"""


class LeaseError(Exception):
    """Any of the above."""


class StoreUnavailable(LeaseError):
    """`retry_after_s` is when asking again may help. What was asked may still take effect: the next `sync` heals it."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Forgotten(StoreUnavailable):
    """Raised once, by the first `borrow` or `sync` after the loss, which has had no effect.

    The session must report all its accounts next, also those that have not changed since they were reported last.
    """


class Quarantined(StoreUnavailable):
    """`sync` is answered, `borrow` is not."""


class SessionClosed(LeaseError):
    """Raised to a process that was taken for dead and whose journal somebody recovered: it has to stop."""
