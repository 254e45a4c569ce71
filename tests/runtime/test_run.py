"""The promise of `runtime/run.py`: each run ends once, and its clocks end one that its library does not."""

import asyncio

import pytest
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.errors import SlotLost
from rkllm_mqtt.runtime.order import RunOrder
from rkllm_mqtt.runtime.run import EndReason, Run, RunEnd, Watch

ABORT = {"op": "abort", "gen": 7}
DONE = {"t": "done", "gen": 7, "reason": "stop", "tokens": 2, "run_ms": 5.0}


class Watched:
    """A run whose worker is played by the test; silence 2 s, whole run 100 s, grace 5 s, prefill 10 s."""

    def __init__(self, *, first_token_limit_s=10.0, whole_s=100.0, restore=None):
        self.loop = asyncio.get_running_loop()
        self.commands = []
        self.kills = []
        self.pieces = []
        order = RunOrder("hi", 10, restore=restore, first_token_limit_s=first_token_limit_s)
        self.run = Run(7, order, Watch(2.0, whole_s, 5.0), self.take, self.command, self.kill)

    def take(self, pieces, tokens):
        self.pieces.extend(pieces)

    def command(self, frame):
        self.commands.append((self.loop.time(), frame))

    def kill(self, reason):
        self.kills.append((self.loop.time(), reason))

    def start(self):
        self.run.take({"t": "started", "gen": 7})

    def tokens(self, count, *pieces):
        self.run.take({"t": "tokens", "gen": 7, "n": count, "d": list(pieces)})


@in_virtual_time
async def test_a_run_tells_its_start_its_pieces_and_its_end():
    watched = Watched()
    watched.start()
    await watched.run.started
    watched.tokens(1, "a")
    watched.tokens(2, "b", ["thought"])
    watched.run.take(DONE | {"prefill_ms": 3.0, "generate_ms": 2.0, "computed_tokens": 11})
    assert await watched.run.ended == RunEnd(EndReason.STOP, 2, 5.0, 3.0, 2.0, 11)
    assert watched.pieces == ["a", "b", ["thought"]]
    await asyncio.sleep(1000)
    assert watched.commands == watched.kills == []


@in_virtual_time
async def test_a_run_that_never_began_has_a_cancelled_start():
    watched = Watched()
    watched.run.take(DONE | {"reason": "revoked", "tokens": 0})
    assert watched.run.started.cancelled()
    assert (await watched.run.ended).reason is EndReason.REVOKED


@in_virtual_time
async def test_a_lost_worker_ends_the_run_and_nothing_ends_it_again():
    watched = Watched()
    watched.start()
    watched.run.lost(SlotLost("gone"))
    watched.run.take(DONE)
    watched.run.lost(SlotLost("again"))
    with pytest.raises(SlotLost, match="gone"):
        await watched.run.ended
    watched.run.abort()
    watched.run.revoke()
    await asyncio.sleep(1000)
    assert watched.commands == watched.kills == []


@in_virtual_time
async def test_a_run_that_waits_its_turn_is_not_watched():
    watched = Watched()
    await asyncio.sleep(1000)
    assert watched.commands == []


@in_virtual_time
async def test_silence_before_the_first_token_is_measured_by_the_prefill():
    watched = Watched(first_token_limit_s=40)
    watched.start()
    await asyncio.sleep(39)
    assert watched.commands == []
    await asyncio.sleep(2)
    assert watched.commands == [(40, ABORT)]
    assert watched.run.stalled == "the library was silent for too long before the first token"
    assert not watched.run.timed_out


@in_virtual_time
async def test_silence_between_tokens_is_measured_from_the_last_one():
    watched = Watched()
    watched.start()
    for count in range(1, 20):
        await asyncio.sleep(1.5)
        watched.tokens(count, "x")
    last = watched.loop.time()
    await asyncio.sleep(3)
    assert watched.commands == [(last + 2, ABORT)]
    assert watched.run.stalled == "the library was silent for too long between two tokens"


@in_virtual_time
async def test_silence_after_the_first_token_does_not_have_the_time_of_the_prefill():
    watched = Watched(first_token_limit_s=60)
    watched.start()
    await asyncio.sleep(1)
    watched.tokens(1, "x")
    await asyncio.sleep(5)
    assert watched.commands == [(3, ABORT)]


@in_virtual_time
async def test_a_run_that_never_stops_talking_ends_at_its_whole_time():
    watched = Watched(first_token_limit_s=60, whole_s=20)
    watched.start()
    for count in range(1, 30):
        await asyncio.sleep(1)
        watched.tokens(count, "x")
    assert watched.commands == [(20, ABORT)]
    assert watched.run.timed_out


@in_virtual_time
async def test_a_silent_run_ends_at_its_whole_time_although_its_prefill_may_take_longer():
    watched = Watched(first_token_limit_s=60, whole_s=20)
    watched.start()
    await asyncio.sleep(21)
    assert watched.commands == [(20, ABORT)]
    assert watched.run.timed_out


@in_virtual_time
async def test_an_abort_that_is_not_obeyed_while_decoding_is_a_kill_after_the_grace():
    watched = Watched()
    watched.start()
    watched.tokens(1, "x")
    watched.run.abort()
    watched.run.abort()
    await asyncio.sleep(4.9)
    assert watched.kills == []
    await asyncio.sleep(1)
    assert watched.commands == [(0, ABORT)]
    assert watched.kills == [(5, "did not answer an abort in time")]


@in_virtual_time
async def test_an_abort_in_prefill_has_the_time_of_the_prefill_too():
    watched = Watched()
    watched.start()
    watched.run.abort()
    await asyncio.sleep(14.9)
    assert watched.kills == []
    await asyncio.sleep(1)
    assert watched.kills == [(15, "did not answer an abort in time")]


@in_virtual_time
async def test_an_abort_near_the_end_of_the_whole_time_still_has_its_grace():
    watched = Watched(whole_s=20)
    watched.start()
    watched.tokens(1, "x")
    for count in range(2, 20):
        await asyncio.sleep(1)
        watched.tokens(count, "x")
    watched.run.abort()
    began = watched.loop.time()
    await asyncio.sleep(30)
    assert watched.kills == [(began + 5, "did not answer an abort in time")]


@in_virtual_time
async def test_an_abort_that_is_obeyed_kills_nobody_and_later_tokens_are_not_shown():
    watched = Watched()
    watched.start()
    watched.tokens(1, "x")
    watched.run.abort()
    watched.tokens(2, "too late")
    watched.run.take(DONE | {"reason": "aborted"})
    assert (await watched.run.ended).reason is EndReason.ABORTED
    assert watched.pieces == ["x"]
    await asyncio.sleep(1000)
    assert watched.kills == []


@in_virtual_time
@pytest.mark.parametrize("reason", ["stop", "length", "repetition"])
async def test_a_run_that_ended_by_itself_before_the_abort_reached_it_keeps_its_whole_text(reason):
    watched = Watched()
    watched.start()
    watched.tokens(1, "x")
    watched.run.abort()
    watched.tokens(2, "y")
    watched.tokens(4, "z", ["thought"])
    watched.run.take(DONE | {"reason": reason, "tokens": 4})
    assert watched.pieces == ["x", "y", "z", ["thought"]]
    assert (await watched.run.ended).tokens == 4


@in_virtual_time
async def test_a_start_that_crosses_the_abort_does_not_lift_it():
    watched = Watched()
    watched.run.abort()
    watched.start()
    await asyncio.sleep(6)
    assert watched.kills == [(5, "did not answer an abort in time")]


@in_virtual_time
async def test_a_revoke_is_only_a_wish():
    watched = Watched()
    watched.run.revoke()
    watched.start()
    watched.tokens(1, "x")
    await asyncio.sleep(1)
    assert [frame["op"] for _, frame in watched.commands] == ["revoke"]
    assert watched.kills == []


@pytest.mark.parametrize(
    "garbage",
    [
        {"t": "done", "reason": "exploded"},
        {"t": "done", "reason": "stop", "tokens": "many"},
        {"t": "done", "reason": "stop", "run_ms": float("nan")},
        {"t": "done", "reason": "stop", "prefill_ms": -1},
        {"t": "done", "reason": "stop", "computed_tokens": 2**80},
        {"t": "done", "reason": "stop", "saved": [-1, 2]},
        {"t": "restored", "ok": True, "ms": "long"},
        {"t": "done"},
        {"t": "tokens", "n": [1], "d": []},
        {"t": "tokens", "n": 1},
    ],
)
@in_virtual_time
async def test_numbers_and_reasons_that_cannot_be_true_are_not_believed(garbage):
    watched = Watched()
    watched.start()
    with pytest.raises((ValueError, KeyError, TypeError)):
        watched.run.take(garbage)
    assert not watched.run.ended.done()


@in_virtual_time
async def test_a_run_that_goes_on_with_a_longer_prompt_gets_the_time_of_a_prefill_again():
    watched = Watched()
    watched.start()
    watched.tokens(1, "a")
    watched.run.take({"t": "resumed", "gen": 7})
    await asyncio.sleep(9)  # longer than a silence between two tokens may be
    assert watched.commands == []
    await asyncio.sleep(2)
    assert watched.commands == [(10.0, ABORT)]
    await asyncio.sleep(13)  # a prefill does not hear an abort
    assert watched.kills == []
    await asyncio.sleep(2)
    assert [at for at, _ in watched.kills] == [25.0]


@in_virtual_time
async def test_the_silence_between_tokens_counts_again_behind_the_longer_prompt():
    watched = Watched()
    watched.start()
    watched.tokens(1, "a")
    watched.run.take({"t": "resumed", "gen": 7})
    await asyncio.sleep(5)
    watched.tokens(2, "b")
    await asyncio.sleep(3)
    assert watched.commands == [(7.0, ABORT)]


@in_virtual_time
async def test_a_restore_has_a_clock_of_its_own_in_front_of_the_prefill():
    watched = Watched(restore="/cache/prefix")
    assert not watched.run.restoring
    watched.start()
    assert watched.run.restoring
    await asyncio.sleep(9)
    watched.run.take({"t": "restored", "gen": 7, "ok": True, "ms": 9000.0, "message": ""})
    assert not watched.run.restoring
    await asyncio.sleep(9)
    assert watched.commands == []
    watched.run.take(DONE | {"saved": [4096, 2.5]})
    end = await watched.run.ended
    assert (end.saved_bytes, end.save_ms) == (4096, 2.5)


@in_virtual_time
async def test_a_worker_that_is_lost_in_a_restore_can_be_told_from_one_that_is_lost_later():
    watched, later = Watched(restore="/cache/prefix"), Watched(restore="/cache/prefix")
    watched.start()
    watched.run.lost(SlotLost("gone"))
    assert watched.run.restoring
    later.start()
    later.run.take({"t": "restored", "gen": 7, "ok": False, "ms": 1.0, "message": "refused"})
    later.run.lost(SlotLost("gone"))
    assert not later.run.restoring
    for one in (watched, later):
        with pytest.raises(SlotLost):
            await one.run.ended
