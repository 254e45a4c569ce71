"""Tell a sender what became of its message: taken, known already, or nothing that could be cancelled."""

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct

from rkllm_mqtt.answer import Send, publish_event
from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.mqtt.messages import Outbound

OutlooksOf = Callable[[Sequence[Job]], Sequence[tuple[int, float | None]]]
"""Tells the places of jobs, 0 for one that does not wait, and the seconds until they begin."""


class _Untold(Struct, frozen=True):
    job: Job
    n: int
    duplicate: bool
    ignored: Sequence[str]


class Confirmations:
    """Publishes `accepted` and `cancel_unknown`."""

    def __init__(
        self,
        node: str,
        send: Send,
        *,
        waits: Callable[[Job], bool],
        outlooks_of: OutlooksOf,
        queue_length: Callable[[], int],
    ) -> None:
        """Keep the arguments.

        Args:
            node: Our name.
            send: Publishes an event.
            waits: Whether a job is in the queue.
            outlooks_of: Tells the places of jobs.
            queue_length: Jobs that wait or are staged.
        """
        self._node = node
        self._send = send
        self._waits = waits
        self._outlooks_of = outlooks_of
        self._queue_length = queue_length
        self._untold: list[_Untold] = []

    def accepted(self, job: Job, duplicate: bool, ignored: tuple[str, ...]) -> None:
        """Say that a job is safe on disk; its place is 0 when it runs or is finished.

        A hundred that one commit has stored are told together, a moment later: their places come from playing
        the queue forward, which the slot's next job would wait for a hundred times.
        """
        if job.request.text:
            return  # its sender gets no events
        self._untold.append(_Untold(job, job.next_event(), duplicate, ignored))
        if not self._waits(job):
            self._tell()
            return
        job.is_untold = True
        if len(self._untold) == 1:
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        untold, self._untold = self._untold, []
        for one, (place, eta_s) in zip(untold, self._outlooks_of([one.job for one in untold]), strict=True):
            one.job.shown_position, one.job.is_untold = place, False
            publish_event(
                self._send,
                one.job,
                "accepted",
                n=one.n,
                node=self._node,
                priority=one.job.priority.label,
                position=place,
                queue_length=self._queue_length(),
                eta_s=eta_s,
                duplicate=one.duplicate,
                ignored=list(one.ignored),
            )

    def cancel_unknown(self, address: Address, wanted: str) -> None:
        """Say that there is no request of this id."""
        payload = encode({"type": "cancel_unknown", "n": 0, "id": wanted[:64]})
        self._send(Outbound(address.event, payload, qos=1))
