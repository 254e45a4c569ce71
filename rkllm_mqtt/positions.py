"""Tell waiting senders their place, and that the model is being loaded, at most once a second."""

import asyncio
from collections.abc import Callable, Iterable

from rkllm_mqtt.answer import PROGRESS_S, Send, publish_event
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.waiting import Job

_TOLD_PLACES = 20
_TICK_S = 1.0


class Positions:
    """Publishes `position` for the first 20 places, at most once a second for each."""

    def __init__(
        self,
        live: LiveJobs,
        send: Send,
        *,
        first: Callable[[int], Iterable[tuple[Job, int, float | None]]],
        loading_since: Callable[[], float | None],
    ) -> None:
        """Keep the arguments.

        Args:
            live: The unfinished jobs.
            send: Publishes an event.
            first: Returns so many jobs that begin next, their places, and the seconds until then.
            loading_since: When the load of a model began, seconds of the event loop's clock.
        """
        self._live = live
        self._send = send
        self._first = first
        self._loading_since = loading_since
        self._changed = asyncio.Event()
        self._told_loading_at = 0.0

    def changed(self) -> None:
        """The queue has moved."""
        self._changed.set()

    async def run(self) -> None:
        """Tell places while somebody waits; cancelled by the daemon's task group."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._tell_places()
            # A place may change a hundred times a second; the pause is the limit of the protocol.
            await asyncio.sleep(_TICK_S)
            if self._loading_since() is not None and len(self._live.waiting):
                self._tell_loading()
                self._changed.set()

    def _tell_places(self) -> None:
        for job, place, eta_s in self._first(_TOLD_PLACES):
            if job.shown_position != place and not job.is_untold:
                job.shown_position = place
                publish_event(self._send, job, "position", position=place, eta_s=eta_s)

    def _tell_loading(self) -> None:
        now, since = asyncio.get_running_loop().time(), self._loading_since()
        first = next((job for job, _, _ in self._first(1)), None)
        if (
            since is None
            or first is None
            or now - max(since, self._told_loading_at) < PROGRESS_S - _TICK_S / 2
        ):
            return
        self._told_loading_at = now
        publish_event(
            self._send, first, "progress", phase="load", elapsed_s=round(now - since, 1), eta_s=None
        )
