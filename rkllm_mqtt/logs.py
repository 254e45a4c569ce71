"""One log line is an event name and its facts as key=value; never a prompt, an answer or a secret."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

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
        line = f"{record.getMessage()} {facts}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if self._journald:
            prefix = next((text for level, text in _PRIORITIES if record.levelno >= level), "<7>")
            return "\n".join(prefix + part for part in line.splitlines())
        return f"{self.formatTime(record, self.datefmt)} {record.levelname.lower():<7} {line}"


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send our logs to `stream` (standard error); call once, before the first event.

    Args:
        level: debug, info, warning or error.
        stream: Where the lines go.
    """
    journald = "JOURNAL_STREAM" in os.environ and stream is None
    target = logging.StreamHandler(stream or sys.stderr)
    target.setFormatter(EventFormatter(journald=journald))
    root = logging.getLogger("rkllm_mqtt")
    root.handlers[:] = [target]
    root.propagate = False
    root.setLevel(level.upper())


def _quoted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    if text and not any(c.isspace() or c in '"=' or not c.isprintable() for c in text):
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
