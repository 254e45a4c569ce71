"""Keep the slot free for questions that are about to come: the clock and the timer of the policy's holds.

Rule 1: it decides nothing: `core.policy` does, and `core.lingers` says how long a client's next round takes.
"""

import asyncio
from collections.abc import Callable

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.lingers import Lingers
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.waiting import Job


class Holding:
    """Holds of the slot: behind a prefix that was made ready, and between the rounds of a tool call."""

    def __init__(self, config: Config, policy: Policy, now: Callable[[], float]) -> None:
        """Keep the arguments.

        Args:
            config: Of the daemon.
            policy: Obeys the holds.
            now: The clock of the policy.
        """
        self._policy = policy
        self._now = now
        self._lingers = Lingers(config.policy.tool_linger_s, config.limits.client_states)
        self._timer: asyncio.TimerHandle | None = None
        self.wake: Callable[[], None] = lambda: None
        """Called when a hold has ended by its time."""

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._lingers.most_s = config.policy.tool_linger_s
        self._policy.holds.limit(config.policy.hold_share)

    @property
    def active(self) -> bool:
        """Return whether lower work has to wait now, or will behind what runs."""
        return bool(self._policy.holds.holders(self._now()))

    def heard(self, job: Job) -> None:
        """A job has come; one that brings results of tools tells how long its client takes for a round."""
        messages = job.request.messages
        if messages and messages[-1]["role"] == "tool" and job.priority is Priority.INTERACTIVE:
            self._lingers.came(job.client, self._now())

    def entered(self, job: Job) -> None:
        """A job was handed to the worker: stage nothing lower behind it where a hold may follow."""
        wish, wants = job.request.prefix, False
        if wish is not None:
            wants = wish.hold_s > 0
        elif job.priority is Priority.INTERACTIVE and job.request.tools:
            wants = self._lingers.expects(job.client)
        if wants:
            self._policy.promise_hold(job)

    def left(self, job: Job, *, called: bool, whole: bool) -> None:
        """A job's run has ended: hold the slot where its client is about to ask.

        Args:
            job: Which has left the slot.
            called: Its answer holds tool calls.
            whole: It came to its own end.
        """
        job.held_s, wish, seconds = 0.0, job.request.prefix, 0.0
        if wish is not None:
            if wish.verb != "warm" or not whole:
                return
            seconds = wish.hold_s
        elif called and job.priority is Priority.INTERACTIVE:
            seconds = self._lingers.called(job.client, self._now())
        else:
            return
        job.held_s = self._policy.hold(job.client, seconds, self._now(), job.queued_at)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if job.held_s > 0:
            self._timer = asyncio.get_running_loop().call_later(job.held_s, self._end)

    def _end(self) -> None:
        self._timer = None
        self.wake()
