"""The promise of `prompts.py`: a template file is rendered apart, once for each job; our own at once."""

import asyncio

import pytest
from live_jobs import make_job, request
from live_slot import in_loop

from rkllm_mqtt.core.tokens import TokenEstimator
from rkllm_mqtt.prompts import Prompts
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.fence import open_renderer
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.windows import Windows

WINDOWS = Windows(lambda _: 4_096, {"plain": TokenEstimator()}.__getitem__, {})


def question(job):
    return {"messages": job.request.messages, "replays": {}}


@pytest.fixture
def made_apart(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text(
        "{{ raise_exception('no') if messages[0].content == 'bad' }}You said {{ messages[0].content }}"
    )
    prompts = Prompts({"plain": open_renderer(str(path), thinking="none", system=None, limit_s=20)}, WINDOWS)
    yield prompts
    prompts.close()


async def make_ahead(prompts, job):
    made = asyncio.Event()
    assert not prompts.ready(job, question, made.set)
    assert not prompts.ready(job, question, made.set)
    await made.wait()
    assert prompts.ready(job, question, made.set)


@in_loop
async def test_a_prompt_is_made_apart_and_taken_once(made_apart):
    job = make_job(request("hello"))
    await make_ahead(made_apart, job)
    assert made_apart.make(job, question).rendered.text == "You said hello"
    assert not made_apart.ready(job, question, lambda: None)  # it may run again, with another conversation


@in_loop
async def test_a_refusal_is_told_when_the_prompt_is_taken(made_apart):
    job = make_job(request("bad"))
    await make_ahead(made_apart, job)
    with pytest.raises(RenderError, match="no"):
        made_apart.make(job, question)


@in_loop
async def test_few_prompts_are_kept_and_a_forgotten_one_is_made_when_it_is_needed(made_apart):
    jobs = [make_job(request(f"t{n}")) for n in range(9)]
    for job in jobs:
        await make_ahead(made_apart, job)
    assert len(made_apart._ahead) <= 5
    for job in (jobs[-1], jobs[0], make_job(request("never asked for ahead"))):
        assert (
            made_apart.make(job, question).rendered.text == f"You said {job.request.messages[0]['content']}"
        )


def test_our_own_templates_need_nothing_made_ahead():
    prompts = Prompts({"plain": Renderer("chatml")}, WINDOWS)
    job = make_job(request("hi"))
    assert prompts.ready(job, question, lambda: None)
    assert "hi" in prompts.make(job, question).rendered.text
    prompts.close()
