"""What the process that looks at an artefact may take."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Bytes and seconds. `file_bytes`: of one file that it writes."""

    memory_bytes: int = 4 << 30
    cpu_s: int = 120
    wall_s: float = 120.0
    file_bytes: int = 1 << 30
