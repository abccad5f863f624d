"""How many connections an upstream gets."""

import msgspec


class PoolLimits(msgspec.Struct, frozen=True):
    """Per origin. `waiting` bounds the queue for a connection when all are taken."""

    connections: int = 1024
    waiting: int = 1024
    idle_s: float = 4.0
