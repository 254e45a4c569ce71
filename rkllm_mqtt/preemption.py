"""Let the running job give way where `core.policy` says so: at its next token, or at its next chunk."""

import asyncio
from collections.abc import Sequence

from rkllm_mqtt.core import policy
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.turn import Turn

TOKEN_S = 1.0
"""A library that makes no token in this time is aborted at the stop."""


class Preemption:
    """Looks at the running job whenever somebody may be waiting for its place."""

    def __init__(self, live: LiveJobs, scheduler: Scheduler, turns: Sequence[Turn]) -> None:
        """Keep the arguments; the list of the jobs in the slot is the dispatcher's."""
        self._live = live
        self._scheduler = scheduler
        self._turns = turns
        self._impatient = False
        """Interactive work waits for a protected run: look again at each of its tokens."""

    def on_token(self) -> None:
        """A run has made progress; called for each token."""
        if self._impatient:
            self.look()

    def look(self) -> None:
        """Let the running job give way to an interactive one, as soon as it may."""
        running = next((turn for turn in self._turns if turn.computing), None)
        self._impatient = False
        if running is None or policy.is_question(running.job):
            return
        staged = any(turn.staged and policy.goes_before(turn.job, running.job) for turn in self._turns)
        if self._scheduler.should_preempt(running, staged=staged):
            for turn in self._turns:  # one, or the columns of a batch
                if turn.computing:
                    interrupt(turn)
        else:
            self._impatient = staged or self._live.waiting.count(Priority.INTERACTIVE) > 0


async def wind_down(turns: Sequence[Turn], timeout_s: float) -> None:
    """Give the running job its time, then interrupt it; returns when all runs have ended.

    Args:
        turns: In the slot, the running one first; staged ones are taken back.
        timeout_s: For the running one.
    """
    for turn in turns[1:]:
        turn.run.revoke()
    ends = [turn.run.ended for turn in turns]
    if not ends:
        return
    await asyncio.wait(ends, timeout=timeout_s)
    for turn in turns:
        interrupt(turn)
    # At a token an answer can go on after the restart; a library that is silent is not waited for.
    await asyncio.wait(ends, timeout=TOKEN_S)
    for turn in turns:
        turn.run.abort()
    await asyncio.wait(ends)  # an abort has clocks of its own


def interrupt(turn: Turn) -> None:
    """End a run so that its answer goes on later, where that is possible."""
    if turn.can_continue:
        turn.run.give_way()
    else:
        turn.preempting = True
        turn.run.abort()
