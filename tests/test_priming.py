"""The promise of `priming.py`: the idle slot works ahead, and never in front of anybody."""

from live_dispatcher import dispatching
from live_slot import MODELS, in_loop

from rkllm_mqtt.priming import Prime
from rkllm_mqtt.runtime.order import ChunkOrder, prime_order
from rkllm_mqtt.runtime.run import EndReason

PLAIN = MODELS / "plain.sim"
LONG = "<|im_start|>system\n" + "The window in the kitchen is open. " * 100 + "<|im_end|>\n"
CHUNKS = ChunkOrder(start=0, tokens=60, chars=200)


class Wished:
    """A source that has so many prompts to compute, and what has become of them."""

    def __init__(self, kit, count=1, chunks=None):
        self.left, self.ends, self.runs = count, [], []
        self._chunks = chunks
        self._kit = kit
        kit.dispatcher.priming.sources.append(self)
        kit.dispatcher.wake()

    def __call__(self):
        if not self.left:
            return None
        self.left -= 1
        return Prime(prime_order(LONG + f"{self.left}", chunks=self._chunks), self._ended)

    def _ended(self, run, end):
        self.runs.append(run)
        self.ends.append(end)
        self._kit._moved.set()


@in_loop
async def test_an_idle_slot_computes_what_is_wished_until_nothing_more_is(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        wished = Wished(kit, 2)
        await kit.until(lambda: len(wished.ends) == 2)
        assert [end.reason for end in wished.ends] == [EndReason.STOP] * 2
        assert kit.dispatcher.priming.slot_s > 0
        assert not kit.dispatcher.priming.busy
        await kit.ask("q1")
        assert (await kit.final("q1"))["text"] == "hello"


@in_loop
async def test_a_job_ends_it_at_its_next_chunk_and_is_answered(tmp_path):
    slow = tmp_path / "slow.sim"
    slow.write_text("rkllm-simulator 1\nprofile: instant\nprefill_ms_per_token: 1\n")
    async with dispatching(tmp_path, slow) as kit:
        wished = Wished(kit, chunks=CHUNKS)
        await kit.until(lambda: kit.slot.loaded)
        await kit.soon(lambda: kit.dispatcher.priming.busy)
        await kit.ask("q1")
        assert (await kit.final("q1"))["text"] == "hello"
        assert wished.ends[0].reason in (EndReason.PREEMPTED, EndReason.REVOKED)
        assert len(wished.ends[0].chunks) < 10


@in_loop
async def test_while_a_job_runs_or_the_daemon_is_paused_nothing_is_begun(tmp_path):
    async with dispatching(tmp_path, MODELS / "faulty.sim") as kit:
        job = await kit.ask("q1", "endless")
        await kit.running("q1")
        wished = Wished(kit)
        for _ in range(20):
            await kit.journal.counts()
        assert (wished.left, kit.dispatcher.priming.busy) == (1, False)
        kit.dispatcher.paused = True
        await kit.dispatcher.cancel(job)
        await kit.final("q1")
        assert wished.left == 1
        kit.dispatcher.paused = False
        kit.dispatcher.wake()
        await kit.until(lambda: wished.ends)


@in_loop
async def test_a_worker_that_is_lost_in_it_is_told_to_who_wished_it(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        slow = Wished(kit, chunks=CHUNKS)
        await kit.until(lambda: kit.slot.loaded)
        await kit.soon(lambda: kit.dispatcher.priming.busy or slow.ends)
        kit.slot.restart()
        await kit.until(lambda: slow.ends)
        assert slow.ends[0] is None or slow.ends[0].reason is EndReason.STOP
        await kit.ask("q1")
        assert (await kit.final("q1"))["text"] == "hello"
