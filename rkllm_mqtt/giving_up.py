"""End the waiting jobs that cannot run: their model cannot be loaded, or their prompt cannot be made."""

import asyncio
from collections.abc import Callable, Iterable

from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.job import JobEvent
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.verdict import Ended
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.outcomes import Outcomes
from rkllm_mqtt.render.errors import RenderError


class GivingUp:
    """Knows which jobs are hopeless.

    Args:
        live: The waiting jobs.
        outcomes: Where a job ends.
        unloadable: Why a model cannot be loaded; None when it can, or that is not known yet.
    """

    def __init__(self, live: LiveJobs, outcomes: Outcomes, unloadable: Callable[[str], Fault | None]) -> None:
        self._live = live
        self._outcomes = outcomes
        self._unloadable = unloadable
        self._doubtful: set[str] = set()

    def doubt(self, model_ids: Iterable[str]) -> None:
        """Look at the jobs of these models next time: something has become of the models."""
        self._doubtful.update(model_ids)

    def look(self, wanted: str, tasks: asyncio.TaskGroup) -> None:
        """End the jobs of the wanted model, and of those in doubt, where these cannot be loaded."""
        doubtful, self._doubtful = {wanted, *self._doubtful}, set()
        faults = {model_id: fault for model_id in doubtful if (fault := self._unloadable(model_id))}
        if faults:
            for job in [job for job in self._live.waiting if job.request.model in faults]:
                self._end(job, faults[job.request.model], tasks)

    def without_model(self, job: Job, tasks: asyncio.TaskGroup) -> bool:
        """End a job whose model cannot be loaded; return whether that is so."""
        fault = self._unloadable(job.request.model)
        if fault is not None:
            self._end(job, fault, tasks)
        return fault is not None

    def without_prompt(self, job: Job, error: RenderError, tasks: asyncio.TaskGroup) -> None:
        """End a job whose prompt cannot be made."""
        self._end(job, Fault(Code(error.code), str(error), error.hint), tasks)

    def _end(self, job: Job, fault: Fault, tasks: asyncio.TaskGroup) -> None:
        self._live.take(job)
        verdict = Ended(JobEvent.GAVE_UP, "error", fault)
        tasks.create_task(self._outcomes.end_unrun(job, verdict), name="give-up")
