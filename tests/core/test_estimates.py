"""The promise of `core/estimates.py`: slot time by prompt, cache and habits; a shared head saves prefill."""

import pytest
from msgspec.structs import replace

from rkllm_mqtt.core.carried import Carried
from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.estimates import Estimates, prompt_chars, rest_of, shared_chars
from rkllm_mqtt.core.pace import Pace


def chat(*contents, **fields):
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    messages = tuple({"role": role, "content": text} for role, text in zip(roles, contents, strict=False))
    return ChatRequest(**{"messages": messages, "model": "demo", "max_tokens": 100} | fields)


@pytest.fixture
def estimates():
    return Estimates({"demo": Pace()})


def test_a_longer_prompt_and_a_longer_answer_take_longer(make_job, estimates):
    short = make_job(1, request=chat("be brief", "hi"))
    long = make_job(2, request=chat("be brief", "hi" * 2000))
    talkative = make_job(3, request=chat("be brief", "hi", max_tokens=1000))
    for _ in range(16):
        estimates.habits.learn("kitchen", 1000, 900, 1.0)
        estimates.habits.learn("kitchen", 100, 50, 1.0)
    assert estimates.slot_s(short) < estimates.slot_s(long)
    assert estimates.slot_s(short) * 5 < estimates.slot_s(talkative)


def test_what_is_made_already_is_not_made_again(make_job, estimates):
    job = make_job(1, request=chat("be brief", "hi"))
    whole = estimates.slot_s(job)
    job.carried = Carried(tokens=60)
    assert estimates.slot_s(job) < whole


@pytest.mark.parametrize(
    ("expected", "made", "most", "rest"),
    [(50, 0, 100, 50), (50, 40, 100, 12), (50, 100, 100, 0), (50, 90, 95, 5)],
)
def test_an_answer_that_is_longer_than_expected_goes_on_for_a_while(expected, made, most, rest):
    assert rest_of(expected, made, most) == pytest.approx(rest)


def test_a_shared_beginning_saves_what_it_would_have_taken(make_job, estimates):
    long = "You are the assistant of a house with these devices: " * 40
    first = chat(long, "switch on the light")
    same, other = chat(long, "switch off the light"), chat("Translate.", "switch off the light")
    same, other = make_job(1, request=same), make_job(2, request=other)
    saved = estimates.saving_s(same, first)
    assert saved == pytest.approx(
        estimates.paces["demo"].rates.first_token_s(estimates.prompt_tokens(same)), rel=0.3
    )
    assert estimates.saving_s(other, first) < 0.1
    assert estimates.saving_s(same, chat(long, "x", model="other")) == 0.0


def test_the_tools_that_are_offered_are_a_part_of_the_prompt(make_job, estimates):
    bare, tool = (
        chat("Be brief.", "switch on the light"),
        {"function": {"name": "switch", "description": "x " * 500}},
    )
    offered = replace(bare, tools=(tool,))
    few, many = (estimates.prompt_tokens(make_job(1, request=request)) for request in (bare, offered))
    assert few < 40
    assert many > few + 100


def test_the_shared_beginning_ends_where_the_conversations_part():
    one, other = chat("s", "abcdef", "x", "same"), chat("s", "abcxyz", "x", "same")
    assert shared_chars(one, other) == 30 + 1 + 3
    assert shared_chars(one, one) == prompt_chars(one)
    assert prompt_chars(chat("s", None)) == 61


def test_the_hope_is_half_of_the_expectation_and_none_before_anything_is_learned(make_job, estimates):
    job = make_job(1)
    assert estimates.hope_s(100.0, job) is None
    assert not estimates.is_known("demo")
    estimates.paces["demo"].rates.runs = 3
    assert estimates.is_known("demo")
    assert 50 <= estimates.hope_s(100.0, job) < 51
