"""The promise of `knowledge.py`: what is known of a runtime's cache is kept, never told of another."""

import json
import os
import shutil

import pytest
from live_dispatcher import dispatching
from live_slot import MODELS, in_loop

from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.knowledge import Knowledge
from rkllm_mqtt.store.errors import StoreError

PLAIN = MODELS / "plain.sim"


@in_loop
async def test_facts_are_there_after_a_restart_as_long_as_model_and_runtime_are_the_same(tmp_path):
    model = shutil.copy(PLAIN, tmp_path / "plain.sim")
    async with dispatching(tmp_path, model) as kit:
        await kit.until(lambda: kit.slot.loaded)
        assert kit.scheduler.knowledge.facts_of("plain") == CacheFacts()
        kit.scheduler.knowledge.learn("plain", reuses_finished=True, granularity=4)
        assert kit.scheduler.knowledge.worth_keeping
        await kit.dispatcher.stop(0)
    learned = CacheFacts(reuses_finished=True, granularity=4)
    async with dispatching(tmp_path, model) as kit:
        assert kit.scheduler.knowledge.facts_of("plain") == learned, "before it is loaded"
        await kit.until(lambda: kit.slot.loaded)
        assert kit.scheduler.knowledge.facts_of("plain") == learned
    os.utime(model, (1, 1))
    async with dispatching(tmp_path, model) as kit:
        await kit.until(lambda: kit.slot.loaded)
        assert kit.scheduler.knowledge.facts_of("plain") == CacheFacts()
    async with dispatching(tmp_path, model, simulator_version="1.3.0") as kit:
        kit.scheduler.knowledge.learn("plain", reuses_finished=True)
        await kit.until(lambda: kit.slot.loaded)
        assert kit.scheduler.knowledge.facts_of("plain") == CacheFacts()


@in_loop
async def test_what_the_journal_has_is_checked_before_it_is_believed(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.until(lambda: kit.slot.loaded)
        for kept in (
            "",
            "{",
            "[]",
            json.dumps({"of": [1], "facts": []}),
            '{"of": 3}',
            '{"of": [], "begun": 1}',
        ):
            await kit.journal.set_meta("facts:plain", kept)
            assert Knowledge(kit.slot, kit.journal).facts_of("plain") == CacheFacts()


@in_loop
async def test_the_chunks_of_a_long_prompt_tell_whether_a_run_is_reused(tmp_path):
    async with dispatching(tmp_path, PLAIN, policy={"prefill_chunk_tokens": 64}) as kit:
        await kit.ask("warm", "say: x")
        await kit.final("warm")
        await kit.ask("long", "say: x " + "word " * 2000)
        await kit.final("long")
        assert kit.scheduler.knowledge.facts_of("plain").reuses_finished is True
    (tmp_path / "other").mkdir()
    async with dispatching(tmp_path / "other", PLAIN, simulator_version="1.2.3") as kit:
        await kit.until(lambda: kit.slot.loaded)
        told = kit.scheduler._told_by_chunks
        assert told(True) == {"reuses_aborted": True, "reuses_finished": True}
        assert told(False) == {"reuses_aborted": False}


@in_loop
async def test_what_a_full_disk_did_not_take_is_stored_later(tmp_path):
    async with dispatching(tmp_path, PLAIN) as kit:
        await kit.until(lambda: kit.slot.loaded)
        knowledge = kit.scheduler.knowledge
        knowledge.learn("plain", granularity=2)
        refuse = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'full'); END"
        await kit.journal._writer.submit(lambda connection: connection.execute(refuse))
        with pytest.raises(StoreError):
            await knowledge.keep()
        assert knowledge.worth_keeping
        await kit.journal._writer.submit(lambda connection: connection.execute("DROP TRIGGER refuse"))
        await knowledge.keep()
        assert not knowledge.worth_keeping
        assert json.loads(kit.journal.meta["facts:plain"])["facts"]["granularity"] == 2
