"""Which model has the slot, and for how long it keeps it against the jobs of others: a load costs seconds.

Pure.

Rule 1: jobs of the model that is there pass those of others for a stint: a few times the load, never long.
Rule 2: the pinned model, the voice's, is not taken away before its interactive jobs have been silent.
Rule 3: nobody waits for ever: a stint ends, and in the end also a pinned model gives way between two jobs.
"""

from msgspec import Struct, field

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.waiting import Job


class Terms(Struct, frozen=True):
    """The numbers."""

    stint_loads: float = 3.0
    """A stint is so many times the load of the model that waits: loads take a quarter of the time..."""
    stint_s: float = 120.0
    """... and never more seconds than this."""
    stint_jobs: int = 64
    """Jobs of the model that is there which pass in one stint."""
    voice_stint_s: float = 10.0
    """Longest stint against an interactive job; it is one load, if that is less."""
    pinned_most_s: float = 1800.0
    """A job that has waited so long gets its model also without that silence."""


class Tenancy(Struct):
    """The model in the slot."""

    terms: Terms = field(default_factory=Terms)
    model: str | None = None
    """Which is loaded or being loaded; None: loads cost nothing, no order is changed."""
    pinned: str | None = None
    """Which is not taken away while it is spoken with..."""
    silence_s: float = 60.0
    """... that is before its interactive jobs were silent for so long."""
    loads_s: dict[str, float] = field(default_factory=dict)
    """What the load of each model takes, seconds."""
    spoken_at: float = float("-inf")
    """When an interactive job of the pinned model came or ended last."""
    contended_at: float | None = None
    """Since when a job of another model has been passed; None: none is."""
    passed_jobs: int = 0
    """Jobs that have passed it."""
    opens_at: float | None = None
    """When the job that was held back last may have its model; None: none is held by the pinned one."""

    def has(self, job: Job) -> bool:
        """Return whether a job needs no load."""
        return self.model is None or job.request.model == self.model

    def move_in(self, model: str | None) -> None:
        """Another model has the slot."""
        self.model, self.contended_at, self.passed_jobs, self.opens_at = model, None, 0, None

    def hear(self, job: Job, now: float) -> None:
        """A job came, began or ended."""
        if self.is_voice(job):
            self.spoken_at = max(self.spoken_at, now)

    def is_voice(self, job: Job) -> bool:
        """Return whether a job is one for which its model is pinned."""
        return job.priority is Priority.INTERACTIVE and job.request.model == self.pinned

    def passes(self, best: Job, now: float) -> Priority | None:
        """Return the lowest class of the present model's jobs that pass a job of another; None: no one does.

        Args:
            best: Whose turn it is.
            now: Seconds of the policy's clock.
        """
        if self.model == self.pinned:
            opens_at = min(self.spoken_at + self.silence_s, best.queued_at + self.terms.pinned_most_s)
            if now < opens_at:
                self.opens_at = opens_at
                return max(Priority)  # another's turn cannot come, so none of ours disturbs it
        if self.is_voice(best):
            return None
        if self.contended_at is None:
            self.contended_at = now
        load_s = self.loads_s.get(best.request.model, 0.0)
        stint_s = min(self.terms.stint_s, self.terms.stint_loads * load_s)
        if best.priority is Priority.INTERACTIVE:
            stint_s = min(self.terms.voice_stint_s, load_s)
        if now - self.contended_at >= stint_s or self.passed_jobs >= self.terms.stint_jobs:
            return None
        return best.priority
