"""The values of the lease stores: accounts, what is asked of them, what they answer.

All amounts are integers below 2**62, so that sums of two stay within the 64 bits of every store; those of buckets and
slots stay below 2**53, where a double is exact.
"""

from typing import Final, Literal

from msgspec import Struct

AccountKind = Literal["spend", "bucket", "slots"]

KINDS: Final[dict[str, AccountKind]] = {"b": "spend", "l": "bucket", "p": "slots"}
MAX_AMOUNT: Final = 2**62
MAX_COUNT: Final = 2**53

# Shares of buckets and slots vanish when their session was silent for so long. Their holder must not use them either, when
# its last answered `borrow` or `sync` was sent so long ago. Lent money never vanishes: only `close` gives it back.
SHARE_TTL_S: Final = 10.0


def kind_of(account_id: str) -> AccountKind:
    """By the letter before the first colon: `b:` is spent for good, `l:` refills, `p:` is only ever lent.

    The kind is part of the id, so that a journal with nothing but ids can be recovered and no two processes disagree.
    """
    try:
        return KINDS[account_id.partition(":")[0]]
    except KeyError:
        raise ValueError(f"account {account_id!r}: the id must begin with b:, l: or p:") from None


class Account(Struct, frozen=True):
    """One number that all processes share.

    `limit` is the budget, the bucket's burst, or the number of slots, as the caller knows it now: the store keeps none.
    `counted` are other accounts of the same budget whose use counts here as well: the older slots of a rolling window.
    `ends_at` is the Unix time from which on nobody asks for the account any more; the store forgets it an hour later.
    """

    id: str
    limit: int
    rate_per_s: float = 0.0
    counted: tuple[str, ...] = ()
    ends_at: float | None = None

    def __post_init__(self) -> None:
        most = MAX_AMOUNT if self.kind == "spend" else MAX_COUNT
        if not 0 <= self.limit < most:
            raise ValueError(f"account {self.id!r}: limit {self.limit} is not between 0 and {most - 1}")
        if not 0 <= self.rate_per_s < MAX_COUNT:
            raise ValueError(f"account {self.id!r}: rate {self.rate_per_s} is not between 0 and {MAX_COUNT - 1}")

    @property
    def kind(self) -> AccountKind:
        return kind_of(self.id)


class Borrow(Struct, frozen=True):
    """`want` if there is as much, less if there is at least `least`, else nothing. 1 ≤ least ≤ want."""

    account: Account
    want: int
    least: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.want < MAX_AMOUNT:
            raise ValueError(f"account {self.account.id!r}: cannot borrow between {self.least} and {self.want}")


class Grant(Struct, frozen=True):
    """`amount` is added to what the session holds. `remaining` is left for all after it, and negative after an overrun.

    `sharers` counts the sessions with a share of the account, dead and not yet recovered ones too; at least 1.
    """

    amount: int
    remaining: int
    sharers: int


class Report(Struct, frozen=True):
    """`settled`: what the session's calls have cost on this account since the session began. `lent`: what it keeps.

    Both of the same instant: what is in neither has been given back.
    """

    account: Account
    settled: int
    lent: int

    def __post_init__(self) -> None:
        if not (0 <= self.settled < MAX_AMOUNT and 0 <= self.lent < MAX_AMOUNT):
            raise ValueError(f"account {self.account.id!r}: cannot report settled {self.settled}, lent {self.lent}")


class State(Struct, frozen=True):
    """An account over all sessions. `used` is settled and lent, for a bucket what is missing from the full burst."""

    limit: int
    used: int
    lent: int
    sharers: int

    @property
    def remaining(self) -> int:
        return self.limit - self.used


class Seen(Struct, frozen=True):
    """A session that was not closed, and for how long it has been silent."""

    session: str
    silent_s: float
