"""Tell a sender what became of its message: taken, known already, or nothing that could be cancelled."""

from collections.abc import Callable

from rkllm_mqtt.answer import Send, publish_event
from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.mqtt.messages import Outbound

OutlookOf = Callable[[Job], tuple[int, float | None]]
"""Tells the place of a job, 0 when it does not wait, and the seconds until it begins."""


class Confirmations:
    """Publishes `accepted` and `cancel_unknown`."""

    def __init__(
        self, node: str, send: Send, *, outlook_of: OutlookOf, queue_length: Callable[[], int]
    ) -> None:
        self._node = node
        self._send = send
        self._outlook_of = outlook_of
        self._queue_length = queue_length

    def accepted(self, job: Job, duplicate: bool, ignored: tuple[str, ...]) -> None:
        """Say that a job is safe on disk; its place is 0 when it runs or is finished."""
        place, eta_s = self._outlook_of(job)
        job.shown_position = place
        publish_event(
            self._send,
            job,
            "accepted",
            node=self._node,
            priority=job.priority.label,
            position=place,
            queue_length=self._queue_length(),
            eta_s=eta_s,
            duplicate=duplicate,
            ignored=list(ignored),
        )

    def cancel_unknown(self, address: Address, wanted: str) -> None:
        """Say that there is no request of this id."""
        payload = encode({"type": "cancel_unknown", "n": 0, "id": wanted[:64]})
        self._send(Outbound(address.event, payload, qos=1))
