"""Probes the loaded model while nobody needs the slot: step after step, until nothing is left to ask.

Rule 1: a step that is to begin is in the journal first; the end of it too.
Rule 2: a step in which the library is lost, or fails, is not begun again for this model and runtime.
Rule 3: the files of a probe lie in one folder, which is removed after each step and before the first.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.knowledge import Knowledge
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.priming import Prime, Priming
from rkllm_mqtt.runtime.order import ProbeOrder
from rkllm_mqtt.runtime.run import EndReason, Run, RunEnd
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.store.errors import StoreError

log = get_logger(__name__)

FOLDER = "probe"
"""Beside the journal, for the files of a probe."""
_CHARS = 512
"""Longer than any of its prompts: what the watch reckons with."""
_PATIENCE = 20
"""Idle times that did not last, after which a shorter one will do: some homes never rest for seconds."""
_LEAST_CONTEXT = 512
"""Tokens of a window that takes any of its prompts with the longest answer."""


class Probing:
    """The probe of the model in the slot: a source of work for the idle slot."""

    def __init__(
        self,
        slot: Slot,
        knowledge: Knowledge,
        folder: Path,
        *,
        idle_s: float | None,
        limit_s: Callable[[str, int], float],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep the arguments.

        Args:
            slot: Where the steps run.
            knowledge: What is known, and how far the probe has come.
            folder: For the files of the probe; made and removed here, so nothing else may be in it.
            idle_s: A slot that has run nothing for so long is probed; None: never by itself.
            limit_s: How long a run of a model with so many characters may be silent, seconds.
            wake: Called when the idle slot is to be looked at again.
        """
        self._slot = slot
        self._knowledge = knowledge
        self._folder = folder
        self._limit_s = limit_s
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since_run = -1
        """The number of the last run when the timer began."""
        self._interruptions = 0
        """Idle times that did not last."""
        self._due = False
        self._noting: asyncio.Task[None] | None = None
        self._begun: tuple[str, str] | None = None
        """Model and step whose beginning is in the journal."""
        self._idle_s = idle_s

    def source(self) -> Prime | None:
        """Return the next step for a slot that is idle; None: it is not yet time, or nothing is left."""
        if self._noting is not None and not self._noting.done():
            return None
        begun, self._begun = self._begun, None
        if begun is not None:
            if begun[0] == self._slot.loaded and (order := self._prepared(*begun)) is not None:
                return Prime(order, lambda run, end: self._ended(*begun, run, end))
            self._knowledge.end(*begun, CacheFacts(), done=False)  # nothing of it has run
        wanted = self._wanted()
        if wanted is None:
            return None
        if self._due:
            self._note(wanted)
        elif self._timer is None and self._idle_s is not None:
            self._idle_since_run = self._slot.last_run
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._fall_due)
        return None

    async def all(self) -> bool:
        """Probe a slot that nobody else uses until nothing is left to ask; False: a step did not end well."""
        good = True
        while (wanted := self._wanted()) is not None:
            await self._knowledge.begin(*wanted)
            end = None
            run = self._slot.submit(self._order(*wanted), lambda _pieces, _tokens: None)
            try:
                end = await run.ended
            except SlotLost:
                good = False
            good &= self._take(*wanted, run, end)
            await self._knowledge.keep()
        return good

    def again(self, model_id: str) -> None:
        """Forget what is known of a model, and probe it as soon as it is loaded and the slot is idle."""
        self._knowledge.forget(model_id)
        self._begun, self._due = None, True
        self._wake()

    def told(self, model_id: str) -> dict[str, Any]:
        """Return what is known of a model, and whether anything is left to ask, for an administrator."""
        return {
            "model": model_id,
            "facts": self._knowledge.facts_of(model_id).to_json(),
            "probed": self._knowledge.next_step(model_id) is None,
            "failed": list(self._knowledge.failed_steps(model_id)),
        }

    @property
    def reasons(self) -> list[Reason]:
        """Return what health says: the models in whose probe the library failed."""
        return [
            Reason(
                "probe_failed",
                f"the library failed when it was asked what it does with caches of model {model_id} "
                f"({', '.join(failed)}); what was to be learned is not relied on",
                f'To try again: admin command `probe` with {{"id": "{model_id}", "again": true}}; '
                "or `rkllm-mqtt doctor --probe` while the daemon does not run.",
            )
            for model_id in self._slot.catalogue.ids
            if (failed := self._knowledge.failed_steps(model_id))
        ]

    def _wanted(self) -> tuple[str, str] | None:
        """Return the loaded model and its next step; batches use no caches."""
        model_id = self._slot.loaded
        if model_id is None or self._slot.columns > 1:
            return None
        model = self._slot.catalogue.settings(model_id)
        if model is not None and model.context_tokens < _LEAST_CONTEXT:
            return None
        step = self._knowledge.next_step(model_id)
        return None if step is None else (model_id, step)

    def _fall_due(self) -> None:
        """The slot was idle for long enough, unless something ran meanwhile."""
        self._timer = None
        if self._slot.last_run != self._idle_since_run:
            self._interruptions += 1
        self._due = self._slot.last_run == self._idle_since_run or self._interruptions >= _PATIENCE
        self._wake()

    def _note(self, wanted: tuple[str, str]) -> None:
        async def note() -> None:
            try:
                await self._knowledge.begin(*wanted)
            except StoreError as exc:
                log.warning("probe_not_begun", reason=str(exc))
                self._due = False
                return
            self._begun = wanted
            self._wake()

        self._noting = asyncio.create_task(note(), name="probe")

    def _order(self, model_id: str, step: str) -> ProbeOrder:
        self._clean()
        self._folder.mkdir(mode=0o700, parents=True)
        model, facts = self._slot.catalogue.settings(model_id), self._knowledge.facts_of(model_id)
        return ProbeOrder(
            step=step,
            granularity=facts.granularity or 1,
            raw=model is None or model.template != "runtime",
            folder=str(self._folder),
            first_token_limit_s=self._limit_s(model_id, _CHARS),
        )

    def _prepared(self, model_id: str, step: str) -> ProbeOrder | None:
        """Return the order of a step; None where its folder cannot be made, which is not tried again."""
        try:
            return self._order(model_id, step)
        except OSError as exc:
            log.warning("probe_not_begun", reason=str(exc))
            self._due, self._idle_s = False, None
            return None

    def _ended(self, model_id: str, step: str, run: Run, end: RunEnd | None) -> None:
        """Take the end of a step in the idle slot; what is known is stored behind it."""
        self._due = self._take(model_id, step, run, end)
        self._noting = asyncio.create_task(self._keep(), name="probe")

    async def _keep(self) -> None:
        try:
            await self._knowledge.keep()
        except StoreError as exc:
            log.warning("probe_not_kept", reason=str(exc))
        self._wake()

    def _take(self, model_id: str, step: str, run: Run, end: RunEnd | None) -> bool:
        """Learn from a step that has ended; return whether it came to its end."""
        self._clean()
        if (end is None and not _is_deliberate(run)) or (end and end.reason is EndReason.ERROR):
            log.warning("probe_failed", model=model_id, step=step, reason=end.message if end else "lost")
            self._knowledge.fail(model_id, step)
            return False
        done = end is not None and end.reason is EndReason.STOP
        self._knowledge.end(model_id, step, (end.found if end else None) or CacheFacts(), done=done)
        log.info("probed", model=model_id, step=step, done=done)
        return done

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_deliberate(run: Run) -> bool:
    """Return whether the worker was ended by us."""
    lost = run.ended.exception()
    return isinstance(lost, SlotLost) and lost.deliberate


def build_probing(config: Config, slot: Slot, scheduler: Scheduler, priming: Priming) -> Probing:
    """Return what probes for a daemon, as the last source of work for its idle slot."""
    margin_s = max(config.runtime.abort_grace_s, config.runtime.stall_timeout_s)
    probing = Probing(
        slot,
        scheduler.knowledge,
        config.journal.path.parent / FOLDER,
        idle_s=config.runtime.probe_idle_s,
        limit_s=lambda model_id, chars: scheduler.paces[model_id].first_token_limit_s(chars, margin_s),
        wake=priming.wake,
    )
    priming.sources.append(probing.source)
    return probing
