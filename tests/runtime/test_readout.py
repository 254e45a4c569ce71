"""The promise of `runtime/readout.py`: numbers of the model, for tokens that are certain, or a reason."""

import math

import pytest
from msgspec import convert

from rkllm_mqtt.readouts import echo_of
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.runtime.order import OptionOrder, ReadoutOrder

CHATML = Renderer("chatml")


def prompt_of(text):
    return CHATML.render([{"role": "user", "content": text}]).text


def weighed(worker, question, *options, **fields):
    """Return the `done` frame of an evaluation."""
    orders = [OptionOrder(text, None, CHATML.render(echo_of(text)).text) for text in options]
    order = worker.order(prompt_of(question), readout=ReadoutOrder(options=tuple(orders)), **fields)
    worker.send(order)
    return worker.until("done", order["gen"])[-1]


def shares(done):
    assert done["reason"] == "stop", done
    return [share for _, share in done["scores"]]


@pytest.mark.parametrize("version", ["1.2.0", "1.2.3", "1.3.1"])
def test_the_option_that_the_model_would_answer_is_the_likeliest(shared_worker, version):
    worker = shared_worker(version=version)
    done = weighed(worker, "answer with: No", "Yes", "No")
    assert shares(done)[1] > 0.99
    assert shares(weighed(worker, "answer with: Yes", "Yes", "No"))[0] > 0.99
    assert sum(shares(done)) == pytest.approx(1)
    logs = [log for log, _ in done["scores"]]
    assert math.exp(logs[1]) < 1, "of the whole vocabulary, not of the options"
    assert logs[1] - logs[0] == pytest.approx(math.log(shares(done)[1] / shares(done)[0]))


@pytest.mark.parametrize("options", [("certainly", "impossible"), ("yes, indeed", "no"), ("日本語", "grüße")])
def test_an_option_may_be_several_tokens(shared_worker, options):
    for place, option in enumerate(options):
        done = weighed(shared_worker(), f"answer with: {option}", *options)
        assert shares(done)[place] > 0.9, done


@pytest.mark.parametrize(
    "options", [("Yes", "No"), ("certainly", "impossible"), ("yes, indeed", "yes, maybe", "no")]
)
def test_rows_of_what_is_cached_may_be_missing(worker, shared_worker, model, options):
    forgetful = worker(model("modes_reuse: yes")).ready()
    for option in (options[-1], options[0], options[0]):
        asked = f"answer with: {option}"
        expected = weighed(shared_worker(), asked, *options)["scores"]
        found = weighed(forgetful, asked, *options)["scores"]
        assert [share for _, share in found] == pytest.approx([share for _, share in expected], rel=0.1)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_what_is_cached_of_a_text_is_not_missing_in_its_vector(worker, shared_worker, model, pooling):
    texts = ("the kitchen lamp", "the kitchen lamp is on", "the kitchen lamp")
    forgetful = worker(model("modes_reuse: yes")).ready()
    assert vectors(forgetful, *texts, pooling=pooling) == vectors(shared_worker(), *texts, pooling=pooling)


def test_a_model_that_does_not_repeat_an_option_gives_a_reason_and_stays_usable(worker, model):
    stubborn = worker(model('when "Repeat after me": reply "I would rather not."')).ready()
    done = weighed(stubborn, "answer with: No", "Yes", "No")
    assert (done["reason"], "does not repeat" in done["message"]) == ("unsupported", True)
    assert stubborn.ask("say: still here").text == "still here"


def test_ids_of_the_models_own_tokenizer_need_no_repetition(worker, model):
    stubborn = worker(model('when "Repeat after me": reply "I would rather not."')).ready()
    options = (OptionOrder("Yes", (11,)), OptionOrder("No", (12,)))
    order = stubborn.order(prompt_of("hello"), readout=ReadoutOrder(options=options))
    stubborn.send(order)
    assert sum(shares(stubborn.until("done", order["gen"])[-1])) == pytest.approx(1)


def test_an_id_beyond_the_vocabulary_is_told(shared_worker):
    options = (OptionOrder("Yes", (11,)), OptionOrder("No", (10**7,)))
    worker = shared_worker()
    order = worker.order(prompt_of("hello"), readout=ReadoutOrder(options=options))
    worker.send(order)
    done = worker.until("done", order["gen"])[-1]
    assert done["reason"] == "unsupported"
    assert "none of them" in done["message"]


def test_a_runtime_without_logits_says_so(shared_worker):
    done = weighed(shared_worker(version="1.1.4"), "answer with: No", "Yes", "No")
    assert done["reason"] == "unsupported"
    assert "logits" in done["message"]


def vectors(worker, *texts, pooling="mean"):
    order = worker.order(texts[0], readout=ReadoutOrder(texts=texts, pooling=pooling))
    worker.send(order)
    done = worker.until("done", order["gen"])[-1]
    assert done["reason"] == "stop", done
    return done["vectors"]


@pytest.mark.parametrize("version", ["1.1.4", "1.3.1"])
@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_each_text_becomes_one_vector_of_length_one(shared_worker, version, pooling):
    found = vectors(
        shared_worker(version=version), "the kitchen", "the kitchen", "a cold day", pooling=pooling
    )
    assert len(found) == 3
    assert all(math.hypot(*vector) == pytest.approx(1, abs=1e-5) for vector in found)
    assert found[0] == found[1]
    assert found[0] != found[2] or pooling == "cls"


def test_the_poolings_differ(shared_worker):
    found = [
        tuple(vectors(shared_worker(), "a cold day", pooling=pooling)[0])
        for pooling in ("mean", "last", "cls")
    ]
    assert len(set(found)) == 3


def test_a_run_that_was_ended_before_it_began_computes_nothing(shared_worker):
    worker = shared_worker()
    order = worker.order("x", readout=ReadoutOrder(texts=("x",)))
    story = worker.order("story 3000 tokens")
    worker.send(story, order, {"op": "revoke", "gen": order["gen"]}, {"op": "abort", "gen": story["gen"]})
    ends = {}
    while len(ends) < 2:
        frame = worker.next()
        if frame["t"] == "done":
            ends[frame["gen"]] = frame
    assert ends[order["gen"]]["reason"] == "revoked"
    assert "vectors" not in ends[order["gen"]]


@pytest.mark.parametrize("op", ["abort", "give_way"])
def test_a_run_is_ended_between_two_texts(worker, model, op):
    slow = worker(model("floor_ms: 20")).ready()
    order = slow.order("x", readout=ReadoutOrder(texts=tuple(f"text {n}" for n in range(64))))
    slow.send(order)
    slow.until("resumed", order["gen"])
    slow.send({"op": op, "gen": order["gen"]})
    frames = slow.until("done", order["gen"])
    assert frames[-1]["reason"] == "aborted"
    assert len(frames) < 60, "it did not go through all of them"
    assert slow.ask("say: next").text == "next"


def test_an_order_is_whole_in_its_frame(shared_worker):
    readout = ReadoutOrder(options=(OptionOrder("a", (1,)), OptionOrder("b", None, "echo")), texts=("t",))
    told = shared_worker().order("x", readout=readout)["readout"]
    assert convert(told, ReadoutOrder) == readout
