"""Tell a sender what became of its message: taken, known already, or nothing that could be cancelled."""

from collections.abc import Callable

from rkllm_mqtt.answer import Send, publish_event
from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.mqtt.messages import Outbound

EtaOf = Callable[[Job, int], float | None]
"""Estimates when the job at a place begins, seconds."""


class Confirmations:
    """Publishes `accepted` and `cancel_unknown`."""

    def __init__(
        self, node: str, live: LiveJobs, send: Send, *, staged: Callable[[], list[Job]], eta_s: EtaOf
    ) -> None:
        """Keep the arguments; `staged` returns the jobs that the worker holds ready."""
        self._node = node
        self._live = live
        self._send = send
        self._staged = staged
        self._eta_s = eta_s

    def accepted(self, job: Job, duplicate: bool, ignored: tuple[str, ...]) -> None:
        """Say that a job is safe on disk; its place is 0 when it runs or is finished."""
        staged, place = self._staged(), 0
        if job in staged:
            place = staged.index(job) + 1
        elif job in self._live.waiting:
            waiting = self._live.waiting
            place = len(staged) + (
                waiting.place_of(job) if duplicate else waiting.place_of_newest(job.priority)
            )
        job.shown_position = place
        publish_event(
            self._send,
            job,
            "accepted",
            node=self._node,
            priority=job.priority.label,
            position=place,
            queue_length=len(staged) + len(self._live.waiting),
            eta_s=self._eta_s(job, place) if place else None,
            duplicate=duplicate,
            ignored=list(ignored),
        )

    def cancel_unknown(self, address: Address, wanted: str) -> None:
        """Say that there is no request of this id."""
        payload = encode({"type": "cancel_unknown", "n": 0, "id": wanted[:64]})
        self._send(Outbound(address.event, payload, qos=1))
