"""Decide whether a new job may come in, beside the limits that the intake counts itself."""

from collections.abc import Callable

from msgspec.structs import replace

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Catalogue
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.store.journal import Journal

FAILED_LOADS = 3
"""So many failed loads in a row, and jobs of that model are told instead of kept waiting."""

_RETRY_S = 60


class Gate:
    """Open, or closed for a reason."""

    def __init__(
        self,
        slot: Slot,
        catalogue: Catalogue,
        journal: Journal,
        config: Config,
        frees_in_s: Callable[[], float],
    ) -> None:
        """Keep the arguments; `frees_in_s` says when jobs are removed from the journal next."""
        self._slot = slot
        self._catalogue = catalogue
        self._journal = journal
        self._frees_in_s = frees_in_s
        self.apply(config)
        self.draining = False
        """An administrator wants the queue worked off."""
        self.stopping = False

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._retry_after_s = config.runtime.restart_max_s
        self._journal_mb = config.limits.journal_mb

    @property
    def accepting(self) -> bool:
        """Return whether new prompts are taken at all."""
        return not (self.draining or self.stopping)

    def refusal(self, model_id: str) -> Fault | None:
        """Return why no new job of a model is taken now; None when it is."""
        if self.draining:
            hint = "An administrator can `resume` it."
            return Fault(Code.PAUSED, "the daemon is draining its queue", hint, _RETRY_S)
        if self._journal.full:
            return Fault(Code.INTERNAL, "the disk is full", "Free some space on the board.", _RETRY_S)
        if self._journal.used_bytes >= self._journal_mb << 20:
            return Fault(
                Code.INTERNAL,
                f"the journal has reached its limit of {self._journal_mb} MB",
                "Raise `limits.journal_mb`, or keep answers for a shorter time: `limits.id_retention_s`.",
                round(self._frees_in_s(), 1),
            )
        return self.unloadable(model_id)

    def unloadable(self, model_id: str) -> Fault | None:
        """Return why a model cannot be loaded: it is seen, or loads failed often enough to be believed."""
        if model_id not in self._catalogue:
            hint = "Models of this node: " + ", ".join(self._catalogue.names[:8])
            return Fault(Code.MODEL_ERROR, f"the model {model_id!r} was removed", hint)
        fault = self._catalogue.fault(model_id)
        if fault is not None and self._slot.loaded != model_id:  # what is loaded needs its file no more
            return replace(fault, retry_after_s=self._retry_after_s)
        problem = self._slot.problem
        if (
            self._slot.wedged.too_many
            and (wedge := self._slot.wedged.reason(serious=self._slot.loaded is None)) is not None
        ):
            return Fault(Code.SLOT_FAILED, wedge.message, wedge.hint, self._retry_after_s)
        if (
            problem is None
            or self._slot.setbacks.load_failures < FAILED_LOADS
            or model_id != self._slot.wanted
        ):
            return None
        return Fault(Code.MODEL_ERROR, problem.message, problem.hint, self._retry_after_s)
