"""The promise of `core/policy.py`: classes, shares, fair clients, bounded passes; a bad prompt ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy, Rules, is_expired
from rkllm_mqtt.core.verdict import GiveUp, Retry, after_slot_lost

INTERACTIVE, NORMAL, BACKGROUND = Priority
CLIENTS = ("kitchen", "hall", "attic")


@pytest.fixture
def policy_of(make_job):
    def make(*jobs, rules=None):
        policy = Policy(rules or Rules())
        for seq, (priority, client) in enumerate(jobs, 1):
            policy.add(make_job(seq, priority, client, cost_s=1.0))
        return policy

    return make


def serve(policy, count, *, seconds=1.0, now=0.0, saving=None):
    """Let so many jobs run one after the other; return them in order."""
    ran = []
    for _ in range(count):
        job = policy.choose(now, saving)
        policy.claim(job, job.cost_s, now)
        policy.begin(job, now)
        now += seconds
        policy.settle(job, seconds, now)
        ran.append(job)
    return ran


@pytest.mark.parametrize(
    ("priorities", "seq"),
    [
        ((NORMAL, NORMAL), 1),
        ((BACKGROUND, NORMAL, NORMAL), 2),
        ((NORMAL, BACKGROUND, INTERACTIVE, INTERACTIVE), 3),
        ((BACKGROUND,), 1),
    ],
)
def test_the_highest_class_runs_first_and_within_a_client_the_one_that_waited_longest(
    policy_of, priorities, seq
):
    assert policy_of(*((priority, "kitchen") for priority in priorities)).choose(0.0).seq == seq


def test_when_nothing_waits_nothing_is_chosen_and_choosing_takes_nothing_out(policy_of):
    assert policy_of().choose(0.0) is None
    policy = policy_of((NORMAL, "hall"))
    policy.choose(0.0)
    assert len(policy.waiting) == 1


def test_one_who_asks_much_waits_for_those_who_ask_little(policy_of, make_job):
    policy = policy_of(*((NORMAL, "greedy") for _ in range(1000)))
    serve(policy, 5)
    job = policy.choose(5.0)
    policy.claim(job, 1.0, 5.0)
    for seq in range(9):
        policy.add(make_job(2000 + seq, client=f"modest-{seq}", cost_s=1.0))
    policy.settle(job, 1.0, 6.0)
    assert [job.client for job in serve(policy, 10, now=6.0)] == [f"modest-{n}" for n in range(9)] + [
        "greedy"
    ]


@pytest.mark.parametrize("wrong", [0.1, 1.0, 10.0])
def test_newcomers_go_before_a_crowd_also_while_its_next_jobs_are_staged(policy_of, make_job, wrong):
    policy = policy_of(*((NORMAL, "greedy") for _ in range(1000)))
    running = policy.choose(0.0)
    policy.claim(running, wrong, 0.0)
    policy.begin(running, 0.0)
    staged = policy.choose(0.0)
    policy.claim(staged, wrong, 0.0)
    for now in range(1, 5):
        policy.settle(running, 1.0, float(now))
        third = policy.choose(float(now))
        policy.claim(third, wrong, float(now))  # the worker has room, and the second has not begun yet
        policy.begin(staged, float(now))
        running, staged = staged, third
    for seq in range(9):
        policy.add(make_job(2000 + seq, client=f"modest-{seq}", cost_s=wrong))
    assert policy.should_replace(staged, 4.5)
    policy.settle(staged, 0.0, 4.5)
    policy.add(staged)
    policy.settle(running, 1.0, 5.0)
    assert [job.client for job in serve(policy, 10, now=5.0)] == [f"modest-{n}" for n in range(9)] + [
        "greedy"
    ]


def test_a_client_that_comes_back_shares_with_those_who_stayed_and_has_saved_nothing(policy_of, make_job):
    policy = policy_of((NORMAL, "hall"), *((NORMAL, "kitchen") for _ in range(20)))
    serve(policy, 10)
    for seq in range(100, 110):
        policy.add(make_job(seq, client="hall", cost_s=1.0))
    ran = [job.client for job in serve(policy, 9, now=10.0)]
    assert ran[1:] == ["kitchen", "hall"] * 4


def test_a_client_pays_what_its_job_used_and_not_what_was_estimated(policy_of):
    policy = policy_of((NORMAL, "hall"), (NORMAL, "hall"), (NORMAL, "attic"), (NORMAL, "attic"))
    job = policy.choose(0.0)
    policy.claim(job, 50.0, 0.0)
    assert policy.choose(0.0).client == "attic"
    policy.settle(job, 0.5, 0.5)
    assert serve(policy, 1, seconds=9.0)[0].client == "attic"
    assert policy.choose(10.0).client == "hall"


def accounts(policy):
    line = policy.waiting.lines[NORMAL]
    return dict(line._idle), list(line.order), line.floor_s


def test_a_staged_job_gives_way_to_a_higher_class_and_to_a_client_that_used_less(policy_of, make_job):
    policy = policy_of((NORMAL, "hall"), (NORMAL, "hall"), (NORMAL, "hall"))
    running = policy.choose(0.0)
    policy.claim(running, 1.0, 0.0)
    policy.begin(running, 0.0)
    staged = policy.choose(0.0)
    policy.claim(staged, 1.0, 0.0)
    before = accounts(policy)
    assert not policy.should_replace(staged, 0.5)
    for other in (make_job(8, client="attic"), make_job(9, INTERACTIVE, "hall")):
        policy.add(other)
        assert policy.should_replace(staged, 0.5)
        policy.remove(other)
    policy.add(make_job(10, BACKGROUND, "attic"))
    assert not policy.should_replace(staged, 0.5)
    assert accounts(policy) == before


@given(st.floats(0.001, 1e4), st.floats(0.001, 1e4), st.floats(0.001, 1e4))
def test_a_staged_job_never_gives_way_to_an_equal_that_came_later(make_job, before, cost_s, other_s):
    policy = Policy()
    for seq, client in enumerate(CLIENTS, 1):
        policy.add(make_job(seq, client=client, cost_s=cost_s))
        policy.waiting.lines[NORMAL].charge(client, before)
    for now in (1.0, 2.0):
        staged = policy.choose(now)
        policy.claim(staged, cost_s, now)
        assert not policy.should_replace(staged, now)
        policy.begin(staged, now)
        policy.settle(staged, other_s, now)


# preemption


@pytest.mark.parametrize("running", Priority)
@pytest.mark.parametrize("comes", Priority)
def test_only_interactive_work_preempts_and_only_lower_work(policy_of, make_job, running, comes):
    policy = policy_of((running, "hall"))
    policy.begin(serve_none(policy), 0.0)
    assert not policy.should_preempt(0, 0.0)
    policy.add(make_job(9, comes))
    assert policy.should_preempt(0, 0.0) == (comes is INTERACTIVE and running is not INTERACTIVE)


def serve_none(policy):
    job = policy.choose(0.0)
    policy.claim(job, 1.0, 0.0)
    return job


@pytest.mark.parametrize(("length", "at_risk"), [(45.0, False), (60.0, True)])
def test_a_job_of_a_class_that_is_owed_goes_before_the_voice_and_keeps_the_slot_for_its_tokens(
    policy_of, length, at_risk
):
    policy = policy_of(
        (INTERACTIVE, "voice"), (INTERACTIVE, "voice"), (INTERACTIVE, "voice"), (NORMAL, "hall")
    )
    assert serve(policy, 1)[0].priority is INTERACTIVE
    voice = policy.choose(1.0)
    policy.claim(voice, 1.0, 1.0)
    policy.begin(voice, 1.0)
    policy.settle(voice, length - 1.0, length)
    job = policy.choose(length)
    assert job.priority is NORMAL
    policy.claim(job, 1.0, length)
    policy.begin(job, length)
    assert policy.reserves.owes(NORMAL)
    assert not policy.should_preempt(15, length + 1.0)
    assert policy.should_preempt(16, length + 1.0) == (not at_risk)
    assert policy.should_preempt(16, length + 20.0)
    policy.settle(job, 20.0, length + 20.0)
    assert not job.protected


def test_a_job_that_began_while_nothing_was_owed_gives_way_at_once(policy_of, make_job):
    policy = policy_of((BACKGROUND, "hall"))
    job = serve_none(policy)
    policy.begin(job, 0.0)
    policy.add(make_job(5, INTERACTIVE))
    assert policy.should_preempt(0, 1.0)


# cached prompts


def near(*clients, seconds=1.0):
    return lambda job: seconds if job.client in clients else 0.0


def test_a_cached_prompt_may_pass_twice_and_for_two_seconds(policy_of):
    order = [(NORMAL, "hall"), *((NORMAL, f"talk-{n}") for n in range(5))]
    policy = policy_of(*order)
    for job in policy.waiting:
        job.cost_s = 0.9
    talks = near(*(f"talk-{n}" for n in range(1, 5)))
    ran = [job.client for job in serve(policy, 6, seconds=0.9, saving=talks)]
    assert ran == ["talk-1", "talk-2", "hall", "talk-0", "talk-3", "talk-4"]


@pytest.mark.parametrize(
    ("cost_s", "saved_s", "first"), [(2.1, 1.0, "hall"), (1.9, 1.0, "talk"), (1.0, 0.05, "hall")]
)
def test_a_job_that_is_too_long_or_saves_too_little_passes_nobody(policy_of, cost_s, saved_s, first):
    policy = policy_of((NORMAL, "hall"), (NORMAL, "talk"))
    policy.waiting.lines[NORMAL].queues["talk"].jobs[0].cost_s = cost_s
    assert policy.choose(0.0, near("talk", seconds=saved_s)).client == first


def test_a_cached_prompt_passes_no_higher_class_and_nobody_where_it_may_not(policy_of):
    policy = policy_of((INTERACTIVE, "hall"), (NORMAL, "talk"))
    assert policy.choose(0.0, near("talk")).client == "hall"
    policy = policy_of((NORMAL, "hall"), (NORMAL, "talk"), rules=Rules(passes=0))
    assert policy.choose(0.0, near("talk")).client == "hall"


def test_few_prompts_are_compared_with_the_cache_however_many_wait(policy_of):
    policy = policy_of(*((NORMAL, f"c-{n}") for n in range(2000)))
    asked = []
    policy.choose(0.0, lambda job: asked.append(job) or 0.0)
    assert len(set(asked)) <= 64


# no job waits for ever


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 20))
def test_no_job_waits_for_ever_whatever_new_names_come(make_job, crowd, older):
    """Bound: after ten minutes at most 8 jobs of its class for each that was accepted before it."""
    policy, seq, now = Policy(), 1000, 0.0
    for n in range(older):
        policy.add(make_job(n + 1, client="old", queued_at=0.0, cost_s=1.0))
    victim = make_job(500, client="victim", queued_at=0.0, cost_s=1.0)
    policy.waiting.lines[NORMAL].charge("victim", 1e6)
    policy.add(victim)
    late = 0
    while victim in policy.waiting:
        for _ in range(crowd[seq % len(crowd)]):  # more come than are served, each with a new name
            seq += 1
            policy.add(make_job(seq, client=f"new-{seq}", queued_at=now, cost_s=5.0))
        serve(policy, 1, seconds=5.0, now=now)
        now += 5.0
        late += now > 600.0
        assert late <= 8 * (older + 1) + 8


# deadlines, lost slots


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
