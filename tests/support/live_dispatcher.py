"""A real dispatcher on a real slot and a real journal; what it publishes is kept."""

import asyncio
import contextlib
import json
import threading
from collections import defaultdict

from live_jobs import Sent, address, admit, make_job, opened, request
from live_slot import slot_config

from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.dispatcher import Dispatcher
from rkllm_mqtt.gate import Gate
from rkllm_mqtt.outcomes import Outcomes
from rkllm_mqtt.renderers import open_kits
from rkllm_mqtt.rules import build_policy
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler

FILES = {
    "load_replaces": True,
    "loaded_stays": False,
    "aborted_saves": False,
    "granularity": 1,
    "load_s_per_mb": 0.0001,
    "save_s_per_mb": 0.0001,
    "bytes_per_token": 100,
}
"""What a probe has found where prompt-cache files are worth while."""


class Kit:
    """A dispatcher on a real slot and a real journal."""

    def __init__(self, config, journal):
        self.config = config
        self.journal, self.counters, self.sent = journal, Counters(), Sent()
        self.live = LiveJobs(build_policy(config))
        self.finals = defaultdict(asyncio.get_running_loop().create_future)
        self._moved = asyncio.Event()
        self.catalogue = configured_catalogue(config)
        self.kits = open_kits(self.catalogue, 1.0)
        self.slot = Slot(config, self.catalogue, self._wake)
        self.outcomes = Outcomes(
            config,
            self.live,
            self.counters,
            journal,
            post=lambda job, outcome: self.finals[job.id].set_result(json.loads(outcome)),
            payload_limit=lambda _: 10**6,
            on_change=self._moved.set,
        )
        self.scheduler = Scheduler(config, self.live, self.slot, self.catalogue, journal)
        self.dispatcher = Dispatcher(
            config,
            self.live,
            self.counters,
            journal,
            self.slot,
            self.catalogue,
            self.kits.build_orders(self.scheduler.paces),
            self.outcomes,
            self.scheduler,
            send=self._send,
            unloadable=Gate(self.slot, self.catalogue, journal, config, lambda: 0).unloadable,
            on_change=self._moved.set,
        )
        self.catalogue.listen(self.slot.models_changed)
        self.catalogue.listen(self.dispatcher.models_changed)
        self._model = config.models[0].id
        self.bad_event = None

    def _wake(self):
        self._moved.set()
        self.dispatcher.wake()

    def _send(self, message):
        self._moved.set()
        if self.bad_event is not None and self.bad_event in message.payload:
            raise ZeroDivisionError
        return self.sent(message)

    async def ask(
        self, name, prompt="say: hello", *, priority=Priority.NORMAL, deadline=float("inf"), **fields
    ):
        """Accept a job as the intake does."""
        asked = request(prompt, **{"model": self._model, "max_tokens": 100_000} | fields)
        job = make_job(asked, address(request_id=name), id=name, priority=priority, deadline=deadline)
        await admit(self.journal, job)
        self.live.add(job)
        self.dispatcher.wake()
        return job

    async def final(self, name):
        return await asyncio.shield(self.finals[name])

    async def until(self, holds):
        """Wait until something holds; it is looked at whenever slot, queue or senders hear of a change."""
        while not holds():
            self._moved.clear()
            await self._moved.wait()

    async def soon(self, holds):
        """Wait until something holds of which nobody tells; it is looked at again and again, with a pause."""
        while not holds():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), 0.002)
            self._moved.clear()

    async def running(self, name):
        """Wait for the first delta of a job."""
        await self.until(lambda: any(delta["id"] == name for delta in self.sent.of("delta")))

    def started(self):
        """Return the ids of the attempts in their order."""
        return [event["id"] for event in self.sent.events("started")]

    def hold_journal(self):
        """Let nothing be written until the returned event is set."""
        go_on = threading.Event()
        self.journal._writer.submit(lambda _: go_on.wait())
        return go_on


@contextlib.asynccontextmanager
async def dispatching(folder, *files, **settings):
    async with opened(folder) as journal:
        kit = Kit(slot_config(*files, **settings), journal)
        tasks = [asyncio.create_task(kit.slot.run()), asyncio.create_task(kit.dispatcher.run())]
        yield kit
        await kit.dispatcher.stop(0)
        await kit.slot.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
