"""Logs as events with fields, on stderr: JSON for machines, or one readable line for people."""

import logging
import sys
from typing import Literal

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def add(processor: structlog.types.Processor) -> None:
    """One more that sees every event, before it is written. Loggers that are in use share the list."""
    structlog.get_config()["processors"].insert(1, processor)


def remove(processor: structlog.types.Processor) -> None:
    processors = structlog.get_config()["processors"]
    if processor in processors:
        processors.remove(processor)


def configure(level: str, format_: Literal["json", "text"]) -> None:
    """Once per process, before the first event. Third-party loggers keep to warnings."""
    readable = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    renderer: structlog.types.Processor = structlog.processors.JSONRenderer() if format_ == "json" else readable
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
