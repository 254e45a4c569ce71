"""Brings models into the slot: that of the next job, the pinned one when nothing else is to be done, or none.

Rule 1: it decides not who is next; `core.policy` does, which knows what a load costs.
Rule 2: a model is changed, or unloaded, only while no run is in the slot.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Catalogue
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

LOADS_KEY = "loads"
"""Where the journal keeps how long models take to load."""


class Residence:
    """Which model is in the slot, as far as nobody's run is in it."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        slot: Slot,
        catalogue: Catalogue,
        journal: Journal,
        wake: Callable[[], None],
    ) -> None:
        """Keep the arguments.

        Args:
            config: The whole configuration.
            policy: Is told which model is there, and what loads cost.
            slot: Where the models are.
            catalogue: All of them.
            journal: Keeps what was learned; its clock is that of the policy.
            wake: Called when it is time to look again.
        """
        self._config = config
        self._policy = policy
        self._slot = slot
        self._catalogue = catalogue
        self._journal = journal
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        self._wished_at = float("-inf")
        self._wish: str | None = None
        self._wished: str | None = None
        """The last wish that was granted."""

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._config = config
        self._idle_since = None
        self._wake()

    def begin(self) -> None:
        """Take up what an earlier process learned, and tell the policy what is there."""
        self._expect()
        self._slot.loads.resume(json.loads(self._journal.meta.get(LOADS_KEY, "{}")))
        self._pin()
        self._learn()
        self._policy.move_in(self._slot.wanted)

    def models_changed(self) -> None:
        """Hear that there are other models."""
        self._expect()
        self._pin()
        self._learn()
        if self._wish is not None and self._wish not in self._catalogue:
            self._wish = None
        self._wake()

    @property
    def changes(self) -> bool:
        """Return whether somebody wishes another model as soon as the slot is empty."""
        return self._wish is not None

    def wish(self, model_id: str) -> None:
        """Load a model as soon as the slot is empty; jobs of other models bring theirs back."""
        self._wish = model_id
        self._wake()

    def grant(self) -> None:
        """Load the model that was wished; the slot is empty."""
        if self._wish is not None:
            self._wished_at, self._wished = self._journal.now(), self._wish
            self._use(self._wish, None)
            self._wish = None

    def has(self, model_id: str) -> bool:
        """Return whether a model is in the slot, or on its way."""
        return self._slot.wanted == model_id and not self._slot.unloaded

    def bring(self, job: Job) -> None:
        """Load the model of a waiting job; the slot is empty."""
        self._use(job.request.model, job)

    def stay(self) -> None:
        """There is work for the model that is there."""
        self._idle_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def rest(self) -> None:
        """Nothing can run and nothing runs: bring the pinned model back, unload, or look again later."""
        self._learn()
        slot, tenancy, now = self._slot, self._policy.tenancy, self._journal.now()
        idle_since, due = self._idle_since, None
        self.stay()
        if self._is_lost:
            self._use(self._catalogue.default, None)
        if slot.loading_since is not None and slot.wanted == self._wished:
            self._wished_at = now  # it begins to be there when it is there
        if tenancy.opens_at is not None and len(self._policy.waiting):
            due = tenancy.opens_at  # somebody waits for the pinned model's silence
        elif tenancy.pinned is not None:
            due = self._wished_at + tenancy.silence_s
            if due <= now:
                due = None
                if not self.has(tenancy.pinned):
                    self._use(tenancy.pinned, None)
        elif self._config.runtime.idle_unload_s and slot.loaded is not None:
            self._idle_since = now if idle_since is None else idle_since
            due = self._idle_since + self._config.runtime.idle_unload_s
            if due <= now:
                due = None
                log.info("model_unloaded", model=slot.loaded, idle_s=self._config.runtime.idle_unload_s)
                slot.unload()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._wake)

    @property
    def _is_lost(self) -> bool:
        """Return whether the model of the slot is gone, or cannot be loaded, and the default one can."""
        slot, catalogue = self._slot, self._catalogue
        if slot.unloaded or catalogue.fault(catalogue.default) is not None:
            return slot.wanted not in catalogue and not slot.unloaded
        broken = slot.loaded is None and catalogue.fault(slot.wanted) is not None
        return slot.wanted not in catalogue or broken

    def _use(self, model_id: str, job: Job | None) -> None:
        self.stay()
        self._learn()
        if not self.has(model_id):
            self._policy.move_in(model_id, job)
        self._slot.use(model_id)

    def _expect(self) -> None:
        """Take the sizes of the files, from which a first load is guessed."""
        for model in self._catalogue.models:
            with contextlib.suppress(OSError):
                self._slot.loads.expect(model.id, model.file.stat().st_size)

    def _pin(self) -> None:
        usable = (model for model in self._catalogue.models if self._catalogue.fault(model.id) is None)
        pinned = next((model.id for model in usable if model.pinned), None)
        if pinned != self._policy.tenancy.pinned:
            self._policy.pin(pinned, self._config.runtime.unpin_after_s)

    def _learn(self) -> None:
        """Tell the policy what has changed in the times of loads."""
        for model_id in self._catalogue.ids:
            seconds = self._slot.loads.seconds(model_id)
            if self._policy.tenancy.loads_s.get(model_id) != seconds:
                self._policy.learn_load(model_id, seconds)
