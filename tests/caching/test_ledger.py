"""The promise of `caching/ledger.py`: the disk is written no more than allowed in a day."""

import pytest
from live_jobs import opened
from live_slot import in_loop

from rkllm_mqtt.caching.ledger import Ledger

DAY = 86_400


class Clock:
    now = 20_000 * DAY + 100.0

    def __call__(self):
        return self.now


@in_loop
async def test_what_was_written_today_counts_after_a_restart_and_not_tomorrow(tmp_path):
    clock = Clock()
    async with opened(tmp_path) as journal:
        ledger = Ledger(journal, 1, clock)
        assert ledger.may_write(1_000_000)
        ledger.write(600_000)
        assert not ledger.may_write(600_000)
        await ledger.keep()
        again = Ledger(journal, 1, clock)
        assert again.written == 600_000
        clock.now -= DAY  # a board without a clock of its own boots in the past
        assert not again.may_write(600_000)
        clock.now += 2 * DAY
        assert again.may_write(1_000_000)


@pytest.mark.parametrize("kept", ["", "null", "[1]", '{"a": 1}', '["x", "y"]'])
@in_loop
async def test_what_was_not_kept_by_it_counts_nothing(tmp_path, kept):
    async with opened(tmp_path) as journal:
        await journal.set_meta("cache_written", kept)
        assert Ledger(journal, 1, Clock()).written == 0
