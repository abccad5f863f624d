"""Serves as `penstock` does, and dies by SIGKILL at one step of a call's path: `python -m tests.kill.at STEP N FOLDER serve …`.

The steps are counted from when the file FOLDER/armed is there; the N-th one is the last thing that this process does. Every settlement
that the journal has taken is named in FOLDER/settled before anything else happens, so that a test knows what must not get lost.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from admin.cli import main
from gateway import ledger_store, outlet, recovery, shipping
from gateway.books import Books
from gateway.journal import Journal
from gateway.journal_records import Began, Ended, Intent, Settled
from gateway.leases.sqlite import SqliteLeases
from gateway.metering import Meter
from gateway.recovery import Recovered
from gateway.till import Till
from gateway.upstream import UpstreamConnection

SMALL_SEGMENT: Final = 32 * 1024  # of a journal, so that a short test fills several


class Death:
    """Comes at the N-th crossing of a step."""

    def __init__(self, step: str, number: int, folder: Path) -> None:
        self._step = step
        self._left = number
        self._armed = folder / "armed"

    def at(self, step: str) -> None:
        if step == self._step and self._armed.exists():
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, step: str) -> None:
        """`before <step>` and `after <step>` of a function."""
        work = getattr(owner, name)

        def crossed(*args: Any, **named: Any) -> Any:
            self.at(f"before {step}")
            result = work(*args, **named)
            self.at(f"after {step}")
            return result

        setattr(owner, name, crossed)

    def around_waiting(self, owner: Any, name: str, step: str) -> None:
        """The same of a coroutine function."""
        work = getattr(owner, name)

        async def crossed(*args: Any, **named: Any) -> Any:
            self.at(f"before {step}")
            result = await work(*args, **named)
            self.at(f"after {step}")
            return result

        setattr(owner, name, crossed)


def appends(death: Death, append: Callable[[Journal, Any], None], told: int) -> Callable[[Journal, Any], None]:
    """Journal.append, by the kind of the record."""

    def crossed(journal: Journal, record: Any) -> None:
        begins, ends = isinstance(record, Intent | Began), isinstance(record, Settled | Ended)
        kind = "intent" if begins else "settlement" if ends else "other"
        death.at(f"before {kind}")
        append(journal, record)
        if ends and record.source is not None:
            os.write(told, f"{record.id} {record.cost_nanousd}\n".encode())
        death.at(f"after {kind}")

    return crossed


def prepare(step: str, number: int, folder: Path) -> None:
    death = Death(step, number, folder)
    told = os.open(folder / "settled", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    setattr(Journal, "append", appends(death, Journal.append, told))  # noqa: B010 — mypy rightly refuses the plain way
    defaults = Journal.create.__kwdefaults__
    assert defaults is not None
    defaults["segment_bytes"] = SMALL_SEGMENT
    death.around(UpstreamConnection, "send", "send")
    death.around(outlet, "write", "write")  # to an upstream or to a client
    death.around(Meter, "close", "close")
    death.around_waiting(Till, "_borrow", "borrow")
    death.around_waiting(SqliteLeases, "sync", "report")
    death.around(ledger_store, "save", "rows")  # inside the transaction
    death.around(shipping, "deliver", "commit")
    death.around(shipping, "write_checkpoint", "checkpoint")
    death.around(recovery, "add_segment", "ending")
    death.around(recovery, "deliver", "recovered rows")
    death.around_waiting(SqliteLeases, "close", "session's end")
    death.around(Recovered, "done", "deletion")
    death.around_waiting(Books, "close", "farewell")


if __name__ == "__main__":
    prepare(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    sys.argv[1:4] = []
    sys.exit(main())
