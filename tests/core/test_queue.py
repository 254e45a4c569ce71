"""The promise of `core/queue.py`: all that waits, by class; and what would come next without touching it."""

from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.line import Line
from rkllm_mqtt.core.queue import LineReplay, WaitingJobs

CLIENTS = ("kitchen", "hall", "attic")
JOBS = st.lists(
    st.tuples(st.sampled_from(Priority), st.sampled_from(CLIENTS), st.integers(1, 9)), max_size=30
)


@given(JOBS, st.data())
def test_every_job_is_counted_once_where_it_waits(make_job, wanted, data):
    waiting = WaitingJobs()
    jobs = [make_job(seq, priority, client) for seq, (priority, client, _) in enumerate(wanted, 1)]
    for job in jobs:
        waiting.add(job)
    gone = data.draw(st.sets(st.sampled_from(jobs))) if jobs else set()
    for job in gone:
        waiting.remove(job)
    left = [job for job in jobs if job not in gone]
    assert len(waiting) == len(left)
    assert all((job in waiting) == (job in left) for job in jobs)
    assert {id(job) for job in waiting} == {id(job) for job in left}
    assert waiting.waits == tuple(any(job.priority is p for job in left) for p in Priority)
    assert waiting.oldest is (left[0] if left else None)
    for priority in Priority:
        assert waiting.count(priority) == sum(job.priority is priority for job in left)
    for client in CLIENTS:
        assert waiting.of_client(client) == sum(job.client == client for job in left)


def test_clients_that_have_nothing_waiting_are_forgotten(make_job):
    waiting, job = WaitingJobs(), make_job(1)
    waiting.add(job)
    waiting.remove(job)
    assert waiting._by_client == {}


@given(JOBS)
def test_a_replay_gives_what_really_taking_the_jobs_gives_and_changes_nothing(make_job, wanted):
    line = Line()
    for seq, (priority, client, cost) in enumerate(wanted, 1):
        line.add(make_job(seq, priority, client, cost_s=float(cost)))
    before = list(line.order)
    played = list(LineReplay(line))
    assert line.order == before
    really = []
    while (job := line.first) is not None:
        really.append(job)
        line.remove(job)
        line.claim(job.client, 0.0)
        line.raise_floor()
        line.settle(job.client, 0.0, job.cost_s)
    assert played == really


def test_a_job_that_is_not_done_waits_again_and_a_job_may_be_added(make_job):
    line = Line()
    line.add(make_job(1, client="kitchen", cost_s=5.0))
    line.add(make_job(3, client="hall", cost_s=5.0))
    replay = LineReplay(line)
    replay.add(make_job(2, client="hall"))
    replay.add(make_job(4, client="attic"))
    taken = []
    for keep in (True, False, False, False, False):
        key = replay.peek()
        taken.append(replay.take().seq)
        replay.charge(key, 1.0, keep=keep)
    assert taken == [1, 3, 4, 1, 2] or taken == [1, 2, 4, 1, 3]
    assert replay.peek() is None
