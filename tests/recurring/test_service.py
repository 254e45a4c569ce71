"""The promise of `recurring/service.py`: a time of a schedule is asked once, through restarts and refusals.

The journal is a real one; the intake is a recorder, and the clock a number.
"""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from live_jobs import address, admit, make_job, opened, request

from rkllm_mqtt.config import ScheduleConfig
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.topics import Topics
from rkllm_mqtt.recurring.service import Recurring

START = 1_800_000_000.0  # a whole minute: 2027-01-15 08:00 UTC
FULL = Fault(Code.QUEUE_FULL, "10 prompts wait already", "Later.", 30)


class House:
    """The schedules with everything beside them."""

    def __init__(self, journal, now, *schedules):
        self.now, self.asked, self.sent, self.fault = now, [], [], None
        self.journal = journal
        self.recurring = Recurring(
            [
                ScheduleConfig(**{"id": "tick", "prompt": "hi", "every_s": 60} | fields)
                for fields in schedules or ({},)
            ],
            Topics("rkllm", "rock"),
            journal,
            self._submit,
            self.sent.append,
            clock=lambda: self.now,
        )

    async def _submit(self, message, where, bare):
        if self.fault is None:
            self.asked.append((where.id, json.loads(message.payload), message.response_topic, bare))
            job = make_job(request(), address(where.mailbox.client, where.id), id=where.id)
            await admit(self.journal, job)
        return self.fault

    @property
    def ids(self):
        return [asked[0] for asked in self.asked]

    async def at(self, now):
        """Let the clock show a time, and the schedules look at it."""
        self.now = now
        await self.recurring.look()
        return self.ids

    def shown(self):
        (schedule,) = json.loads(self.sent[-1].payload)["schedules"]
        return schedule


@asynccontextmanager
async def house(folder, *schedules, now=START):
    async with opened(folder) as journal:
        yield House(journal, now, *schedules)


def in_loop(test):
    def run(tmp_path):
        asyncio.run(test(tmp_path))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@in_loop
async def test_each_time_is_asked_once_under_its_own_name(tmp_path):
    async with house(tmp_path) as it:
        assert await it.at(START) == []
        assert await it.at(START + 59) == []
        assert await it.at(START + 60) == ["tick.20270115T080100Z"]
        assert await it.at(START + 61) == ["tick.20270115T080100Z"]
        assert (await it.at(START + 120))[1:] == ["tick.20270115T080200Z"]


@in_loop
async def test_a_restart_neither_repeats_nor_forgets_a_time(tmp_path):
    async with house(tmp_path) as it:
        await it.at(START + 60)
    async with house(tmp_path, now=START + 70) as it:
        assert await it.at(START + 70) == []
        assert await it.at(START + 120) == ["tick.20270115T080200Z"]
    async with house(tmp_path, now=START + 200) as it:
        assert await it.at(START + 200) == ["tick.20270115T080300Z"]


@in_loop
async def test_a_crash_between_the_request_and_the_note_of_it_asks_the_journal_and_not_the_model(tmp_path):
    async with house(tmp_path) as it:
        await it.at(START + 60)
        await it.journal.set_meta("schedule:tick", json.dumps({"last": START}))
    async with house(tmp_path, now=START + 61) as it:
        assert await it.at(START + 61) == []
        assert it.shown()["asked"] == 1
        assert await it.at(START + 120) == ["tick.20270115T080200Z"]


@in_loop
async def test_a_clock_that_is_set_back_and_forth_asks_no_time_twice(tmp_path):
    async with house(tmp_path) as it:
        await it.at(START + 60)
        await it.at(START - 1_000)
        assert (await it.at(START - 959))[1:] == ["tick.20270115T074400Z"]
        await it.at(START + 60)
        await it.at(START + 61)
        assert len(it.ids) == len(set(it.ids)) == 2
        assert (await it.at(START + 120))[2:] == ["tick.20270115T080200Z"]


@in_loop
async def test_what_is_refused_is_tried_again_until_its_grace_is_over(tmp_path):
    async with house(tmp_path, {"misfire_grace_s": 100, "every_s": 3600}) as it:
        it.fault = FULL
        assert await it.at(START) == []
        hour = START + 3600
        assert await it.at(hour) == []
        assert it.shown()["refused"] == FULL.message
        it.fault = None
        assert await it.at(hour + 5) == []  # not at once
        assert await it.at(hour + 31) == ["tick.20270115T090000Z"]
        assert it.shown()["refused"] is None
        it.fault = FULL
        await it.at(hour + 3600)
        it.fault = None
        assert len(await it.at(hour + 3600 + 101)) == 1


@in_loop
async def test_a_paused_schedule_asks_nothing_and_goes_on_from_its_resume(tmp_path):
    async with house(tmp_path) as it:
        await it.recurring.pause("tick", paused=True)
        assert await it.at(START + 300) == []
        assert (it.shown()["state"], it.shown()["next_at"]) == ("paused", None)
    async with house(tmp_path, now=START + 600) as it:
        assert await it.at(START + 610) == []
        await it.recurring.pause("tick", paused=False)
        assert await it.at(START + 611) == []
        assert await it.at(START + 660) == ["tick.20270115T081100Z"]


@in_loop
async def test_an_administrator_can_ask_out_of_time(tmp_path):
    async with house(tmp_path, {"paused": True, "format": "text", "reply_topic": "home/out"}) as it:
        request_id = await it.recurring.ask_now("tick")
        ((asked_id, asked, topic, bare),) = it.asked
        assert (asked_id, topic, bare) == (request_id, "home/out", True)
        assert asked == {"prompt": "hi", "priority": "background"}
        it.fault, it.now = FULL, START + 1
        with pytest.raises(ValueError, match="10 prompts wait"):
            await it.recurring.ask_now("tick")
        with pytest.raises(KeyError):
            await it.recurring.ask_now("nothing")


@in_loop
async def test_one_date_is_also_asked_when_it_passed_a_moment_ago(tmp_path):
    once = {"every_s": None, "at": "2027-01-15T08:00:00+00:00", "misfire_grace_s": 600}
    async with house(tmp_path, once, now=START + 300) as it:
        assert await it.at(START + 300) == ["tick.20270115T080000Z"]
        assert it.shown()["state"] == "done"
        assert len(await it.at(START + 400)) == 1


@in_loop
async def test_a_template_that_fails_is_told_and_the_others_are_asked(tmp_path):
    async with house(tmp_path, {"id": "bad", "prompt": "{{ 1 / 0 }}"}, {"id": "good"}) as it:
        assert await it.at(START + 60) == ["good.20270115T080100Z"]
        bad, good = json.loads(it.sent[-1].payload)["schedules"]
        assert "division by zero" in bad["refused"]
        assert good["refused"] is None


@in_loop
async def test_the_topic_is_retained_and_told_on_change_only(tmp_path):
    async with house(tmp_path, {"timezone": "Europe/Warsaw"}) as it:
        await it.at(START)
        (told,) = it.sent
        assert (told.topic, told.retain) == ("rkllm/rock/schedules", True)
        assert it.shown()["next_at"] == "2027-01-15T09:01:00+01:00"
        await it.at(START + 1)
        assert len(it.sent) == 1
        it.recurring.announce()
        assert len(it.sent) == 2
        await it.at(START + 60)
        assert it.shown() | {"last_id": "tick.20270115T080100Z", "asked": 1} == it.shown()
