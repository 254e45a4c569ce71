"""The promise of `core/verdict.py`: every end of a run means exactly one thing for its job."""

from itertools import product

import pytest

from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.job import JobEvent, JobState, after
from rkllm_mqtt.core.verdict import (
    CANCELLED,
    EXPIRED,
    Again,
    Ended,
    Lost,
    PutBack,
    RunFacts,
    judge,
    judge_shape,
    settle,
)

NATURAL = ("stop", "length", "repetition")
REASONS = (*NATURAL, "aborted", "revoked", "context", "adapter", "error", "lost")
EVERY = [
    RunFacts(reason, "what happened", "", began, cancelled, expired, timed_out, stalled, stopping)
    for reason, began, cancelled, expired, timed_out, stalled, stopping in product(
        REASONS, *[(False, True)] * 4, (None, "no token for 30 s"), (False, True)
    )
]


def expected(facts):
    """Return the verdict in the order of the promises, as a list of which the first line that fits counts."""
    lines = [
        (facts.reason in NATURAL, ("ends", JobEvent.COMPLETED, facts.reason, None)),
        (facts.cancelled, ("ends", JobEvent.CANCEL_CONFIRMED, "cancelled", Code.CANCELLED)),
        (facts.expired, ("ends", JobEvent.DEADLINE_PASSED, "expired", Code.EXPIRED)),
        (facts.stopping, ("waits",)),
        (facts.reason == "revoked", ("waits",)),
        (not facts.began, ("waits",)),
        (facts.timed_out, ("ends", JobEvent.GAVE_UP, "timeout", Code.TIMEOUT)),
        (facts.reason == "context", ("ends", JobEvent.GAVE_UP, "error", Code.CONTEXT_OVERFLOW)),
        (facts.reason == "adapter", ("ends", JobEvent.GAVE_UP, "error", Code.MODEL_ERROR)),
        (True, ("lost", facts.stalled or facts.message)),
    ]
    return next(result for fits, result in lines if fits)


def summary(verdict):
    match verdict:
        case Ended(event, finish_reason, fault):
            return "ends", event, finish_reason, fault.code if fault else None
        case Lost(reason):
            return "lost", reason
        case PutBack():
            return ("waits",)


def test_every_combination_of_facts_has_the_one_verdict_of_the_table():
    assert len(EVERY) == 9 * 2**6
    for facts in EVERY:
        assert summary(judge(facts)) == expected(facts), facts


def test_every_end_is_a_legal_change_of_a_running_job():
    for facts in EVERY:
        verdict = judge(facts)
        if isinstance(verdict, Ended):
            state = after(JobState.RUNNING, verdict.event)
            assert (verdict.fault is None) == (state is JobState.SUCCEEDED)


@pytest.mark.parametrize("reason", NATURAL)
def test_a_natural_end_wins_over_a_cancel_a_deadline_and_a_stop_that_came_too_late(reason):
    facts = RunFacts(reason, cancelled=True, expired=True, timed_out=True, stopping=True)
    assert judge(facts) == Ended(JobEvent.COMPLETED, reason)


def test_a_cancel_wins_over_every_fault():
    for facts in EVERY:
        if facts.cancelled and facts.reason not in NATURAL:
            assert judge(facts) is CANCELLED


def test_a_deadline_wins_over_what_the_slot_did():
    assert judge(RunFacts("lost", "signal 6", expired=True)) is EXPIRED


def test_an_abort_that_nobody_asked_for_is_a_loss_with_a_reason():
    assert judge(RunFacts("aborted")) == Lost("the run was aborted")
    assert judge(RunFacts("aborted", "x", stalled="no token for 30 s")) == Lost("no token for 30 s")


def test_a_prompt_beyond_the_context_is_told_with_what_the_run_said_and_a_hint():
    verdict = judge(RunFacts("context", "the prompt has 5000 tokens, the window 4096"))
    assert verdict.fault.message == "the prompt has 5000 tokens, the window 4096"
    assert "context_tokens" in verdict.fault.hint


DONE = Ended(JobEvent.COMPLETED, "stop")


def test_calls_are_the_reason_of_an_answer_that_ended_by_itself():
    assert settle(DONE, calls=1, must_call=True).finish_reason == "tool_calls"
    assert settle(DONE, calls=0, must_call=False) is DONE
    cut = Ended(JobEvent.COMPLETED, "length")
    assert settle(cut, calls=1, must_call=True) is cut


def test_no_call_where_one_was_asked_for_is_an_error_unless_there_is_another():
    assert settle(DONE, calls=0, must_call=True).fault.code is Code.INVALID_OUTPUT
    assert settle(CANCELLED, calls=0, must_call=True) is CANCELLED


def test_an_answer_of_another_shape_gets_one_correction():
    assert judge_shape(DONE, None, corrected=False) is DONE
    assert judge_shape(DONE, "no JSON", corrected=False) == Again("no JSON")
    assert judge_shape(DONE, "no JSON", corrected=True).fault.code is Code.INVALID_OUTPUT


@pytest.mark.parametrize("reason", ["length", "repetition"])
def test_an_answer_that_did_not_end_by_itself_is_not_worth_a_correction(reason):
    cut = Ended(JobEvent.COMPLETED, reason)
    assert judge_shape(cut, None, corrected=False).fault.code is Code.INVALID_OUTPUT
