"""The policy decides as a naive one does that computes everything anew from all that happened."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.reserves import choose_class

INTERACTIVE, NORMAL, BACKGROUND = Priority
CLIENTS = ("kitchen", "hall", "attic")


class Oracle:
    """The policy in a few lines: everything is computed anew from all that happened."""

    def __init__(self):
        self.waiting, self.used, self.floor, self.choices = [], {}, dict.fromkeys(Priority, 0.0), [0] * 3
        self.past, self.now, self.running = [], None, None

    def state(self, now):
        if self.now is not None:
            self.past.append((now - self.now, *self.seen))
        self.now = now
        self.seen = tuple(any(j.priority is p for j in self.waiting) for p in Priority), self.running

    def owed(self):
        owed = [False]
        for priority, share in ((NORMAL, 0.15), (BACKGROUND, 0.05)):
            debt = 0.0
            for seconds, waits, running in self.past:
                debt += 1.2 * share * seconds if waits[priority] else 0.0
                if running is priority:
                    debt -= seconds
                elif not waits[priority]:
                    debt *= max(0.0, 1 - seconds / 600)
                debt = max(debt, -20 * share)
            owed.append(debt >= 40 * share)
        return owed

    def choose(self, now, saving):
        self.state(now)
        waits = [any(j.priority is p for j in self.waiting) for p in Priority]
        priority = choose_class(waits, self.owed())
        if priority is None:
            return None
        jobs = [j for j in self.waiting if j.priority is priority]
        oldest = min(jobs, key=lambda j: j.seq)
        if self.choices[priority] >= 7 and now - oldest.queued_at > 600:
            return oldest
        heads = self.heads(jobs)
        best, most, left = heads[0], saving(heads[0]) + 0.1, 2.0
        for ahead, job in pairwise(heads):
            passes, seconds = self.passed.get(ahead, (0, 0.0))
            left = min(left, 2.0 - seconds) if passes < 2 else 0.0
            if left <= 0:
                break
            if job.cost_s <= left and saving(job) > most:
                best, most = job, saving(job) + 0.1
        return best

    def heads(self, jobs):
        firsts = {}
        for job in sorted(jobs, key=lambda j: j.seq):
            firsts.setdefault(job.client, job)
        return sorted(firsts.values(), key=lambda j: (self.used[j.priority, j.client], j.seq))

    passed = {}  # noqa: RUF012 - replaced for each example


def attic_is_cached(job):
    return 1.0 if job.client == "attic" else 0.0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "run", "run", "drop"]),
        st.sampled_from(Priority),
        st.sampled_from(CLIENTS),
        st.integers(1, 400),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(EVENTS)
def test_the_policy_decides_as_the_naive_one(make_job, events):
    policy, oracle, now = Policy(), Oracle(), 0.0
    oracle.passed = {}
    saving = attic_is_cached
    for seq, (what, priority, client, amount) in enumerate(events, 1):
        seconds = amount / 16  # exact in binary, so that equal sums are equal
        job = policy.choose(now, saving)
        assert job is oracle.choose(now, saving)
        assert {line: policy.waiting.lines[line].floor_s for line in Priority} == oracle.floor
        if what == "add":
            job = make_job(seq, priority, client, queued_at=now, cost_s=seconds % 3)
            key = priority, client
            if not any((j.priority, j.client) == key for j in oracle.waiting):
                oracle.used[key] = max(oracle.used.get(key, 0.0), oracle.floor[priority])
            oracle.waiting.append(job)
            policy.add(job)
        elif what == "drop" and oracle.waiting:
            job = oracle.waiting.pop(amount % len(oracle.waiting))
            policy.remove(job)
        elif what == "run" and job is not None:
            key = job.priority, job.client
            jobs = [j for j in oracle.waiting if j.priority is job.priority]
            heads = oracle.heads(jobs)
            aged = oracle.choices[job.priority] >= 7 and now - min(jobs, key=lambda j: j.seq).queued_at > 600
            if not (aged and job is min(jobs, key=lambda j: j.seq)):
                for ahead in heads[: heads.index(job)]:
                    for j in jobs:
                        if j.client == ahead.client:
                            passes, total = oracle.passed.get(j, (0, 0.0))
                            oracle.passed[j] = passes + 1, total + job.cost_s
            oldest = job is min(jobs, key=lambda j: j.seq)
            oracle.choices[job.priority] = 0 if oldest else oracle.choices[job.priority] + 1
            oracle.floor[job.priority] = max(
                oracle.floor[job.priority], oracle.used[heads[0].priority, heads[0].client]
            )
            oracle.waiting.remove(job)
            oracle.state(now)
            policy.claim(job, job.cost_s, now)
            oracle.running = job.priority
            oracle.state(now)
            policy.begin(job, now)
            now += seconds
            oracle.state(now)
            oracle.running = None
            oracle.state(now)
            policy.settle(job, seconds, now)
            oracle.used[key] = oracle.used[key] + job.cost_s + (seconds - job.cost_s)
