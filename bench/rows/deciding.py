"""What a decision costs while many wait: choosing, claiming, settling and putting back, in this process.

Beside it stands a queue that gives the oldest first, which has no decision to make.
"""

import random
import time
from collections import deque
from functools import partial

from bench.context import Context
from bench.figure import Figure, Goal, median, percentile
from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.estimates import Estimates
from rkllm_mqtt.core.forecast import Forecast, Occupied
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.core.waiting import Job

_WAITING = 10_000
_CLIENTS = 1_000
_ROUNDS = 2_000


async def measure(context: Context) -> list[Figure]:
    """Measure a thousand clients, and one client, with ten thousand jobs."""
    figures = []
    for clients in (_CLIENTS, 1):
        policy, jobs = _queue(clients)
        choosing, whole = _decide(policy, context.rounds(_ROUNDS))
        figures.append(
            Figure(
                f"choosing the next of {_WAITING:,} waiting, {clients:,} clients",
                percentile(choosing, 99), "ms", _fifo(jobs), Goal(1.0, text="< 1 ms"),
                f"p99; p50 {median(choosing) * 1000:.0f} us; with claim and settling p99 "
                f"{percentile(whole, 99):.3f} ms; beside it the oldest first",
            )
        )  # fmt: skip
    policy, jobs = _queue(_CLIENTS)
    told = _tell(policy, jobs, context.rounds(200))
    note = f"p99; p50 {median(told):.2f} ms; of any of the jobs, as `accepted` does"
    figures.append(
        Figure(f"telling a place among {_WAITING:,} waiting", percentile(told, 99), "ms", note=note)
    )
    return figures


def _queue(clients: int) -> tuple[Policy, list[Job]]:
    rng, policy, jobs = random.Random(1), Policy(), []
    for seq in range(1, _WAITING + 1):
        client = f"client-{rng.randrange(clients)}"
        request = ChatRequest(
            messages=(
                {"role": "system", "content": f"assistant {seq % 7}"},
                {"role": "user", "content": "hi"},
            ),
            model="bench",
            max_tokens=100,
        )
        job = Job(
            seq, str(seq), request, Address(Mailbox("rkllm", "bench", client), None),
            rng.choice(list(Priority)), 0.0, 0.0, float("inf"), cost_s=rng.uniform(1, 9),
        )  # fmt: skip
        policy.add(job)
        jobs.append(job)
    return policy, jobs


def _decide(policy: Policy, rounds: int) -> tuple[list[float], list[float]]:
    """Let jobs run and come back; return the milliseconds of choosing, and of all that a turn takes."""
    estimates, now = Estimates({"bench": Pace()}), 0.0
    last = next(iter(policy.waiting)).request
    choosing, whole = [], []
    for _ in range(rounds):
        saving = partial(estimates.saving_s, in_kv=last)
        began = time.perf_counter()
        job = policy.choose(now, saving)
        chosen = time.perf_counter()
        assert job is not None
        policy.claim(job, job.cost_s, now)
        policy.begin(job, now)
        now += job.cost_s
        policy.settle(job, job.cost_s, now)
        ended = time.perf_counter()
        policy.add(job)
        last = job.request
        choosing.append((chosen - began) * 1000)
        whole.append((ended - began) * 1000)
    return choosing, whole


def _fifo(jobs: list[Job]) -> float:
    """Return the milliseconds of taking the oldest, p99."""
    waiting, times = deque(jobs), []
    for _ in range(1000):
        began = time.perf_counter()
        waiting.append(waiting.popleft())
        times.append((time.perf_counter() - began) * 1000)
    return percentile(times, 99)


def _tell(policy: Policy, jobs: list[Job], rounds: int) -> list[float]:
    estimates, rng, times = Estimates({"bench": Pace()}), random.Random(2), []
    forecast = Forecast(policy, estimates.slot_s, lambda _: 1.0)
    for _ in range(rounds):
        job = rng.choice(jobs)
        began = time.perf_counter()
        forecast.of(job, 0.0, Occupied(1.0))
        times.append((time.perf_counter() - began) * 1000)
    return times
