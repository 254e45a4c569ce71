"""Turn what is known about the daemon into a word and its reasons."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict


class Reason(Struct, frozen=True):
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


SMALL_PACKET_BYTES = 65_536
"""Largest message of a broker below which `info` of many models and long answers may not fit."""


def packets_small(maximum_bytes: int) -> Reason:
    """Return the reason for a broker that takes only messages of so many bytes."""
    return Reason(
        "packets_small",
        f"the broker takes no message above {maximum_bytes} bytes: answers are cut, state topics absent",
        "Raise its largest packet (mosquitto: `max_packet_size`) to 262144 bytes or more.",
    )


def publish_refused(kinds: Iterable[str]) -> Reason:
    """Return the reason for topics on which the broker does not let us publish.

    Args:
        kinds: What `Topics.kind` says of them.
    """
    named = list(dict.fromkeys(kinds))
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return Reason(
        "publish_refused",
        f"the broker does not let us publish on {', '.join(named[:3])}{more}",
        "Allow this user to write its topics in the broker's ACL.",
        # One mailbox may be forbidden on purpose; without our own topics nobody knows that we live.
        serious=any("/client/" not in kind for kind in named),
    )


def subscription_refused(filters: Sequence[str]) -> Reason:
    """Return the reason for topic filters that the broker does not let us subscribe to; at least one."""
    own = [name for name in filters if not name.startswith("$share/")]
    if not own:
        return Reason(
            "groups_inactive",
            "the broker has no shared subscriptions for us: requests to the groups do not reach us",
            "Take a broker that has them, allow them in its ACL, or remove `groups`.",
        )
    more = f" and {len(own) - 1} more" if len(own) > 1 else ""
    return Reason(
        "subscription_refused",
        f"the broker does not let us subscribe to {own[0]}{more}",
        "Allow this user to read its topics in the broker's ACL.",
        serious=True,
    )
