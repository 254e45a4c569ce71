"""A run that gives way has lost nothing: the next one goes on behind its last token, and both read as one."""

import pytest

from rkllm_mqtt.runtime.order import ChunkOrder

ANSWERS = {
    "story 120 tokens": {},
    "count to 40": {},
    "say: one two  three\n\nfour STOP five": {"text_stops": ("STOP",)},
    "emoji " * 3: {},
}


@pytest.fixture(scope="session")
def slow(tmp_path_factory):
    """A model whose tokens come slowly enough to be interrupted, and whose prefill is long."""
    folder = tmp_path_factory.mktemp("slow")

    def make(**keys):
        lines = {"profile": "instant", "decode_ms_per_token": 2, **keys}
        file = folder / ("-".join(f"{key}-{value}" for key, value in lines.items()) + ".sim")
        file.write_text("rkllm-simulator 1\n" + "".join(f"{key}: {value}\n" for key, value in lines.items()))
        return file

    return make


def chat(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def interrupted(live, prompt, after, **order):
    """Run until so many tokens are there, give way, and return the frames."""
    asked = live.order(prompt, **order)
    live.send(asked)
    frames = []
    while not frames or frames[-1]["t"] != "done":
        frames.append(live.next())
        if frames[-1]["t"] == "tokens" and frames[-1]["n"] >= after:
            live.send({"op": "give_way", "gen": asked["gen"]})
            after = 10**9
    return frames


def raw_of(frames):
    return [piece for frame in frames if frame["t"] == "tokens" for piece in frame.get("r", frame["d"])]


def shown_in(frames):
    return "".join(p for f in frames if f["t"] == "tokens" for p in f["d"] if isinstance(p, str))


@pytest.mark.parametrize("prompt", ANSWERS)
@pytest.mark.parametrize("every", [1, 7])
def test_an_answer_in_many_runs_is_the_undisturbed_one(shared_worker, slow, prompt, every):
    live, order = shared_worker(slow()), ANSWERS[prompt]
    whole = live.ask(chat(prompt), **order)
    carried, shown, tokens, repeated = [], "", 0, 0
    for _ in range(400):
        behind = "".join(carried).rstrip()
        more = {"carried": tuple(carried), "carried_tokens": tokens}
        frames = interrupted(live, chat(prompt) + behind, tokens + every, **order, **more)
        done = frames[-1]
        carried += raw_of(frames)
        shown, tokens, repeated = shown + shown_in(frames), done["tokens"], repeated + done["repeated"]
        if done["reason"] != "preempted":
            break
        assert tokens >= every  # a token that was under way is kept
    assert (shown, done["reason"], tokens) == (whole.text, whole.reason, whole.tokens)
    assert repeated <= len(whole.text)


def test_the_limit_counts_what_was_made_before(shared_worker, slow):
    live = shared_worker(slow())
    whole = live.ask(chat("story 200 tokens"), max_tokens=30)
    first = interrupted(live, chat("story 200 tokens"), 10, max_tokens=30)
    carried, tokens = raw_of(first), first[-1]["tokens"]
    rest = live.ask(
        chat("story 200 tokens") + "".join(carried).rstrip(),
        max_tokens=30,
        carried=tuple(carried),
        carried_tokens=tokens,
    )
    assert (rest.reason, rest.tokens) == ("length", 30)
    assert shown_in(first) + rest.text == whole.text


def test_a_run_whose_next_token_is_its_last_by_the_limit_does_not_give_way(shared_worker, slow):
    live = shared_worker(slow(decode_ms_per_token=30))
    done = interrupted(live, chat("count to 40"), 9, max_tokens=10)[-1]
    assert (done["reason"], done["tokens"]) == ("length", 10)  # no run could make the rest: there is none


def test_a_loop_is_noticed_over_the_border_of_two_runs(worker, tmp_path):
    file = tmp_path / "loop.sim"
    file.write_text(
        "rkllm-simulator 1\nprofile: instant\ndecode_ms_per_token: 0.2\n"
        + 'always: reply "x", fault endless\n'
    )
    live = worker(file).ready()
    whole = live.ask(chat("go"), max_tokens=5000)
    assert whole.reason == "repetition"
    first = interrupted(live, chat("go"), 300, max_tokens=5000)
    carried, tokens = raw_of(first), first[-1]["tokens"]
    rest = live.ask(chat("go"), max_tokens=5000, carried=tuple(carried), carried_tokens=tokens)
    assert rest.reason == "repetition"
    assert rest.tokens < whole.tokens + 20


def test_a_run_that_was_over_before_it_could_give_way_has_ended_by_itself(shared_worker, slow):
    live = shared_worker(slow(decode_ms_per_token=30))
    frames = interrupted(live, chat("say: hello"), 1)
    while frames[-1]["reason"] == "preempted":  # give it its last token
        made = raw_of(frames)
        prompt = chat("say: hello") + "".join(made).rstrip()
        frames = interrupted(live, prompt, 1, carried=tuple(made), carried_tokens=len(made))
    assert frames[-1]["reason"] == "stop"


def test_a_run_that_has_not_begun_is_taken_back(worker, slow):
    live = worker(slow()).ready()
    first, second = live.order(chat("count to 100")), live.order(chat("count to 5"))
    live.send(first, second, {"op": "give_way", "gen": second["gen"]})
    assert live.until("done", second["gen"])[-1]["reason"] == "revoked"


CHUNKS = ChunkOrder(start=0, tokens=200, chars=1000)
LONG = chat("The window in the kitchen is open. " * 100 + "say: fine.")


def test_a_long_prompt_is_computed_in_chunks_each_on_the_one_before(worker, slow):
    live = worker(slow(prefill_ms_per_token=0.1)).ready()
    done = live.ask(LONG, chunks=CHUNKS).done
    assert done["reason"] == "stop"
    assert len(done["chunks"]) >= 3
    assert done["reuse"] is True
    computed = [tokens for tokens, _ in done["chunks"]]
    # The first was too long, because the length of a token was not known; the others are as wanted.
    assert computed[0] > 250
    assert all(150 < tokens < 250 for tokens in computed[1:])
    assert done["computed_tokens"] == pytest.approx(computed[0] / 1000 * len(LONG), rel=0.1)
    assert done["prefill_ms"] >= sum(ms for _, ms in done["chunks"])


def test_where_the_cache_does_not_help_no_third_chunk_is_tried(worker, slow):
    live = worker(slow(reuse="no")).ready()
    told = live.ask(LONG, chunks=CHUNKS)
    assert told.text == "fine."
    assert len(told.done["chunks"]) == 2
    assert told.done["reuse"] is False


def test_a_library_that_does_not_say_what_it_computed_gets_its_prompt_whole(worker, slow):
    live = worker(slow(), version="1.2.0").ready()
    told = live.ask(LONG, chunks=CHUNKS)
    assert told.text == "fine."
    assert told.done["chunks"] == []


def test_between_two_chunks_a_run_gives_way(worker, slow):
    live = worker(slow(prefill_ms_per_token=1)).ready()
    order, other = live.order(LONG, chunks=CHUNKS), live.order(chat("say: me first"))
    live.send(order)
    assert live.next()["t"] == "started"
    live.send(other, {"op": "give_way", "gen": order["gen"]})
    done = live.until("done", order["gen"])[-1]
    assert (done["reason"], done["tokens"]) == ("preempted", 0)
    assert len(done["chunks"]) <= 1
    assert live.until("done", other["gen"])[-1]["reason"] == "stop"
    again = live.ask(LONG, chunks=CHUNKS)
    assert again.text == "fine."
