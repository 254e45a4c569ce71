"""The promise of `core/policy.py`: the highest class first, then the longest wait; a bad prompt ends."""

import pytest

from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import GiveUp, Retry, after_slot_lost, choose_next, is_expired, should_replace
from rkllm_mqtt.core.waiting import WaitingJobs

INTERACTIVE, NORMAL, BACKGROUND = Priority


@pytest.fixture
def waiting_of(make_job):
    def make(*priorities):
        waiting = WaitingJobs()
        for seq, priority in enumerate(priorities, 1):
            waiting.add(make_job(seq, priority))
        return waiting

    return make


@pytest.mark.parametrize(
    ("priorities", "seq"),
    [
        ((NORMAL, NORMAL), 1),
        ((BACKGROUND, NORMAL, NORMAL), 2),
        ((NORMAL, BACKGROUND, INTERACTIVE, INTERACTIVE), 3),
        ((BACKGROUND,), 1),
    ],
)
def test_the_highest_class_runs_first_and_within_it_the_one_that_waited_longest(waiting_of, priorities, seq):
    assert choose_next(waiting_of(*priorities)).seq == seq


def test_when_nothing_waits_nothing_is_chosen(waiting_of):
    assert choose_next(waiting_of()) is None


def test_choosing_takes_nothing_out(waiting_of):
    waiting = waiting_of(NORMAL)
    choose_next(waiting)
    assert len(waiting) == 1


@pytest.mark.parametrize("staged", Priority)
@pytest.mark.parametrize("best", [None, *Priority])
def test_a_staged_job_gives_way_to_a_higher_class_only(make_job, waiting_of, staged, best):
    waiting = waiting_of() if best is None else waiting_of(best)
    assert should_replace(make_job(9, staged), waiting) == (best is not None and best < staged)


def test_a_deadline_is_passed_at_its_very_moment(make_job):
    job = make_job(1, deadline=100.0)
    assert not is_expired(job, 99.999)
    assert is_expired(job, 100.0)
    assert not is_expired(make_job(2, deadline=float("inf")), 1e12)


@pytest.mark.parametrize("max_attempts", [1, 2, 3])
def test_a_prompt_ends_when_the_worker_was_lost_in_it_as_often_as_allowed(max_attempts):
    for crashes in range(1, max_attempts):
        assert after_slot_lost(crashes, max_attempts, "signal 6") == Retry()
    for crashes in (max_attempts, max_attempts + 1):
        decision = after_slot_lost(crashes, max_attempts, "signal 6")
        assert isinstance(decision, GiveUp)
        assert decision.fault.code is Code.SLOT_FAILED
        assert "signal 6" in decision.fault.message
        assert decision.fault.hint
