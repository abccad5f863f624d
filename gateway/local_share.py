"""What a process may lend itself while the lease store is away, if the configuration wants calls to go on: a fixed part of each limit.

Of money and of requests per day once per window, whatever happens in it; of a bucket once per minute of silence; of parallel calls
once per silence. All of it is reported as lent and settled when the store answers. So all processes together pass a limit by no more
than their number times the part, and by nothing that the store had told them was gone.
"""

from gateway.shares import Share

BUCKET_S = 60.0


def room(share: Share, part: float, now: float) -> int:
    """How much may still be lent. Pure."""
    account = share.account
    taken = 0 if account.kind == "bucket" and now >= share.local_until else share.local
    left = int(account.limit * part) - taken
    if account.kind == "spend":
        left = min(left, share.remaining - taken)
    return max(0, left)


def lend(share: Share, part: float, now: float) -> None:
    """All of it at once: nothing else can use it, and calls that find it here do not wait for a silent store."""
    amount = room(share, part, now)
    if share.account.kind == "bucket" and now >= share.local_until:
        share.local, share.local_until = 0, now + BUCKET_S
    share.local += amount
    share.free += amount
    share.reported = (-1, -1)
