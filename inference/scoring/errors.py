"""What ends or interrupts a scoring job.

Exception
├── Failed      the job's end: for a fault of its input, its output or its model. `code` as the job shows it
├── Paused      its account has no more money, or is closed: what was scored is kept until somebody resumes it
├── LeaseLost   another process works on it by now, or it was cancelled
└── Stopped     this process is to end: what was scored is kept, and whoever comes next goes on
"""


class Failed(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Paused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class LeaseLost(Exception):
    pass


class Stopped(Exception):
    pass
