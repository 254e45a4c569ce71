"""The promise of `runtime/generation.py`: bytes of tokens become whole text that ends where it should."""

import threading
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from rkllm_mqtt.runtime.generation import Generation
from rkllm_mqtt.runtime.order import CallOrder, RunOrder

OLDEST, BEFORE_LIMITS, NEWEST = "1.1.4", "1.2.3", "1.3.1"
every_kind = pytest.mark.parametrize("version", [OLDEST, BEFORE_LIMITS, NEWEST])


def test_a_run_begins_tells_its_tokens_and_ends(shared_worker):
    worker = shared_worker()
    order = worker.order("say: one two three")
    worker.send(order)
    started, *tokens, done = worker.until("done")
    assert started == {"t": "started", "gen": order["gen"]}
    assert {frame["t"] for frame in tokens} == {"tokens"}
    assert "".join("".join(frame["d"]) for frame in tokens) == "one two three"
    assert (done["reason"], done["gen"], done["tokens"]) == ("stop", order["gen"], tokens[-1]["n"])


def test_the_counts_and_clocks_of_a_run_agree_with_each_other(shared_worker):
    done = shared_worker().ask("count to 30").done
    assert done["tokens"] >= 30
    assert 0 <= done["prefill_ms"] <= done["run_ms"]
    assert done["prefill_ms"] + done["generate_ms"] == pytest.approx(done["run_ms"])
    assert done["computed_tokens"] > 0
    assert done["memory_mb"] > 1


def test_a_prompt_that_is_still_cached_is_told_as_not_computed(shared_worker):
    worker = shared_worker()
    first = worker.ask("say: the very same").done
    again = worker.ask("say: the very same").done
    assert (first["computed_tokens"] > 0, again["computed_tokens"]) == (True, 0)


@every_kind
def test_characters_cut_by_tokens_are_shown_whole(shared_worker, version):
    told = shared_worker("spoken.sim", version).ask("characters", stops=("<|im_end|>",))
    assert told.text == "grüße 😀 日本語 end"
    assert told.tokens >= len(told.text.split())


def test_bytes_that_are_no_characters_are_replaced(shared_worker):
    told = shared_worker("spoken.sim").ask("broken")
    assert "\ufffd" in told.text
    assert told.reason == "stop"


@every_kind
def test_a_stop_string_ends_the_answer_and_no_part_of_it_is_shown(shared_worker, version):
    told = shared_worker("spoken.sim", version).ask("three", text_stops=("STOP",))
    assert (told.text, told.reason) == ("one ", "stop")


def test_the_marker_of_the_family_ends_the_answer_wherever_tokens_cut_it(shared_worker):
    told = shared_worker("spoken.sim").ask("family", stops=("<|im_end|>",))
    assert (told.text, told.reason) == ("before", "stop")


def test_the_beginning_of_a_stop_string_at_the_end_of_the_answer_is_shown(shared_worker):
    told = shared_worker("spoken.sim").ask("last words", text_stops=("STOP",), stops=("<|im_end|>",))
    assert told.text == "thoughts end here STO"


def test_special_tokens_are_taken_out_of_the_answer(shared_worker):
    told = shared_worker("spoken.sim").ask(
        "drops", specials=("<|endoftext|>", "<|im_start|>"), stops=("<|im_end|>",)
    )
    assert told.text == "abc"


def test_thoughts_are_told_apart_and_the_senders_stop_strings_do_not_end_them(shared_worker):
    told = shared_worker("spoken.sim").ask("thinks", text_stops=("STOP",))
    assert (told.thinking, told.text) == ("first STOP then", "the answer ")
    assert told.reason == "stop"


def test_the_familys_marker_ends_also_the_thoughts(shared_worker):
    told = shared_worker("spoken.sim").ask("thinks", stops=("STOP",))
    assert (told.thinking, told.text) == ("first", "")


QUESTION = "<|im_start|>user\nponder this for a while please<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("version", [BEFORE_LIMITS, NEWEST])
def test_thoughts_that_take_too_long_are_closed_and_the_model_answers(worker, model, version):
    one = worker(model("thinking: yes"), version=version).ready()
    whole = one.ask(QUESTION, stops=("<|im_end|>",))
    short = one.ask(QUESTION, stops=("<|im_end|>",), thinking_tokens=5)
    assert whole.thinking.startswith(short.thinking)
    assert 0 < len(short.thinking) < len(whole.thinking)
    assert short.text == whole.text == "You said: ponder this for a while please"
    assert short.written == f"<think>\n{short.thinking}\n</think>\n\n{short.text}"
    assert short.tokens < whole.tokens
    assert [frame["t"] for frame in short.all].count("resumed") == 1


@pytest.mark.parametrize("version", [BEFORE_LIMITS, NEWEST])
def test_the_limit_of_tokens_counts_thoughts_and_answer_together(worker, model, version):
    one = worker(model("thinking: yes"), version=version).ready()
    told = one.ask(QUESTION, thinking_tokens=5, max_tokens=9)
    assert (told.tokens, told.reason) == (9, "length")
    assert told.text


def test_a_library_that_ends_between_thoughts_and_answer_is_made_to_go_on(worker, model):
    told = worker(model("thinking: yes", "stop_at_think_end: yes")).ready().ask(QUESTION)
    assert told.thinking.endswith("I will answer that.")
    assert told.text == "You said: ponder this for a while please"
    assert told.reason == "stop"


def test_thoughts_within_their_tokens_are_left_alone(worker, model):
    told = worker(model("thinking: yes")).ready().ask(QUESTION, thinking_tokens=500)
    assert "resumed" not in [frame["t"] for frame in told.all]
    assert told.thinking.endswith("I will answer that.")


def test_a_prompt_that_opens_the_thoughts_needs_no_marker_for_them(shared_worker):
    told = shared_worker().ask("say: deep</think>clear", opens_thinking=True)
    assert (told.thinking, told.text) == ("deep", "clear")


CALLS = CallOrder({"turn_on": {"properties": {"name": {}}}, "get_time": {}})


@every_kind
def test_calls_are_told_apart_from_text_and_the_senders_stop_strings_do_not_end_them(shared_worker, version):
    told = shared_worker("spoken.sim", version).ask(
        "calls", calls=CALLS, stops=("<|im_end|>",), text_stops=("lamp", "STOP")
    )
    assert told.text == "I will."
    assert told.calls == [
        {"name": "turn_on", "arguments": '{"name": "lamp"}'},
        {"name": "get_time", "arguments": "{}"},
    ]
    assert told.reason == "stop"


def test_what_the_model_wrote_is_told_where_it_is_not_what_was_shown(shared_worker):
    worker = shared_worker("spoken.sim")
    assert worker.ask("family", stops=("<|im_end|>",)).written is None
    calls = worker.ask("calls", calls=CALLS, stops=("<|im_end|>",)).written
    assert calls.startswith('I will.\n<tool_call>\n{"name": "turn_on"')
    assert calls.endswith("</tool_call>")
    thinks = worker.ask("thinks", stops=("<|im_end|>",)).written
    assert thinks == "<think>first STOP then</think>the answer STOP and more"
    assert worker.ask("drops", specials=("<|im_start|>",), stops=("<|endoftext|>",)).written is None


def test_without_tools_what_looks_like_a_call_is_text(shared_worker):
    told = shared_worker("spoken.sim").ask("calls")
    assert told.text.startswith('I will.\n<tool_call>\n{"name"')
    assert told.calls == []


def test_the_one_call_that_was_asked_for_ends_the_run_at_once(shared_worker):
    one = replace(CALLS, only_one=True)
    told = shared_worker("spoken.sim").ask("calls for ever", calls=one, max_tokens=4000)
    assert (told.calls, told.reason) == ([{"name": "turn_on", "arguments": '{"name": "lamp"}'}], "stop")
    assert told.tokens < 100


def test_a_call_that_the_limit_cuts_off_is_neither_made_nor_shown(shared_worker):
    told = shared_worker("spoken.sim").ask("calls", calls=CALLS, max_tokens=10)
    assert (told.text, told.calls, told.reason) == ("I will.", [], "length")


@every_kind
def test_a_model_that_the_runtime_never_stops_is_ended_by_its_familys_marker(worker, model, version):
    # Runtime 1.3.0 takes another end token from models of toolkit 1.2: the right one is text to it.
    file = model(
        "toolkit_version: 1.2.3", "eos_text: text", 'when "lamp": reply "The lamp is on.", fault endless'
    )
    told = worker(file, version=version).ready().ask("lamp", stops=("<|im_end|>",), max_tokens=4000)
    assert (told.text, told.reason) == ("The lamp is on.", "stop")
    assert told.tokens < 20


@every_kind
def test_the_limit_of_tokens_holds_on_every_release(shared_worker, version):
    told = shared_worker("plain.sim", version).ask("story 200 tokens", max_tokens=7)
    assert (told.tokens, told.reason) == (7, "length")


@every_kind
def test_an_endless_answer_ends_at_its_limit_on_every_release(shared_worker, version):
    told = shared_worker("spoken.sim", version).ask("endless", max_tokens=30)
    assert (told.tokens, told.reason) == (30, "length")


def test_a_model_that_repeats_itself_for_ever_is_ended(shared_worker):
    told = shared_worker("spoken.sim").ask("loop", max_tokens=4000)
    assert told.reason == "repetition"
    assert 512 <= told.tokens < 700


@pytest.mark.parametrize(("version", "takes"), [(NEWEST, True), (BEFORE_LIMITS, False)])
def test_sampling_of_one_run_is_used_where_the_runtime_can(shared_worker, version, takes):
    worker = shared_worker("plain.sim", version)
    told = worker.ask("show your parameters", sampling={"temperature": 0.25, "top_k": 7})
    assert ({"temperature=0.25", "top_k=7"} <= set(told.text.split())) is takes
    assert told.reason == "stop"


@pytest.mark.parametrize(("version", "marker"), [(BEFORE_LIMITS, "<|im_end|>"), (NEWEST, "<|im_end|>")])
def test_the_text_of_the_end_token_is_not_part_of_the_answer(shared_worker, version, marker):
    told = shared_worker("spoken.sim", version).ask("say: fine", stops=(marker,))
    assert told.text == "fine"


def test_a_prompt_longer_than_the_window_is_told_as_such_and_the_next_one_runs(shared_worker):
    worker = shared_worker(context_tokens=64)
    told = worker.ask("many words " * 200)
    assert (told.reason, told.done["message"]) == ("context", "the prompt does not fit 64 tokens")
    assert worker.ask("say: fine").text == "fine"


def test_a_refusal_without_reason_is_tried_once_more_with_an_empty_cache(worker, model):
    file = model('when "refuse": fault fail first 1 times')
    told = worker(file).ready().ask("refuse, then say: fine")
    assert (told.text, told.reason) == ("fine", "stop")


def test_a_refusal_after_an_abort_is_overcome(worker, model):
    one = worker(
        model("fail_after_abort: 1", 'when "endless": fault endless', "decode_ms_per_token: 2")
    ).ready()
    order = one.order("endless")
    one.send(order)
    one.until("tokens")
    one.send({"op": "abort", "gen": order["gen"]})
    assert one.until("done")[-1]["reason"] == "aborted"
    assert one.ask("say: fine").text == "fine"


def test_late_events_of_an_aborted_run_do_not_reach_the_next(worker, model):
    one = worker(model("late_events: yes", 'when "endless": fault endless', "decode_ms_per_token: 2")).ready()
    order = one.order("endless")
    one.send(order)
    one.until("tokens")
    one.send({"op": "abort", "gen": order["gen"]})
    one.until("done")
    told = one.ask("say: nothing else")
    assert (told.text, told.reason) == ("nothing else", "stop")


@pytest.mark.parametrize("fault", ["fail", "error in prefill", "error after 3 tokens"])
def test_a_handle_that_fails_is_not_used_again(worker, model, fault):
    one = worker(model(f'when "go wrong": fault {fault}')).ready()
    done = one.ask("go wrong").done
    assert (done["reason"], done["stuck"]) == ("error", True)
    assert done["message"]
    assert one.next() is None
    assert one.exit_status() == 4


def test_a_run_that_returns_without_an_end_is_over(worker, model):
    told = worker(model('always: fault no-finish, reply "it ends"')).ready().ask("hello")
    assert told.text == "it ends"
    assert told.reason == "stop"


def test_text_comes_while_the_run_goes_on(worker, model):
    one = worker(model("decode_ms_per_token: 2", 'when "endless": fault endless')).ready()
    one.send(one.order("endless", max_tokens=100_000))
    counts = [one.until("tokens")[-1]["n"] for _ in range(20)]
    assert counts == sorted(set(counts))
    assert counts[-1] < 1000


class SlowToAbort:
    """A model whose abort takes until the test lets it go; its run ends at once when it is aborted."""

    library = SimpleNamespace(
        capabilities=SimpleNamespace(per_run_max_new_tokens=True, per_run_sampling=True, thinking_switch=True)
    )

    def __init__(self):
        self.running, self.aborting, self.go_on = threading.Event(), threading.Event(), threading.Event()

    def generate(self, prompt, params, on_token):
        self.running.set()
        self.aborting.wait()
        return SimpleNamespace(tokens=0, perf=None, aborted=True)

    def abort(self):
        self.aborting.set()
        self.go_on.wait()


def test_a_run_is_not_over_while_its_abort_is_under_way():
    # Else the abort of one run could hit the next, which would end early as if it were complete.
    model, over = SlowToAbort(), threading.Event()
    generation = Generation(model, 64, RunOrder("hi", 10).frame(1), lambda frame: None)
    ends = []
    run = threading.Thread(target=lambda: (ends.append(generation.run()), over.set()))
    run.start()
    model.running.wait()
    abort = threading.Thread(target=generation.abort)
    abort.start()
    model.aborting.wait()
    ended_too_soon = over.wait(0.05)
    model.go_on.set()
    run.join()
    abort.join()
    assert not ended_too_soon
    assert ends[0]["reason"] == "aborted"
