"""The promise of `core/live.py`: every unfinished job is in exactly one place, and found by all its names."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from rkllm_mqtt.core.live import Counters, LiveJobs

STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "take", "put back", "forget"]), st.integers(0, 50)), max_size=40
)


@given(STEPS)
def test_every_unfinished_job_is_in_exactly_one_place_and_found_by_its_names(make_job, steps):
    live, waiting, in_slot = LiveJobs(), [], []
    for seq, (what, pick) in enumerate(steps, 1):
        known = waiting + in_slot
        if what == "add":
            job = make_job(seq, client=("kitchen", "hall")[pick % 2])
            live.add(job)
            waiting.append(job)
        elif what == "take" and waiting:
            in_slot.append(waiting.pop(pick % len(waiting)))
            live.take(in_slot[-1])
        elif what == "put back" and in_slot:
            waiting.append(in_slot.pop(pick % len(in_slot)))
            live.put_back(waiting[-1])
        elif what == "forget" and known:
            job = known[pick % len(known)]
            live.forget(job)
            (waiting if job in waiting else in_slot).remove(job)
            assert live.find(*job.key) is None
            assert live.by_seq(job.seq) is None
        assert {id(job) for job in live.waiting} == {id(job) for job in waiting}
        assert live.in_slot == in_slot
        assert live.count == len(live.all()) == len(waiting) + len(in_slot)
        for job in waiting + in_slot:
            assert live.find(*job.key) is live.by_seq(job.seq) is job
        for client in ("kitchen", "hall"):
            found = {job.seq for job in live.of_client("rock5", client)}
            assert found == {job.seq for job in waiting + in_slot if job.client == client}


def test_a_client_of_another_target_is_another_client(make_job):
    live = LiveJobs()
    live.add(make_job(1, target="fleet"))
    assert live.of_client("rock5", "kitchen") == []
    assert live.find("rock5", "kitchen", "q1") is None
    assert live.find("fleet", "kitchen", "q1") is not None


def test_forgetting_a_job_twice_does_no_harm(make_job):
    live = LiveJobs()
    job, other = make_job(1), make_job(2)
    live.add(job)
    live.add(other)
    live.forget(job)
    live.forget(job)
    assert live.all() == list(live.waiting) == [other]


def test_the_counters_begin_at_nothing():
    counters = Counters()
    assert not any(getattr(counters, name) for name in counters.__slots__)


def test_the_jobs_of_a_client_are_those_that_wait_and_those_in_the_slot(make_job):
    live = LiveJobs()
    runs, waits = make_job(1), make_job(2)
    for job in (runs, waits):
        live.add(job)
    live.take(runs)
    target, client = runs.key[:2]
    assert live.of_client(target, client) == [runs, waits]
    live.forget(waits)
    assert live.of_client(target, client) == [runs]
    live.forget(runs)
    assert live.of_client(target, client) == live.of_client(target, "nobody") == []


def test_of_a_conversation_only_the_first_turn_may_run_and_its_end_brings_the_next(make_job):
    live, turns = LiveJobs(), []
    live.read_history = turns.append
    asked = make_job(0).request
    first, second, third, other = (
        make_job(seq, request=replace(asked, conversation=name)) for seq, name in enumerate("aaab", 1)
    )
    for job in (first, second, third, other):
        live.add(job)
        assert live.is_held(job)
        assert live.is_unrun(job)
    assert turns == [first, other]
    assert (live.held_of(None), live.held_of(first.client), live.held_of("nobody")) == (2, 2, 0)
    assert live.release(first)
    assert not live.release(first)
    assert list(live.waiting) == [first]
    live.take(first)
    live.put_back(first)
    assert turns == [first, other]
    live.take(second)  # cancelled while it was held
    live.forget(second)
    assert turns == [first, other]
    live.forget(first)
    assert turns == [first, other, third]
    live.forget(third)
    live.forget(other)
    assert (live.count, live.held_of(None), live._talks) == (0, 0, {})
    assert not live._held
    assert not live._talking
    assert not live.release(third)
