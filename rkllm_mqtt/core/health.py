"""Turn what is known about the daemon into a word and its reasons."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is not as it should be."""

    code: str
    """Stable word for scripts."""
    message: str
    hint: str = ""
    serious: bool = False
    """Prompts are not being answered because of it."""

    def members(self) -> dict[str, str]:
        """Return the JSON members."""
        members: dict[str, Any] = asdict(self)
        del members["serious"]
        return members


def assess(reasons: list[Reason]) -> str:
    """Return `healthy`, `degraded` or `unhealthy`: the worst of the reasons."""
    if any(reason.serious for reason in reasons):
        return "unhealthy"
    return "degraded" if reasons else "healthy"
