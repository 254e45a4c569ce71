"""The promise of `core/forecast.py`: places and times are those of the policy, also far behind."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkllm_mqtt.core.forecast import Forecast, Occupied
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy, Rules

INTERACTIVE, NORMAL, BACKGROUND = Priority
CLIENTS = ("kitchen", "hall", "attic", "den")


def forecast_of(policy):
    return Forecast(
        policy, lambda job: job.cost_s, lambda job: 1.25
    )  # exact in binary, so that equal sums are equal


def really(policy, now, first_s=0.0):
    """Let the policy run everything; return when each job began."""
    began, start = {}, now
    now += first_s
    left = {}
    while (job := policy.choose(now)) is not None:
        began.setdefault(job.seq, now - start)
        cost = left.pop(job.seq, job.cost_s)
        policy.claim(job, cost, now)
        policy.begin(job, now)
        spent = cost
        if job.protected and len(policy.waiting.lines[INTERACTIVE]):
            spent = min(cost, 1.25)
        now += spent
        policy.settle(job, spent, now)
        if spent < cost:
            left[job.seq] = cost - spent
            policy.add(job)
    return began


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.sampled_from(Priority), st.sampled_from(CLIENTS), st.integers(1, 160)),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 80),
)
def test_every_job_begins_when_it_was_told_if_nobody_else_comes(make_job, wanted, left):
    policy = Policy()
    for seq, (priority, client, cost) in enumerate(wanted, 1):
        policy.add(make_job(seq, priority, client, cost_s=cost / 16, queued_at=0.0))
    policy.advance(0.0)
    told = list(forecast_of(policy).play(0.0, Occupied(left / 16)))
    assert sorted(job.seq for job, _ in told) == list(range(1, len(wanted) + 1))
    outlooks = {job.seq: forecast_of(policy).of(job, 0.0, Occupied(left / 16)) for job, _ in told}
    jobs = [job for job, _ in told]
    together = forecast_of(policy).of_all(jobs[::-1], 0.0, Occupied(left / 16))
    assert together == [outlooks[job.seq] for job in jobs[::-1]]
    began = really(policy, 0.0, left / 16)
    for place, (job, begins_s) in enumerate(told, 1):
        assert begins_s == pytest.approx(began[job.seq])
        assert outlooks[job.seq].place == place
        assert outlooks[job.seq].begins_in_s == pytest.approx(began[job.seq])


def test_a_staged_job_is_first_and_a_job_that_gives_way_comes_later(make_job):
    policy, staged, running = Policy(), make_job(1, cost_s=2.0), make_job(2, cost_s=50.0)
    voice = make_job(3, INTERACTIVE, cost_s=1.0)
    policy.add(voice)
    told = list(forecast_of(policy).play(0.0, Occupied(4.0, (staged,))))
    assert [(job.seq, s) for job, s in told] == [(1, 4.0), (3, 6.0)]
    slot = Occupied(4.0, (), running, 0.1)
    assert [(job.seq, s) for job, s in forecast_of(policy).play(0.0, slot)] == [(3, 0.1), (2, 1.1)]
    assert forecast_of(policy).of(voice, 0.0, Occupied(4.0, (staged,))).place == 2
    slot = Occupied(4.0, (), running, 0.1, (staged,))
    assert [(job.seq, s) for job, s in forecast_of(policy).play(0.0, slot)] == [(3, 0.1), (1, 1.1), (2, 3.1)]


def test_a_job_that_is_not_in_the_queue_is_told_its_place_behind_its_own(make_job):
    policy = Policy()
    for seq, client in enumerate(["hall", "hall", "attic"], 1):
        policy.add(make_job(seq, client=client, cost_s=2.0))
    new = make_job(9, client="hall", cost_s=2.0)
    outlook = forecast_of(policy).of(new, 0.0, Occupied(1.0), added=new)
    assert (outlook.place, outlook.begins_in_s) == (4, 7.0)
    stranger = make_job(10, client="den", cost_s=2.0)
    assert forecast_of(policy).of(stranger, 0.0, Occupied(1.0), added=stranger).place == 3
    assert len(policy.waiting) == 3


@pytest.mark.parametrize("clients", [1, 10, 500])
def test_far_behind_a_place_is_told_about_right(make_job, clients):
    policy, rng = Policy(Rules(passes=0)), random.Random(1)
    jobs = []
    for seq in range(1, 1501):
        jobs.append(
            make_job(seq, NORMAL, f"c-{rng.randrange(clients)}", cost_s=rng.uniform(1, 3), queued_at=1e9)
        )
        policy.add(jobs[-1])
    for seq in range(1501, 1551):
        policy.add(make_job(seq, INTERACTIVE, "voice", cost_s=1.0, queued_at=1e9))
    asked = {n: forecast_of(policy).of(jobs[n], 0.0, Occupied()) for n in (400, 800, 1499)}
    policy.reserves.shares = (0.0, 0.0, 0.0)
    began = really(policy, 0.0)
    order = sorted(began, key=began.get)
    for n, outlook in asked.items():
        assert outlook.begins_in_s == pytest.approx(began[jobs[n].seq], rel=0.15)
        assert outlook.place == pytest.approx(order.index(jobs[n].seq) + 1, rel=0.15)


def test_the_time_until_all_is_done_follows_what_is_known_now(make_job):
    policy = Policy()
    for seq in range(1, 11):
        policy.add(make_job(seq, cost_s=2.0))
    forecast = Forecast(policy, lambda job: 4.0, lambda job: 1.0)
    assert forecast.all_done_s(Occupied(1.0)) == pytest.approx(41.0)
