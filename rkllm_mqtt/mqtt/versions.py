"""Which MQTT version to speak: 5 first, 3.1.1 where the broker cannot.

Pure: what became of an attempt goes in, the version of the next one comes out.

Rule 1: a broker that says "unsupported protocol version" is believed.
Rule 2: one that closes twice without a word, or lets us wait, may be too old (amqtt takes the properties of
MQTT 5 for the beginning of a long text and waits for its end), or be starting up. If 3.1.1 then works, MQTT 5
gets one more try before we settle: with 3.1.1 nobody would tell us of a forbidden publish.
"""

from enum import StrEnum
from typing import Literal

SILENT_CLOSES = 2
"""Connections closed before CONNACK that make us doubt MQTT 5."""


DOUBT_S = 3.0
"""Longest wait for the first CONNACK of MQTT 5. Answers take milliseconds; a slow one gets another chance."""


class Version(StrEnum):
    """A protocol version, as it is shown."""

    V5 = "5"
    V311 = "3.1.1"


class VersionChoice:
    """The version of the next attempt."""

    def __init__(self, wanted: Literal["auto", "5", "3.1.1"]) -> None:
        self._fixed = wanted != "auto"
        self.current = Version.V311 if wanted == "3.1.1" else Version.V5
        self._silent_closes = 0
        self._settled = self._fixed
        self._proven = False

    def patience_s(self, longest_s: float) -> float:
        """Return how long to wait for a CONNACK: less until the broker has shown that it knows MQTT 5."""
        doubtful = self.current is Version.V5 and not self._fixed and not self._proven
        return min(longest_s, DOUBT_S) if doubtful else longest_s

    def refused(self) -> bool:
        """Note a refusal of the protocol version; return whether another one is worth an immediate try."""
        if self._fixed:
            return False
        fallback = self.current is Version.V5
        self.current = Version.V311 if fallback else Version.V5
        self._settled = fallback
        self._silent_closes = 0
        return fallback

    def unanswered(self, *, stalled: bool = False) -> None:
        """Note a connection without CONNACK: closed by the broker, or `stalled` for as long as we waited."""
        if self._fixed:
            return
        if self.current is Version.V311:
            self.current, self._silent_closes, self._settled = Version.V5, 0, False
            return
        self._silent_closes += SILENT_CLOSES if stalled else 1
        if self._silent_closes >= SILENT_CLOSES:
            self.current = Version.V311

    def accepted(self) -> bool:
        """Note a successful CONNACK; return False when the version was a guess and 5 is worth another try."""
        if self.current is Version.V5:
            self._silent_closes, self._settled, self._proven = 0, self._fixed, True
            return True
        if self._settled:
            return True
        # One more silent close is enough now to come back here, and then to stay.
        self.current, self._silent_closes, self._settled = Version.V5, SILENT_CLOSES - 1, True
        return False
