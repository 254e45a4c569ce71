"""What a check found: a level, a sentence, and what to do about it."""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import asdict


class Level(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARN = "warn"
    """It works, but not as well or as safely as it could."""
    FAIL = "fail"
    """It cannot work."""
    SKIPPED = "skipped"
    """Not looked at: not needed here, or this user cannot see it."""


class Finding(Struct, frozen=True):
    """The result of one check."""

    group: str
    check: str
    """Two or three words: what was looked at."""
    level: Level
    sentence: str
    advice: str = ""
    """What to do; empty when there is nothing to do."""

    def members(self) -> dict[str, str]:
        """Return the JSON members."""
        return {name: str(value) for name, value in asdict(self).items()}


class Group(Struct, frozen=True):
    """Makes the findings of one group of checks."""

    name: str

    def ok(self, check: str, sentence: str) -> Finding:
        """Return a finding that all is well."""
        return Finding(self.name, check, Level.OK, sentence)

    def warn(self, check: str, sentence: str, advice: str) -> Finding:
        """Return a finding that something could be better."""
        return Finding(self.name, check, Level.WARN, sentence, advice)

    def fail(self, check: str, sentence: str, advice: str) -> Finding:
        """Return a finding that something cannot work."""
        return Finding(self.name, check, Level.FAIL, sentence, advice)

    def skip(self, check: str, sentence: str, advice: str = "") -> Finding:
        """Return a finding that nothing was looked at, and why."""
        return Finding(self.name, check, Level.SKIPPED, sentence, advice)


def exit_status(findings: list[Finding], *, config_usable: bool = True) -> int:
    """Return 78 when the configuration cannot be used, 1 when a check failed, else 0, also with warnings."""
    if not config_usable:
        return 78
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0
