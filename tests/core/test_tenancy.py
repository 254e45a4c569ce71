"""The promise of `core/tenancy.py`: a load must pay, the voice keeps its model, nobody starves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rkllm_mqtt.core.forecast import Forecast, Occupied
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.core.tenancy import Terms
from rkllm_mqtt.core.trace import recorder, replay

INTERACTIVE, NORMAL, BACKGROUND = Priority
LOAD_S = 4.0
MODELS = ("talk", "code", "draw")


class House:
    """A slot whose models take time to load, and a clock."""

    def __init__(self, make_job, pinned=None):
        self.make_job, self.now, self.seq = make_job, 0.0, 0
        self.policy, self.lines = Policy(), []
        self.policy.note = recorder(self.lines.append)
        for model in MODELS:
            self.policy.learn_load(model, LOAD_S)
        self.policy.pin(pinned, 60.0)
        self.policy.move_in(MODELS[0])
        self.loads, self.ran, self.idle_s = 0, [], 0.0

    def ask(self, model, priority=NORMAL, client="kitchen"):
        self.seq += 1
        job = self.make_job(self.seq, priority, client, queued_at=self.now, cost_s=1.0)
        job.request = replace(job.request, model=model)
        self.policy.add(job)
        return job

    def waiting(self, model):
        """Return how many jobs of a model wait."""
        return sum(job.request.model == model for job in self.policy.waiting)

    def step(self, seconds=1.0):
        """Let the next job run, its model loaded before if need be; or let time pass until one may."""
        policy = self.policy
        job = policy.choose(self.now)
        if job is None:
            opens_at = policy.tenancy.opens_at
            self.idle_s += 0 if opens_at is None else opens_at - self.now
            self.now = self.now + 1.0 if opens_at is None else opens_at
            return None
        if job.request.model != policy.tenancy.model:
            policy.move_in(job.request.model, job)
            self.loads += 1
            self.now += LOAD_S
            job = policy.choose(self.now)
            assert job.request.model == policy.tenancy.model
        policy.claim(job, job.cost_s, self.now)
        policy.begin(job, self.now)
        self.now += seconds
        policy.settle(job, seconds, self.now)
        self.ran.append(job)
        return job


@pytest.fixture
def house(make_job):
    return House(make_job)


@pytest.fixture
def pinned_house(make_job):
    return House(make_job, pinned="talk")


def test_requests_for_two_models_in_turn_cost_one_load_and_not_one_each(house):
    for _ in range(4):
        house.ask("talk", client="hall")
        house.ask("code", client="attic")
    while len(house.policy.waiting):
        house.step()
    assert [job.request.model for job in house.ran] == ["talk"] * 4 + ["code"] * 4
    assert house.loads == 1


def test_a_client_that_changes_its_model_with_each_request_is_grouped_too(house):
    for number in range(6):
        house.ask(MODELS[number % 2])
    while len(house.policy.waiting):
        house.step()
    assert [job.seq for job in house.ran] == [1, 3, 5, 2, 4, 6]


def test_a_model_that_costs_nothing_to_load_changes_no_order(make_job):
    house = House(make_job)
    house.policy.learn_load("code", 0.0)
    house.policy.learn_load("talk", 0.0)
    for number in range(6):
        house.ask(MODELS[number % 2])
    while len(house.policy.waiting):
        house.step()
    assert [job.seq for job in house.ran] == [1, 2, 3, 4, 5, 6]


def test_two_models_that_are_always_wanted_share_the_slot_and_loads_take_a_quarter(house):
    for _ in range(400):
        while min(house.waiting(model) for model in MODELS[:2]) < 3:
            for model in MODELS[:2]:
                house.ask(model, client=model)
        house.step()
    used = {model: sum(job.request.model == model for job in house.ran) for model in MODELS[:2]}
    assert 0.5 < used["talk"] / used["code"] < 2
    assert house.loads * LOAD_S <= 0.26 * house.now


def test_an_interactive_job_waits_for_one_load_at_most_before_its_own_load(house):
    for _ in range(50):
        house.ask("talk", INTERACTIVE, "hall")
    voice = house.ask("code", INTERACTIVE, "satellite")
    while voice not in house.ran:
        house.step()
    assert house.now <= LOAD_S + 1 + LOAD_S + 1


def test_interactive_work_of_another_model_does_not_wait_for_lower_classes(house):
    for _ in range(50):
        house.ask("talk", NORMAL)
    voice = house.ask("code", INTERACTIVE, "satellite")
    assert house.step() is voice


def test_lower_work_of_another_model_is_no_reason_to_load(house):
    house.ask("code", BACKGROUND, "attic")
    for _ in range(3):
        house.ask("talk", NORMAL)
    assert [house.step().request.model for _ in range(4)] == ["talk"] * 3 + ["code"]


def test_who_brought_a_model_pays_for_its_load(house):
    first = house.ask("code", client="attic")
    house.step()
    line = house.policy.waiting.lines[NORMAL]
    assert (first.load_s, line.used_s("attic")) == (0.0, 1.0 + LOAD_S)


def test_nothing_is_passed_while_the_model_is_not_known(make_job):
    policy = Policy()
    for seq, model in enumerate(("talk", "code", "talk"), 1):
        job = make_job(seq)
        job.request = replace(job.request, model=model)
        policy.add(job)
    assert policy.choose(0.0).seq == 1


# the pinned model


def test_another_model_is_not_loaded_before_the_voice_was_silent_for_a_minute(pinned_house):
    house = pinned_house
    house.ask("talk", INTERACTIVE)
    spoken = house.step()
    other = house.ask("code")
    assert house.step() is None
    assert house.now == 1.0 + 60.0
    assert (house.step(), house.ran) == (other, [spoken, other])


def test_meanwhile_the_slot_works_for_whoever_needs_the_pinned_model(pinned_house):
    house = pinned_house
    house.ask("talk", INTERACTIVE)
    house.step()
    house.ask("code", NORMAL, "attic")
    low = house.ask("talk", BACKGROUND, "cellar")
    assert house.step() is low
    assert house.idle_s == 0


def test_a_voice_brings_the_pinned_model_back_before_all_others(pinned_house):
    house = pinned_house
    for _ in range(5):
        house.ask("code", INTERACTIVE, "attic")
    house.step()
    voice = house.ask("talk", INTERACTIVE, "satellite")
    assert house.step() is voice
    assert house.loads == 2


def test_while_nobody_has_spoken_the_pinned_model_is_like_any_other(pinned_house):
    other = pinned_house.ask("code")
    assert pinned_house.step() is other


def test_one_who_is_spoken_with_without_end_gives_way_after_half_an_hour(pinned_house):
    house = pinned_house
    patient = house.ask("code", BACKGROUND, "attic")
    while patient not in house.ran:
        house.ask("talk", INTERACTIVE)
        house.step(seconds=20.0)
        assert house.now < 3000
    assert house.now >= 1800


# no job waits for ever


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(MODELS), st.sampled_from(Priority), st.sampled_from(["hall", "attic", "den"])
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([None, "talk"]),
)
def test_all_is_worked_off_with_few_loads_and_each_decision_can_be_played_again(make_job, asked, pinned):
    house = House(make_job, pinned)
    for model, priority, client in asked:
        house.ask(model, priority, client)
    steps = 0
    while len(house.policy.waiting):
        house.step()
        steps += 1
        assert steps < 3 * len(asked) + 10
    assert {job.seq for job in house.ran} == set(range(1, len(asked) + 1))
    # A class is left for a higher one, and a stint ends: never more loads than three for each class.
    assert house.loads <= 3 * 3 + len(asked) * 1.0 / (3 * LOAD_S) + 1
    assert replay(house.lines, house.policy.rules) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.sampled_from(MODELS[1:]))
def test_a_job_of_another_model_waits_a_stint_and_a_load_whatever_comes(make_job, crowd, wanted):
    """Bound: the stint of each model whose turn comes before, its load, and one job each."""
    house = House(make_job)
    terms = Terms()
    patient = house.ask(wanted, client="patient")
    while patient not in house.ran:
        for _ in range(crowd[house.seq % len(crowd)]):
            house.ask("talk", client=f"new-{house.seq}")
        house.step()
    assert house.now <= terms.stint_loads * LOAD_S + 1 + LOAD_S + 1


def test_an_outlook_counts_the_load_once_for_all_jobs_of_a_model(house):
    near, far, also = house.ask("talk"), house.ask("code", client="a"), house.ask("code", client="b")
    forecast = Forecast(house.policy, lambda job: job.cost_s, lambda _: 1.0)
    told = dict(forecast.play(0.0, Occupied()))
    assert [told[job] for job in (near, far, also)] == [0.0, 1.0 + LOAD_S, 2.0 + LOAD_S]
