"""The promise of `abilities.py`: what a library can do is known before it is loaded again."""

from live_jobs import opened
from live_slot import MODELS, in_loop, running, slot_config

from rkllm_mqtt.abilities import META_KEY, Abilities
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.runtime.slot import Slot

PLAIN = MODELS / "plain.sim"


def before_a_load(config, journal):
    return Abilities(config, Slot(config, configured_catalogue(config), lambda: None), journal).now()


@in_loop
async def test_what_a_library_said_is_known_at_the_next_start_as_long_as_it_is_the_same(tmp_path):
    old, new = slot_config(PLAIN, simulator_version="1.2.3"), slot_config(PLAIN)
    async with opened(tmp_path) as journal:
        assert before_a_load(old, journal) is None
        async with running(old) as live:
            abilities = Abilities(old, live.slot, journal)
            assert abilities.now()["per_run_sampling"] is False
            await abilities.keep()
            kept = journal.meta[META_KEY]
            await abilities.keep()
            assert journal.meta[META_KEY] is kept
        assert before_a_load(old, journal)["per_run_sampling"] is False
        assert before_a_load(new, journal) is None
