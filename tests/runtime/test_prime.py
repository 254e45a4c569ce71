"""A prime run computes a prompt for later, can be stopped between chunks, leaves a file or loads one."""

import pytest

from rkllm_mqtt.runtime.order import ChunkOrder

SYSTEM = "<|im_start|>system\n" + "The window in the kitchen is open. " * 100 + "<|im_end|>\n"
CHAT = SYSTEM + "<|im_start|>user\nsay: fine.<|im_end|>\n<|im_start|>assistant\n"
OTHER = (
    "<|im_start|>user\n"
    + "Something else altogether. " * 40
    + "say: other<|im_end|>\n<|im_start|>assistant\n"
)
CHUNKS = ChunkOrder(start=0, tokens=250, chars=800)


@pytest.fixture
def worker_of(worker, model):
    """Load a simulated model of one's own."""
    return lambda *lines, version="1.3.1": worker(model(*lines), version=version).ready()


def test_a_prime_run_answers_nothing_and_the_next_run_computes_only_the_rest(worker_of):
    live = worker_of()
    told = live.ask(SYSTEM, prime=True)
    assert (told.reason, told.tokens, told.frames) == ("stop", 0, [])
    assert told.done["computed_tokens"] > 300
    asked = live.ask(CHAT)
    assert asked.text == "fine."
    assert asked.done["computed_tokens"] < 20


def test_its_chunks_are_told_one_by_one_the_whole_prompt_being_the_last(worker_of):
    done = worker_of().ask(SYSTEM, prime=True, chunks=CHUNKS).done
    assert len(done["chunks"]) > 3
    assert sum(tokens for tokens, _ in done["chunks"]) == done["computed_tokens"]


def test_stopped_between_two_chunks_it_says_how_far_it_came(worker_of):
    live = worker_of("prefill_ms_per_token: 1")
    order = live.order(SYSTEM, prime=True, chunks=CHUNKS)
    live.send(order)
    assert live.next()["t"] == "started"
    live.send({"op": "abort", "gen": order["gen"]})
    done = live.until("done")[-1]
    assert done["reason"] == "aborted"
    assert len(done["chunks"]) < 3
    assert live.ask(CHAT).text == "fine."


def test_what_gives_way_ends_with_its_piece_also_where_aborted_work_is_dropped(worker_of):
    live = worker_of("prefill_ms_per_token: 1", "reuse_aborted: no")
    done = {"chunks": []}
    while not done["chunks"]:  # it may be asked to end before the first piece has begun
        order = live.order(SYSTEM, prime=True, chunks=CHUNKS)
        live.send(order)
        assert live.next()["t"] == "started"
        live.send({"op": "give_way", "gen": order["gen"]})
        done = live.until("done")[-1]
        assert done["reason"] == "preempted"
    assert done["clean"]
    assert len(done["chunks"]) < 3
    assert 0 < done["reached"] < len(SYSTEM)
    (computed, _), *_ = done["chunks"]
    rest = live.ask(CHAT).done["computed_tokens"]
    assert rest < worker_of().ask(CHAT).done["computed_tokens"] - computed / 2


@pytest.mark.parametrize("version", ["1.1.4", "1.2.3", "1.3.1"])
def test_every_runtime_computes_it_and_then_answers(worker_of, version):
    live = worker_of(version=version)
    assert live.ask(SYSTEM, prime=True, chunks=CHUNKS).reason == "stop"
    assert live.ask(CHAT).text == "fine."


def test_the_file_that_it_leaves_holds_the_prompt_and_nothing_else(worker_of, tmp_path):
    live, file = worker_of(), tmp_path / "prefix.cache"
    done = live.ask(SYSTEM, prime=True, save=str(file)).done
    saved_bytes, saved_ms = done["saved"]
    assert saved_bytes == file.stat().st_size
    assert saved_ms >= 0
    assert not file.with_name("prefix.cache.part").exists()
    live.ask(OTHER)
    told = live.ask(CHAT, restore=str(file))
    (restored,) = [frame for frame in told.all if frame["t"] == "restored"]
    assert (restored["ok"], restored["message"]) == (True, "")
    assert told.text == "fine."
    assert told.done["computed_tokens"] < 20


def test_the_time_of_a_restore_is_told_apart_from_that_of_the_prefill(worker_of, tmp_path):
    live, file = worker_of("cache_load_mb_s: 200"), tmp_path / "prefix.cache"
    live.ask(SYSTEM, prime=True, save=str(file))
    told = live.ask(CHAT, restore=str(file))
    (restored,) = [frame for frame in told.all if frame["t"] == "restored"]
    assert restored["ms"] > 40
    assert told.done["run_ms"] >= restored["ms"] + told.done["prefill_ms"]


@pytest.mark.parametrize("fate", ["missing", "damaged", "truncated", "of another model", "unreadable"])
def test_a_file_that_cannot_be_loaded_costs_nothing_but_its_help(
    shared_worker, tmp_path, fate, worker, model
):
    file = tmp_path / "prefix.cache"
    live = shared_worker()
    live.ask(SYSTEM, prime=True, save=str(file))
    if fate == "missing":
        file.unlink()
    elif fate == "damaged":
        file.write_bytes(b"\0" * file.stat().st_size)
    elif fate == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    elif fate == "of another model":
        live = worker(model("name: other", name="other.sim")).ready()
    else:
        file.unlink()
        file.mkdir()
    live.ask(OTHER)
    told = live.ask(CHAT, restore=str(file))
    (restored,) = [frame for frame in told.all if frame["t"] == "restored"]
    assert restored["ok"] is False
    assert restored["message"]
    assert (told.text, told.reason) == ("fine.", "stop")


def test_a_file_that_cannot_be_written_is_said_not_to_be_there(worker_of, tmp_path):
    told = worker_of().ask(SYSTEM, prime=True, save=str(tmp_path / "missing" / "prefix.cache"))
    assert (told.reason, told.done["saved"]) == ("stop", None)


@pytest.mark.parametrize(("saves", "is_there"), [("yes", True), ("no", False)])
def test_a_runtime_without_a_limit_for_each_run_saves_only_where_an_aborted_run_does(
    worker_of, tmp_path, saves, is_there
):
    file = tmp_path / "prefix.cache"
    done = (
        worker_of(f"aborted_run_saves: {saves}", version="1.2.3").ask(SYSTEM, prime=True, save=str(file)).done
    )
    assert file.exists() == (done["saved"] is not None) == is_there
