"""Remember on which topics the broker does not let us publish, until it does or the matter is old.

Only MQTT 5 tells: on 3.1.1 a forbidden publish is acknowledged like any other.
"""

from rkllm_mqtt.mqtt.messages import PublishOutcome

REMEMBERED_S = 600.0
"""A refusal that has not happened again for so long is no news: answer topics are used once."""
_KEPT = 32


class Refusals:
    """The topics that were refused last; bounded."""

    def __init__(self) -> None:
        self._refused: dict[str, float] = {}

    def settled(self, topic: str, outcome: PublishOutcome, now: float) -> bool:
        """Note what became of a publish; return whether this topic is refused and was not before.

        Args:
            topic: Where it went.
            outcome: What the broker said.
            now: Monotonic seconds.
        """
        known = self._refused.pop(topic, None)
        if outcome is not PublishOutcome.REFUSED:
            return False
        self._refused[topic] = now
        if len(self._refused) > _KEPT:
            del self._refused[next(iter(self._refused))]
        return known is None or now - known > REMEMBERED_S

    def topics(self, now: float) -> tuple[str, ...]:
        """Return the topics that are refused, the newest last."""
        return tuple(topic for topic, at in self._refused.items() if now - at <= REMEMBERED_S)
