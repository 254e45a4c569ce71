"""The promise of `core/waiting.py`: by class, and in a class by acceptance, whatever comes and goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.waiting import WaitingJobs

CLIENTS = ("kitchen", "hall", "attic")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(Priority), st.sampled_from(CLIENTS)),
        st.tuples(st.just("take"), st.integers(0, 50)),
        st.tuples(st.just("put back"), st.integers(0, 50)),
    ),
    max_size=60,
)


def check(waiting, model):
    """Compare with a list that is sorted anew at each look."""
    ordered = sorted(model, key=lambda job: (job.priority, job.seq))
    assert list(waiting) == ordered
    assert len(waiting) == len(model)
    for priority in Priority:
        of_class = [job for job in ordered if job.priority is priority]
        assert waiting.count(priority) == len(of_class)
        assert waiting.first(priority) is (of_class[0] if of_class else None)
        if of_class:
            assert waiting.place_of_newest(priority) == ordered.index(of_class[-1]) + 1
    assert [waiting.place_of(job) for job in ordered] == list(range(1, len(ordered) + 1))
    for client in CLIENTS:
        assert waiting.of_client(client) == sum(job.client == client for job in model)


@given(STEPS)
def test_the_order_is_that_of_a_sorted_list_whatever_comes_goes_and_returns(make_job, steps):
    waiting, model, taken = WaitingJobs(), [], []
    for seq, (what, *details) in enumerate(steps, 1):
        if what == "add":
            job = make_job(seq, *details)
            waiting.add(job)
            model.append(job)
        elif what == "take" and model:
            job = model.pop(details[0] % len(model))
            waiting.remove(job)
            taken.append(job)
        elif what == "put back" and taken:
            job = taken.pop(details[0] % len(taken))
            waiting.put_back(job)
            model.append(job)
        check(waiting, model)
        assert all(job in waiting for job in model)
        assert not any(job in waiting for job in taken)


def test_a_job_that_does_not_wait_cannot_be_removed_and_nothing_changes(make_job):
    waiting = WaitingJobs()
    waiting.add(make_job(1))
    with pytest.raises(KeyError):
        waiting.remove(make_job(2))
    assert waiting.of_client("kitchen") == len(waiting) == 1


def test_clients_that_have_nothing_waiting_are_forgotten(make_job):
    waiting = WaitingJobs()
    job = make_job(1)
    waiting.add(job)
    waiting.remove(job)
    assert waiting._by_client == {}


def test_two_jobs_that_come_back_in_the_wrong_order_run_in_the_right_one(make_job):
    waiting, jobs = WaitingJobs(), [make_job(seq) for seq in (1, 2, 3)]
    for job in jobs:
        waiting.add(job)
    for job in jobs[:2]:
        waiting.remove(job)
    for job in jobs[:2]:
        waiting.put_back(job)
    assert list(waiting) == jobs


def test_events_are_numbered_from_zero_and_rise(make_job):
    job = make_job(1)
    assert [job.next_event() for _ in range(3)] == [0, 1, 2]


def test_a_job_is_known_by_target_client_and_id(make_job):
    assert make_job(7, client="hall", target="fleet").key == ("fleet", "hall", "q7")


def test_jobs_are_compared_by_identity(make_job):
    assert make_job(1) != make_job(1)
