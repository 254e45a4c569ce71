"""One log line is an event name and its facts as key=value; never a prompt, an answer or a secret.

Rule: a traceback shows where an error came from and of what type it is. Its text is shown only where that
cannot quote what somebody sent: `KeyError`, `ValueError` and the like repeat the value they stumbled over.
"""

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_SPEAKING = (OSError,)
"""Errors whose text is the system's: a reason and the name of a file or an address."""
_DEEPEST_CHAIN = 8

_PRIORITIES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"))


class EventLog:
    """A logger whose calls are `log.info("job_accepted", job=7, waiting=3)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **facts: object) -> None:
        """Log what a developer wants to see."""
        self._log(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: object) -> None:
        """Log a change of state."""
        self._log(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Log a trouble that we recovered from."""
        self._log(logging.WARNING, event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Log a trouble that needs a person."""
        self._log(logging.ERROR, event, facts)

    def exception(self, event: str, **facts: object) -> None:
        """Log an error with the traceback of the exception being handled."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._logger.error(event, extra={"facts": facts}, exc_info=True)

    def _log(self, level: int, event: str, facts: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"facts": facts})


def get_logger(name: str) -> EventLog:
    """Return the event log of a module; pass `__name__`."""
    return EventLog(name)


def facts_of(record: logging.LogRecord) -> Mapping[str, object]:
    """Return the key=value facts of a record; empty for records of other libraries."""
    facts = getattr(record, "facts", None)
    return facts if isinstance(facts, Mapping) else {}


class EventFormatter(logging.Formatter):
    """`event key=value ...`, with a time stamp on a terminal or a priority prefix under systemd."""

    def __init__(self, *, journald: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback follows on lines of its own."""
        facts = " ".join(f"{key}={_quoted(value)}" for key, value in facts_of(record).items())
        # Of other libraries the first line: asyncio goes on with the repr of tasks and their results.
        line = f"{record.getMessage().partition(chr(10))[0]} {facts}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if self._journald:
            prefix = next((text for level, text in _PRIORITIES if record.levelno >= level), "<7>")
            return "\n".join(prefix + part for part in line.splitlines())
        return f"{self.formatTime(record, self.datefmt)} {record.levelname.lower():<7} {line}"

    def formatException(self, ei: _Raised) -> str:  # noqa: N802 - the name is logging's
        """Return places and types of an error and of those before it; see the rule above."""
        return "" if ei[1] is None else "\n".join(_told(ei[1], _DEEPEST_CHAIN))


def _told(exc: BaseException, depth: int) -> list[str]:
    before = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    lines = [*_told(before, depth - 1), "then:"] if before is not None and depth else []
    lines.append("Traceback (most recent call last):")
    lines += "".join(traceback.format_tb(exc.__traceback__)).splitlines()
    text = f": {exc}" if isinstance(exc, _SPEAKING) else ""
    lines.append(f"{type(exc).__qualname__}{text}")
    if isinstance(exc, BaseExceptionGroup) and depth:
        for part in exc.exceptions:
            lines += _told(part, depth - 1)
    return lines


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send our logs to `stream` (standard error); call once, before the first event.

    Args:
        level: debug, info, warning or error.
        stream: Where the lines go.
    """
    out = stream or sys.stderr
    target = logging.StreamHandler(out)
    target.setFormatter(EventFormatter(journald=_is_journal(out, os.environ)))
    for name, least in (("rkllm_mqtt", level.upper()), ("asyncio", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers[:] = [target]
        logger.propagate = False
        logger.setLevel(least)


def set_level(level: str) -> None:
    """Show events of this level (debug, info, warning, error) and above."""
    logging.getLogger("rkllm_mqtt").setLevel(level.upper())


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a stream goes to journald, which reads a priority at the start of a line.

    The variable alone is no proof: it is inherited by what was started from a terminal of a service, too.
    Source: systemd.exec(5), JOURNAL_STREAM is `device:inode` of the stream.
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _quoted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    if text and not any(c.isspace() or c in '"=' or not c.isprintable() for c in text):
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
