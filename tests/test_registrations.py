"""The promises of `registrations`: safe before told, found after a restart, bounded, forgotten."""

import asyncio
import json

from live_jobs import address, admit, make_job, opened, request
from live_slot import in_loop, slot_config

from rkllm_mqtt.core.chat import PrefixWish
from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.outcomes import Outcomes
from rkllm_mqtt.registrations import Registrations
from rkllm_mqtt.store.clock import ClockSource
from rkllm_mqtt.store.errors import StoreFull
from rkllm_mqtt.store.prefixes import PrefixRow

SYSTEM = {"role": "system", "content": "You are the voice of a house."}


class Desk:
    """The registrations on a real journal."""

    def __init__(self, journal, **limits):
        config = slot_config(limits=limits)
        self.journal, self.live, self.finals = journal, LiveJobs(), {}
        self._ended = asyncio.Event()
        outcomes = Outcomes(
            config,
            self.live,
            Counters(),
            journal,
            post=self._post,
            payload_limit=lambda _: 10**6,
            on_change=lambda: None,
        )
        self.registrations = Registrations(config, self.live, journal, outcomes)

    def _post(self, job, outcome):
        self.finals[job.id] = json.loads(outcome)
        self._ended.set()

    async def job(self, name, verb="register", client="app", **fields):
        """Accept a request as the intake does."""
        wish = PrefixWish(verb, fields.pop("prefix", "voice"), ttl_s=fields.pop("ttl_s", 100.0))
        asked = request(**{"messages": (SYSTEM,), "model": "demo", "prefix": wish} | fields)
        job = await admit(self.journal, make_job(asked, address(client, name), id=name))
        self.live.add(job)
        return job

    async def ask(self, name, verb="register", **fields):
        """Return the final of a request."""
        job = await self.job(name, verb, **fields)
        assert self.registrations.take(job)
        assert job not in self.live.waiting  # an idle slot that looks now must not begin it
        while name not in self.finals:
            self._ended.clear()
            await self._ended.wait()
        return self.finals[name]


@in_loop
async def test_a_registration_is_found_after_a_restart_with_its_uses(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        assert (await desk.ask("r1"))["prefix"] == {"name": "voice", "state": "registered", "ttl_s": 100.0}
        await desk.ask("r2", prefix="gone")
        await desk.ask("u1", "unregister", prefix="gone")
        desk.registrations.note_use(desk.registrations.prefixes.find("app", "voice"))
        uses = desk.registrations.prefixes.find("app", "voice").uses
        assert desk.live.count == 0
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        await desk.registrations.recover()
        (prefix,) = desk.registrations.prefixes
        assert (prefix.key, prefix.request.messages, prefix.uses) == (("app", "voice"), (SYSTEM,), uses)
        assert (await desk.ask("r3"))["prefix"]["state"] == "unchanged"


@in_loop
async def test_a_request_that_a_crash_left_unfinished_is_carried_out_at_the_start(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        await desk.job("r1")
        await desk.registrations.recover()
        assert desk.finals["r1"]["prefix"]["state"] == "registered"


@in_loop
async def test_it_is_on_disk_before_its_sender_is_told(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        await desk.ask("r1")
        (row,) = await journal.prefixes()
        assert (row.client, row.name, row.ttl_s) == ("app", "voice", 100.0)
        await desk.ask("u1", "unregister")
        assert await journal.prefixes() == []


@in_loop
async def test_a_disk_that_does_not_take_it_leaves_the_old_one_and_is_told(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        await desk.ask("r1")

        def full(_connection):
            raise StoreFull("the disk is full", "free some space")

        journal.keep_prefix = lambda row: journal._writer.submit(full)
        final = await desk.ask("r2", messages=({"role": "system", "content": "You are a garden."},))
        assert (final["error"]["code"], final["error"]["retryable"]) == ("internal", True)
        assert desk.registrations.prefixes.find("app", "voice").request.messages == (SYSTEM,)


@in_loop
async def test_what_cannot_be_read_is_forgotten_and_the_others_stay(tmp_path):
    async with opened(tmp_path) as journal:
        await journal.keep_prefix(PrefixRow("app", "bad", "{", 100.0, journal.now(), "?"))
        desk = Desk(journal)
        await desk.ask("r1")
        await desk.registrations.recover()
        assert [row.name for row in await journal.prefixes()] == ["voice"]


@in_loop
async def test_the_least_used_goes_from_disk_too_and_so_does_what_has_expired(tmp_path):
    clock = [100.0]
    async with opened(tmp_path, source=ClockSource(uptime_s=lambda: clock[0])) as journal:
        desk = Desk(journal, prefixes=2)
        for client in ("a", "b", "c"):
            await desk.ask(client, client=client)
            clock[0] += 30
        assert [row.client for row in await journal.prefixes()] == ["b", "c"]
        clock[0] += 45
        await desk.registrations.expire()
        assert [row.client for row in await journal.prefixes()] == ["c"]
        assert desk.registrations.prefixes.find("b", "voice") is None


@in_loop
async def test_two_that_come_at_once_do_not_take_more_room_than_there_is(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        jobs = [await desk.job(name, prefix=name) for name in ("one", "two", "three")]
        assert all(map(desk.registrations.take, jobs))
        final = await desk.ask("again", prefix="one")
        assert final["prefix"]["state"] == "unchanged"
        assert desk.finals["three"]["error"]["code"] == "client_limit"


@in_loop
async def test_a_wish_by_name_takes_what_is_registered_and_counts_a_use(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        await desk.ask("r1", tools=({"type": "function", "function": {"name": "on"}},))
        wished = request(messages=(), model="other", prefix=PrefixWish("warm", "voice", 3.0))
        prepared, fault = desk.registrations.prepare("app", wished)
        assert fault is None
        assert (prepared.messages, prepared.tools[0]["function"]["name"]) == ((SYSTEM,), "on")
        assert (prepared.model, prepared.prefix) == ("demo", wished.prefix)
        assert sum(desk.registrations.prefixes.find("app", "voice").uses.hours) == 1


@in_loop
async def test_wishes_to_be_warm_have_a_rate_of_their_own(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal, warms_per_minute=1)
        wished = request(prefix=PrefixWish("warm"))
        faults = [desk.registrations.prepare("app", wished)[1] for _ in range(12)]
        assert [fault and fault.code for fault in faults] == [None] * 10 + [Code.RATE_LIMITED] * 2
        assert desk.registrations.prepare("other", wished)[1] is None
        assert desk.registrations.prepare("app", request())[1] is None


@in_loop
async def test_questions_and_wishes_to_be_warm_are_left_to_the_slot(tmp_path):
    async with opened(tmp_path) as journal:
        desk = Desk(journal)
        for job in (make_job(request()), make_job(request(prefix=PrefixWish("warm")))):
            assert not desk.registrations.take(job)
