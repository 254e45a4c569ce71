"""The promises of `core/holds.py` and of the policy that obeys: a short, bounded, counted hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.chat import PrefixWish
from rkllm_mqtt.core.forecast import Forecast, Occupied
from rkllm_mqtt.core.holds import Holds, may_begin
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy, Rules
from rkllm_mqtt.core.trace import recorder, replay

INTERACTIVE, NORMAL, BACKGROUND = Priority


@pytest.fixture
def waiting(make_job):
    """Return a job that waits."""
    numbers = iter(range(1, 1_000))

    def make(policy, client="other", priority=NORMAL, **fields):
        job = make_job(next(numbers), client=client, priority=priority, **fields)
        job.cost_s = 1.0
        policy.add(job)
        return job

    return make


def test_nothing_lower_begins_in_a_hold_and_everything_after_it(waiting):
    policy = Policy()
    job = waiting(policy)
    assert policy.hold("voice", 6, 10, 10) == 6
    assert [policy.choose(now) for now in (10, 13, 15.9, 16)] == [None, None, None, job]
    assert policy.holds.held_s == pytest.approx(6)


def test_the_holders_own_question_may_be_a_normal_prompt_sent_since(waiting):
    policy = Policy()
    waiting(policy)
    waiting(policy, "voice", NORMAL, queued_at=9.0)
    policy.hold("voice", 6, 10, 10)
    waiting(policy, "voice", BACKGROUND, queued_at=11.0)
    assert policy.choose(11) is None
    question = waiting(policy, "voice", NORMAL, queued_at=11.0)
    assert policy.choose(11) is question
    policy.claim(question, 1.0, 11)
    assert policy.holds.holder is None


@pytest.mark.parametrize(
    ("client", "priority", "queued_at", "may"),
    [
        ("phone", INTERACTIVE, 0.0, True),
        ("voice", NORMAL, 10.0, True),
        ("voice", NORMAL, 9.9, False),
        ("voice", BACKGROUND, 11.0, False),
        ("phone", NORMAL, 11.0, False),
    ],
)
def test_what_may_begin_in_a_hold(make_job, client, priority, queued_at, may):
    job = make_job(1, client=client, priority=priority, queued_at=queued_at)
    assert may_begin(job, {"voice": 10.0}) is may
    assert may_begin(job, {})


def test_interactive_work_of_anybody_ends_a_hold(waiting):
    policy = Policy()
    lower = waiting(policy)
    policy.hold("voice", 6, 10, 10)
    question = waiting(policy, "phone", INTERACTIVE)
    assert policy.choose(11) is question
    policy.claim(question, 1.0, 11)
    policy.begin(question, 11)
    policy.settle(question, 1.0, 12)
    assert policy.choose(12) is lower


def test_an_early_job_in_an_idle_slot_ends_the_hold_for_it(make_job):
    policy = Policy()
    policy.hold("voice", 6, 10, 10)
    policy.enter(make_job(1, client="voice", priority=INTERACTIVE), 1.0, 11)
    assert policy.holds.holder is None


def test_nothing_lower_is_staged_behind_a_run_that_a_hold_may_follow(waiting):
    policy = Policy()
    warm = waiting(policy, "voice", INTERACTIVE)
    policy.claim(warm, 1.0, 0)
    policy.promise_hold(warm)
    policy.begin(warm, 0)
    lower = waiting(policy)
    assert policy.choose(1) is None
    policy.claim(lower, 1.0, 1)  # it was staged before
    assert policy.should_replace(lower, 1)
    policy.settle(lower, 0, 1)
    policy.add(lower)
    policy.settle(warm, 1.0, 2)
    assert policy.choose(2) is lower


def test_a_class_that_is_owed_slot_time_ends_a_hold(waiting):
    policy = Policy(Rules(window_s=600))
    job = waiting(policy)
    policy.choose(0)
    # 15 % of what it waits, and a fifth more: it is owed 6 s after 34 s.
    policy.hold("voice", 30, 30, 30)
    assert policy.choose(33) is None
    assert policy.choose(34) is job
    assert policy.holds.holder is None


def test_a_prefix_gives_way_to_a_question_and_not_to_another_prefix(waiting, make_job):
    policy = Policy()
    warm = waiting(policy, "voice", INTERACTIVE, request=prefix_of(make_job))
    policy.claim(warm, 1.0, 0)
    policy.begin(warm, 0)
    waiting(policy, "phone", INTERACTIVE, request=prefix_of(make_job))
    assert not policy.should_preempt(0, 1)
    waiting(policy, "phone", NORMAL)
    assert not policy.should_preempt(0, 1)
    waiting(policy, "phone", INTERACTIVE)
    assert policy.should_preempt(0, 1)


def prefix_of(make_job):
    request = make_job(999).request
    return type(request)(
        messages=request.messages, model=request.model, max_tokens=1, prefix=PrefixWish("warm")
    )


def test_the_forecast_knows_how_long_a_hold_lasts(waiting):
    policy = Policy()
    mine, others = waiting(policy, "voice"), waiting(policy, "other")
    forecast = Forecast(policy, lambda job: 1.0, lambda job: 1.0)
    held = Occupied(held_s=4.0, holders={"voice": 0})
    elsewhere = Occupied(held_s=4.0, holders={"phone": 0})
    assert forecast.of(others, 0, elsewhere).begins_in_s >= 4.0
    assert forecast.of(mine, 0, held).begins_in_s == 0.0
    assert forecast.all_done_s(elsewhere) == 6.0
    question = waiting(policy, "phone", INTERACTIVE)
    assert forecast.of(question, 0, elsewhere).begins_in_s == 0.0
    assert forecast.of(others, 0, elsewhere).begins_in_s < 4.0  # the question ends the hold


def test_a_trace_with_holds_is_played_again_with_the_same_decisions(waiting, make_job):
    lines = []
    policy = Policy(note=recorder(lines.append))
    waiting(policy)
    warm = waiting(policy, "voice", INTERACTIVE, request=prefix_of(make_job))
    assert policy.choose(0) is warm
    policy.claim(warm, 1.0, 0)
    policy.promise_hold(warm)
    policy.begin(warm, 0)
    policy.choose(1)
    waiting(policy, "phone", INTERACTIVE)
    policy.should_preempt(0, 1)
    policy.settle(warm, 1.0, 2)
    policy.hold("voice", 6, 2, 2)
    policy.choose(3)
    assert replay(lines, Rules()) == []
    assert replay(lines, Rules(hold_share=0)) == []  # the question of the phone was chosen in any case
    broken = [line for line in lines if not line.startswith('["prefix"')]
    assert len(replay(broken, Rules())) == 1


# bounds


def test_holds_that_keep_others_waiting_are_a_small_part_of_the_time(waiting):
    policy = Policy(Rules(shares=(0, 0, 0)))
    waiting(policy)
    now = 0.0
    while now < 600:
        granted = policy.hold("voice", 6, now, now)
        assert granted <= 6
        now += max(granted, 1.0)
        policy.choose(now)
    assert policy.holds.held_s <= 0.1 * 600 + 1e-6
    assert policy.holds.held_s > 30


def test_who_keeps_others_waiting_pays_for_it(waiting):
    policy = Policy()
    line = policy.waiting.lines[INTERACTIVE]
    policy.hold("voice", 6, 0, 0)
    policy.choose(2)
    assert line.used_s("voice") == 0
    waiting(policy)
    policy.choose(3)
    policy.choose(7)
    assert line.used_s("voice") == pytest.approx(3)  # from when somebody was seen waiting


def test_holds_that_keep_nobody_waiting_are_free(make_job):
    policy = Policy()
    for turn in range(100):
        assert policy.hold("voice", 6, turn * 6, turn * 6) == 6


def test_a_hold_is_not_counted_while_something_runs(waiting):
    policy = Policy()
    policy.hold("voice", 6, 0, 0)
    question = waiting(policy, "voice", INTERACTIVE)
    policy.choose(2)
    policy.claim(question, 1.0, 2)
    policy.begin(question, 2)
    policy.advance(5)
    assert policy.holds.held_s == pytest.approx(2)


def test_a_hold_of_nothing_ends_ones_own_and_nobody_elses():
    holds = Holds()
    holds.hold("voice", 6, 0, 0)
    holds.hold("phone", 0, 1, 1)
    assert holds.holder == "voice"
    holds.hold("voice", 0, 1, 1)
    assert holds.holder is None


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 30), st.floats(0, 60), st.booleans()), max_size=60
    )
)
def test_in_no_window_is_more_held_than_the_share(wishes):
    holds, now, held = Holds(share=0.2, window_s=100), 0.0, []
    for client, wished_s, pause_s, ends in wishes:
        holds.advance(now, waits=True, busy=False)
        granted_s = holds.grant_s(client, wished_s, now)
        holds.hold(client, granted_s, now, now)
        if ends:
            holds.advance(now + granted_s / 2, waits=True, busy=False)
            holds.end()
            granted_s /= 2
        if granted_s:
            held.append((client, now, granted_s))
        now += granted_s + pause_s
    for client, begin, _ in held:
        within = [(who, s) for who, at, s in held if begin <= at and at + s <= begin + 100]
        assert sum(s for _, s in within) <= 0.2 * 100 + 1e-6
        assert sum(s for who, s in within if who == client) <= 0.1 * 100 + 1e-6


def test_another_share_bounds_the_accounts_there_are_and_those_to_come(waiting):
    policy = Policy()
    waiting(policy)
    assert policy.hold("voice", 10, 0, 0) == 10
    policy.holds.end()
    policy.holds.limit(0.01)  # at once 3 s of any 600 for all, 1.5 for each
    assert policy.hold("voice", 10, 20, 20) == pytest.approx(1.5)
    policy.holds.end()
    assert policy.hold("other", 10, 21, 21) == pytest.approx(1.5)
    policy.holds.end()
    policy.holds.limit(0)
    assert policy.hold("voice", 10, 30, 30) == 0
