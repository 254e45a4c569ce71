"""The promise of `core/job.py`: a job changes its state in the ways of the table, and in no other."""

from itertools import product

import pytest

from rkllm_mqtt.core.job import TRANSITIONS, IllegalTransition, JobEvent, JobState, Priority, after

ENDS = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
# Written down a second time: a change of the promise must be made in two places.
WAYS = {
    "waiting": {
        "claimed": "running",
        "gave_up": "failed",
        "cancel_confirmed": "cancelled",
        "deadline_passed": "expired",
    },
    "running": {
        "requeued": "waiting",
        "completed": "succeeded",
        "gave_up": "failed",
        "cancel_confirmed": "cancelled",
        "deadline_passed": "expired",
    },
}


@pytest.mark.parametrize(("state", "event"), list(product(JobState, JobEvent)))
def test_each_pair_of_state_and_event_has_the_one_result_written_here(state, event):
    expected = WAYS.get(state.value, {}).get(event.value)
    if expected is None:
        with pytest.raises(IllegalTransition) as caught:
            after(state, event)
        assert (caught.value.state, caught.value.event) == (state, event)
        assert str(caught.value) == f"{event.value} cannot happen to a {state.value} job"
    else:
        assert after(state, event) == expected


def test_an_end_is_for_ever_and_every_other_state_leads_to_each_failure():
    leavable = {state for state, _ in TRANSITIONS}
    assert leavable == set(JobState) - ENDS
    for state in leavable:
        reached = {after for (before, _), after in TRANSITIONS.items() if before is state}
        assert {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED} <= reached


def test_only_a_running_job_succeeds():
    assert [b for (b, _), a in TRANSITIONS.items() if a is JobState.SUCCEEDED] == [JobState.RUNNING]


def test_the_classes_run_in_their_order_and_are_called_as_on_the_wire():
    assert [priority.label for priority in sorted(Priority)] == ["interactive", "normal", "background"]
