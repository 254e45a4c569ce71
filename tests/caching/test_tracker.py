"""The promise of `caching/tracker.py`: what the KV cache holds is followed through runs of every kind."""

from contextlib import asynccontextmanager

import pytest
from live_jobs import opened
from live_slot import MODELS, in_loop, running, slot_config

from rkllm_mqtt.caching.tracker import KvTracker, Restorable
from rkllm_mqtt.core.kvcache import UNKNOWN
from rkllm_mqtt.knowledge import Knowledge
from rkllm_mqtt.runtime.order import LoraOrder

PROMPT = "<|im_start|>user\n" + "The window is open. " * 100 + "say: fine.<|im_end|>\n<|im_start|>assistant\n"
MORE = PROMPT + "fine.<|im_end|>\n<|im_start|>user\nsay: thanks.<|im_end|>\n<|im_start|>assistant\n"
OTHER = "<|im_start|>user\n" + "Something else. " * 100 + "say: other.<|im_end|>\n<|im_start|>assistant\n"
PROBED = {
    "reuses_finished": True,
    "reuses_aborted": True,
    "holds_generated": True,
    "load_replaces": True,
    "loaded_stays": True,
    "granularity": 1,
    "load_s_per_mb": 0.001,
    "bytes_per_token": 100,
}


class Followed:
    """A slot whose runs are followed."""

    def __init__(self, live, journal):
        self.live, self.slot = live, live.slot
        self.knowledge = Knowledge(live.slot, journal)
        self.tracker = KvTracker(live.slot, self.knowledge)

    def ask(self, prompt, **order):
        """Submit a run and follow it."""
        file = order.pop("file", None)
        asked = self.live.ask(prompt, **order)
        chain = self.tracker.chain_of(self.slot.wanted, asked.run.order.lora, prompt)
        return asked, self.tracker.follow(asked.run, chain, file)

    async def run(self, prompt, **order):
        """Run to the end; return its end and what was followed."""
        asked, tracked = self.ask(prompt, **order)
        return await asked.end(), tracked

    def known(self, prompt):
        return self.tracker.expected(self.chain(prompt)).known

    def chain(self, prompt):
        return self.tracker.chain_of(self.slot.wanted, None, prompt)


@asynccontextmanager
async def followed(folder, *files, facts=None, **settings):
    async with (
        opened(folder) as journal,
        running(slot_config(*(files or (MODELS / "plain.sim",)), **settings)) as live,
    ):
        kit = Followed(live, journal)
        kit.knowledge.learn(live.slot.wanted, **(PROBED if facts is None else facts))
        yield kit


@in_loop
async def test_a_finished_run_leaves_its_prompt_and_its_answer(tmp_path):
    async with followed(tmp_path) as kit:
        assert kit.known(MORE) == 0
        await kit.run(PROMPT)
        assert kit.known(MORE) == len(PROMPT + "fine.")
        assert kit.tracker.text == PROMPT + "fine."
        end, tracked = await kit.run(MORE)
        assert tracked.match.tokens + end.computed_tokens == pytest.approx(kit.tracker.state.tokens[0])
        assert tracked.match.known == len(PROMPT + "fine.")
        assert end.computed_tokens < 30
        assert kit.known(OTHER) < 128


@in_loop
async def test_a_staged_run_is_told_what_the_one_before_it_will_leave(tmp_path):
    async with followed(tmp_path) as kit:
        first, _ = kit.ask(PROMPT)
        second, tracked = kit.ask(MORE)
        assert tracked.match.known >= len(PROMPT) - 128
        await first.end()
        await second.end()
        await kit.run(OTHER)  # the others have been taken note of then
        assert tracked.match.known == len(PROMPT + "fine.")


@in_loop
async def test_a_run_that_was_revoked_has_changed_nothing(tmp_path):
    async with followed(tmp_path, MODELS / "faulty.sim") as kit:
        await kit.run(PROMPT)
        running_one, _ = kit.ask(MORE.replace("say: thanks.", "endless"))
        staged, _ = kit.ask(OTHER)
        await running_one.first_token()
        staged.run.revoke()
        await staged.end()
        running_one.run.abort()
        await running_one.end()
        assert kit.known(MORE) >= len(PROMPT)


@pytest.mark.parametrize("reuses", [True, False, None])
@in_loop
async def test_behind_an_aborted_run_counts_what_was_probed(tmp_path, reuses):
    async with followed(tmp_path, MODELS / "faulty.sim", facts=PROBED | {"reuses_aborted": reuses}) as kit:
        asked, _ = kit.ask(PROMPT.replace("say: fine.", "endless"))
        await asked.first_token()
        asked.run.abort()
        await asked.end()
        assert (kit.known(PROMPT.replace("say: fine.", "endless")) > 0) == (reuses is True)


@in_loop
async def test_a_lost_worker_and_another_one_leave_nothing(tmp_path):
    async with followed(tmp_path) as kit:
        await kit.run(PROMPT)
        assert kit.known(MORE) > 0
        before = kit.slot.pid
        kit.slot.restart()
        await kit.live.until(lambda slot: slot.loaded and slot.pid != before)
        assert kit.known(MORE) == 0
        assert kit.tracker.state == UNKNOWN
        assert kit.tracker.text == ""


@in_loop
async def test_an_adapter_has_keys_and_values_of_its_own(tmp_path):
    async with followed(tmp_path) as kit:
        await kit.run(PROMPT)
        lora = LoraOrder("house", str(tmp_path / "house.rkllm"))
        other = LoraOrder("house", str(tmp_path / "house.rkllm"), 0.5)
        prints = {kit.tracker.fingerprint("plain", adapter) for adapter in (None, lora, other)}
        assert len(prints) == 3
        assert kit.tracker.expected(kit.tracker.chain_of("plain", lora, MORE)).likely == 0


@in_loop
async def test_a_prime_run_that_was_ended_leaves_the_chunks_that_it_came_to(tmp_path):
    async with followed(tmp_path) as kit:
        await kit.run(PROMPT, prime=True)
        assert kit.known(MORE) >= len(PROMPT) - 128
        assert kit.tracker.text == PROMPT


@in_loop
async def test_a_restored_file_is_what_the_run_begins_with(tmp_path):
    async with followed(tmp_path) as kit:
        file = str(tmp_path / "prefix.cache")
        await kit.run(PROMPT, prime=True, save=file)
        saved = Restorable(kit.chain(PROMPT))
        await kit.run(OTHER)
        end, tracked = await kit.run(MORE, restore=file, file=saved)
        assert end.computed_tokens < 30
        assert tracked.match.known >= len(PROMPT) - 128
        assert kit.tracker.state.loaded == saved.chain


@in_loop
async def test_a_file_that_was_refused_is_not_counted(tmp_path):
    async with followed(tmp_path) as kit:
        saved = Restorable(kit.chain(PROMPT))
        end, tracked = await kit.run(PROMPT, restore=str(tmp_path / "missing"), file=saved)
        assert end.computed_tokens > 300
        assert tracked.match.likely == 0
        assert kit.tracker.state.loaded is None
