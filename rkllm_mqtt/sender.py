"""Send what may be lost: events and deltas, which nobody waits for when the broker is away."""

from collections.abc import Callable

from rkllm_mqtt.answer import outbound
from rkllm_mqtt.backpressure import BackPressure
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.mqtt.messages import Outbound
from rkllm_mqtt.mqtt.packets import publish_bytes
from rkllm_mqtt.mqtt.session import Session

_EVENTS_KEPT = 200
"""QoS 1 messages in the session's memory beyond which events are dropped while the broker is away."""
_EVENTS_UNDER_WAY = 20_000
"""The same while it is there, but slow: each is about a kilobyte; a burst of 10,000 prompts is not cut."""
_LARGEST_PAYLOAD = 255 * 1024 * 1024
_LENGTH_BYTES = 3
"""What the remaining length of a packet grows by, at most, with its payload."""


class Sender:
    """Publishes events and deltas through the session, and slows the library down when they pile up."""

    def __init__(
        self, session: Callable[[], Session], hold: Callable[[], None], release: Callable[[], None]
    ) -> None:
        """Keep the arguments; `hold` and `release` stop the library and let it go on."""
        self._session = session
        self._pressure = BackPressure(lambda: session().unsent_bytes, hold, release)

    def send(self, message: Outbound) -> bool:
        """Publish an event or a delta; it is dropped while the broker is away."""
        session = self._session()
        if message.qos == 0:
            sent = session.send(message)
            self._pressure.sent()
            return sent
        # Events that belong to messages of a connection that is still being set up are worth keeping too.
        kept = _EVENTS_UNDER_WAY if session.connected else _EVENTS_KEPT
        if session.unacknowledged > kept:
            return False
        session.publish(message)
        return True

    def payload_limit(self, address: Address) -> int:
        """Return the largest final that the broker takes for this address, bytes; 0 or less: none."""
        largest = self._session().maximum_packet_bytes
        if largest is None:
            return _LARGEST_PAYLOAD
        empty = outbound(address, address.reply, b"", qos=1, content_type="application/json")
        return largest - publish_bytes(empty, v5=True) - _LENGTH_BYTES
