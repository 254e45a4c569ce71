"""The newest message of each topic that a schedule puts into its prompt."""

from collections.abc import Iterable

from rkllm_mqtt.mqtt.messages import Inbound

VALUE_BYTES = 8_192
"""What is kept of a message; a prompt has little room."""


class Values:
    """Texts by topic; only the topics that were named are kept."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._texts: dict[str, str | None] = dict.fromkeys(topics)

    @property
    def topics(self) -> list[str]:
        """Return what has to be subscribed to."""
        return list(self._texts)

    def take(self, message: Inbound) -> bool:
        """Keep the message if its topic is one of ours; return whether it is. An empty one takes it back."""
        if message.topic not in self._texts:
            return False
        text = message.payload[:VALUE_BYTES].decode("utf-8", "ignore").replace("\0", "")
        self._texts[message.topic] = text or None
        return True

    def text(self, topic: str) -> str | None:
        """Return the newest message of a topic; None when none has come."""
        return self._texts[topic]
