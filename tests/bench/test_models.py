"""The bench knows every answer beforehand, and how many tokens it takes."""

import pytest

import rkllmrt
from bench import models
from rkllmrt import simulator


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = models.instant(tmp_path_factory.mktemp("model"))
    library = rkllmrt.open_library(simulator.build())
    with rkllmrt.Model(library, rkllmrt.ModelParams(model_path=file, max_context_len=16_384)) as model:
        model.load()
        model.raw_chat_template()
        yield model


@pytest.mark.parametrize("question", [models.say(0), models.say(987, 3), models.say(5, 1), models.count(321)])
def test_the_simulator_answers_as_foreseen(model, question):
    pieces = []
    model.generate(
        rkllmrt.PromptInput(question.prompt), on_token=lambda piece, _: pieces.append(piece) and None
    )
    assert b"".join(piece for piece in pieces if piece).decode() == question.answer
    assert len([piece for piece in pieces if piece]) == question.tokens


def test_questions_of_a_crowd_are_all_different():
    assert len({models.say(n).prompt for n in range(1000)}) == 1000


@pytest.mark.parametrize("write", [models.origin, models.brief, models.crashing])
def test_the_models_load(tmp_path, write):
    library = rkllmrt.open_library(simulator.build())
    with rkllmrt.Model(library, rkllmrt.ModelParams(model_path=write(tmp_path))) as model:
        model.load()
        assert model.generate(rkllmrt.PromptInput("hi")).tokens > 1


@pytest.mark.parametrize("profile", [models.CACHED_PREFIX, *models.BOARDS], ids=lambda board: board.profile)
def test_the_arithmetic_of_a_profile_is_the_simulators(profile, tmp_path, monkeypatch):
    monkeypatch.setenv("RKLLM_SIM_CLOCK", "virtual")
    file = profile.write(tmp_path, "jitter: 0")
    with rkllmrt.Model(
        rkllmrt.open_library(simulator.build()), rkllmrt.ModelParams(model_path=file, max_context_len=4096)
    ) as model:
        model.load()
        model.raw_chat_template()
        once = rkllmrt.RunParams(max_new_tokens=1)
        perf = model.generate(rkllmrt.PromptInput("The lamp is on. " * 100), once).perf
        again = model.generate(rkllmrt.PromptInput("The lamp is on. " * 150), once).perf
    assert perf.prefill_time_ms == pytest.approx(profile.first_ms(perf.prefill_tokens), rel=0.02)
    expected = profile.first_ms(again.prefill_tokens, perf.prefill_tokens)
    assert again.prefill_time_ms == pytest.approx(expected, rel=0.02)
