"""The promise of `runtime/batch.py`: each column reads as the single run it stands for, and ends alone."""

import pytest

PROMPTS = ("say: one two three", "count to 40", "emoji emoji", "story 60 tokens")


def chat(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def slow(model):
    """A model whose tokens come slowly enough to be interrupted."""
    return model("decode_ms_per_token: 2", name="slow.sim")


@pytest.mark.parametrize("version", ["1.2.3", "1.3.1"])
@pytest.mark.parametrize("wanted", [1, 3, 4])
def test_each_column_is_what_a_single_run_would_be(shared_worker, version, wanted):
    single, batch = shared_worker(version=version), shared_worker(version=version, n_batch=4)
    prompts = [chat(prompt) for prompt in PROMPTS[:wanted]]
    order = {"stops": ("<|im_end|>",), "text_stops": ("15",), "max_tokens": 50}
    alone = [single.ask(prompt, **order) for prompt in prompts]
    together = batch.ask_together(*prompts, **order)
    assert [(told.text, told.reason) for told in together] == [(told.text, told.reason) for told in alone]
    assert [frame["t"] for told in together for frame in told.all[:1]] == ["started"] * wanted
    assert {told.done["columns"] for told in together} == {wanted}
    assert together[-1].done["written"] == alone[-1].done["written"]


def test_the_shares_of_all_columns_are_the_time_of_the_batch(worker, slow):
    live = worker(slow, n_batch=4).ready()
    short, long = live.ask_together(chat("say: one"), chat("count to 40"))
    whole = long.done["prefill_ms"] + long.done["generate_ms"]
    assert short.done["run_ms"] < long.done["run_ms"]
    assert short.done["run_ms"] + long.done["run_ms"] == pytest.approx(whole, rel=0.02, abs=1)


def test_a_column_that_is_over_says_so_while_the_others_go_on(worker, slow):
    live = worker(slow, n_batch=2).ready()
    orders = [live.order(chat("say: one")), live.order(chat("count to 60"))]
    live.send({"op": "batch", "columns": orders})
    before = live.until("done", orders[0]["gen"])
    after = live.until("done", orders[1]["gen"])
    assert sum(frame["t"] == "tokens" for frame in after) > 20
    assert "done" not in {frame["t"] for frame in before[:-1]}


@pytest.mark.parametrize(("wish", "reason"), [("abort", "aborted"), ("give_way", "preempted")])
def test_a_column_that_is_ended_disturbs_nobody_and_is_silent(worker, slow, wish, reason):
    live = worker(slow, n_batch=3).ready()
    alone = live.ask_together(chat("count to 60"))[0]
    orders = [live.order(chat(prompt)) for prompt in ("story 900 tokens", "count to 60", "say: one")]
    ended = orders[0]["gen"]
    live.send({"op": "batch", "columns": orders})
    frames = live.until("tokens", ended)
    live.send({"op": wish, "gen": ended})
    frames += live.until("done", ended)
    assert frames[-1]["reason"] == reason
    frames += live.until("done", orders[1]["gen"])
    shown = [p for f in frames if f["t"] == "tokens" and f["gen"] == orders[1]["gen"] for p in f["d"]]
    assert "".join(shown) == alone.text
    own = [frame["t"] for frame in frames if frame["gen"] == ended]
    assert own[-1] == "done"
    assert own.count("done") == 1
    assert live.ask_together(chat("say: next"))[0].text == "next"


def test_a_batch_whose_columns_are_all_ended_leaves_the_library_at_once(worker, slow):
    live = worker(slow, n_batch=2).ready()
    # Would it go on, the next answer came after the patience of a test.
    orders = [live.order(chat("story 50000 tokens"), max_tokens=100_000) for _ in range(2)]
    live.send({"op": "batch", "columns": orders})
    live.until("tokens", orders[1]["gen"])
    live.send(*({"op": "abort", "gen": order["gen"]} for order in orders))
    assert live.ask_together(chat("say: next"))[0].text == "next"


def test_a_column_that_gave_way_goes_on_in_another_batch(worker, slow):
    live = worker(slow, n_batch=2).ready()
    whole = live.ask_together(chat("count to 40"))[0]
    order = live.order(chat("count to 40"))
    live.send({"op": "batch", "columns": [order]})
    frames = live.until("tokens")
    while frames[-1]["n"] < 10:
        frames += live.until("tokens")
    live.send({"op": "give_way", "gen": order["gen"]})
    frames += live.until("done")
    said = [frame for frame in frames if frame["t"] == "tokens"]
    raw = [piece for frame in said for piece in frame.get("r", frame["d"])]
    tokens = frames[-1]["tokens"]
    rest = live.ask_together(
        chat("count to 40") + "".join(raw).rstrip(), carried=tuple(raw), carried_tokens=tokens
    )[0]
    shown = "".join(piece for frame in said for piece in frame["d"])
    assert (shown + rest.text, rest.reason, rest.tokens) == (whole.text, whole.reason, whole.tokens)


def test_staged_columns_are_taken_back_one_by_one(worker, slow):
    live = worker(slow, n_batch=2).ready()
    first, second, third = (live.order(chat(prompt)) for prompt in ("count to 30", "say: two", "say: three"))
    live.send({"op": "batch", "columns": [first]}, {"op": "batch", "columns": [second, third]})
    live.until("tokens", first["gen"])
    live.send({"op": "revoke", "gen": second["gen"]})
    _, revoked, kept = live.told(first["gen"], second["gen"], third["gen"])
    assert (revoked.done["reason"], kept.text, kept.done["columns"]) == ("revoked", "three", 1)


def test_a_runtime_without_batches_says_so_and_what_helps(worker):
    live = worker(version="1.1.4", n_batch=2)
    live.send(live.load)
    failed = live.until("failed")[-1]
    assert "n_batch" in failed["message"]
    assert "n_batch: 1" in failed["hint"]
