"""The promise of `app.py`: the parts together survive a missing model, a full disk, a broker that goes."""

import asyncio
import json
import uuid
from contextlib import asynccontextmanager

from live_client import Client
from live_slot import MODELS, PATIENCE_S, in_loop

from rkllm_mqtt import app
from rkllm_mqtt.config import Config
from rkllm_mqtt.store.errors import StoreFull
from rkllm_mqtt.store.journal import Journal

PLAIN = MODELS / "plain.sim"


def test_a_load_that_takes_long_is_told_to_who_waits(unloaded, tmp_path):
    file = tmp_path / "slow.sim"
    file.write_text("rkllm-simulator 1\nprofile: instant\nload_ms: 3500\n")
    daemon, watcher = unloaded(
        environment={"RKLLM_SIM_PROFILE": ""}, models=[{"id": "slow", "file": str(file)}]
    )
    watcher.reply(f"rkllm/{daemon.node}/status")
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "say: hello"})
    assert watcher.reply(f"{box}/reply/q1").json["text"] == "hello"
    told = [m.json for m in watcher.on(f"{box}/event/q1") if m.json["type"] == "progress"]
    assert told[0]["phase"] == "load"
    assert told[0]["elapsed_s"] > 2


# the daemon in this process, to reach what no client can


@asynccontextmanager
async def inner(folder, port, **settings):
    """Run a daemon in this loop; yields it, its journal, and a client that hears everything of its node."""
    node = f"i{uuid.uuid4().hex[:12]}"
    config = Config.model_validate(
        {
            "node": node,
            "mqtt": {"port": port, "reconnect_max_s": 1},
            "models": [{"id": "plain", "file": PLAIN}],
            "journal": {"path": folder / "journal.db", "ballast_mb": 0},
            **settings,
        }
    )
    watcher = await asyncio.to_thread(lambda: Client(port).subscribe(f"rkllm/{node}/#"))
    journal = await Journal.open(config.journal.path, ballast_mb=0)
    await journal.set_meta("uid", "u")
    await journal.set_meta("client_id", f"rkllm-mqtt-{node}")
    daemon = app.Daemon(config, journal)
    task = asyncio.create_task(daemon.run())
    try:
        await asyncio.to_thread(watcher.reply, f"rkllm/{node}/status")
        yield daemon, journal, Spoken(watcher, f"rkllm/{node}")
        daemon.stop()
        await task
    finally:
        task.cancel()
        await asyncio.wait({task})
        await journal.close()
        await asyncio.to_thread(watcher.close)


class Spoken:
    """A client of the inner daemon; its waiting leaves the loop free."""

    def __init__(self, watcher, base):
        self.watcher, self.base, self.box = watcher, base, f"{base}/client/app"

    async def send(self, topic, payload, **options):
        await asyncio.to_thread(lambda: self.watcher.publish(topic, payload, **options))

    async def ask(self, name, **fields):
        await self.send(f"{self.box}/request/{name}", {"prompt": "say: hello", **fields})

    async def wait(self, wanted):
        return await asyncio.to_thread(self.watcher.wait, wanted)

    async def final(self, name):
        return (await self.wait(lambda m: m.topic == f"{self.box}/reply/{name}")).json


async def limit_pages(journal, pages):
    """Let SQLite find no space beyond `pages`; 0 takes the limit away."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await journal._writer.submit(
                    lambda c: c.execute(f"PRAGMA max_page_count = {pages or 4_294_967_294}").fetchone()
                )
            except StoreFull:  # it shared its commit with one that failed
                continue
            return


@in_loop
async def test_on_a_full_disk_new_prompts_are_refused_and_the_finals_of_old_ones_come_later(
    shared_broker, tmp_path
):
    async with inner(tmp_path, shared_broker.port) as (daemon, journal, client):
        await client.wait(lambda m: m.topic == f"{client.base}/health" and m.json["model_loaded"])
        daemon.parts.dispatcher.paused = True
        await client.ask("old", prompt="story 3000 tokens", max_tokens=4000)
        await client.wait(lambda m: m.topic == f"{client.box}/event/old" and m.json["type"] == "accepted")
        await limit_pages(journal, 1)
        await client.ask("new", prompt="x" * 20_000)
        error = (await client.final("new"))["error"]
        assert (error["code"], error["retryable"]) == ("internal", True)
        health = daemon.parts.reporter.health()
        assert health["status"] == "unhealthy"
        assert "journal" in {reason["code"] for reason in health["reasons"]}
        daemon.parts.set_flow(paused=False, draining=False)
        withheld = await client.wait(
            lambda m: m.topic == f"{client.base}/log" and m.json["event"] == "outcome_withheld"
        )
        assert withheld.json["level"] == "error"
        assert not client.watcher.on(f"{client.box}/reply/old")
        await limit_pages(journal, 0)
        assert (await client.final("old"))["usage"]["completion_tokens"] == 3000


@in_loop
async def test_an_old_will_that_comes_late_is_answered_by_online(shared_broker, tmp_path):
    async with inner(tmp_path, shared_broker.port) as (_, _, client):
        await client.send(f"{client.base}/status", b"offline", retain=True)
        heard = await asyncio.to_thread(
            client.watcher.wait_many, lambda m: m.topic == f"{client.base}/status", 3
        )
        assert [message.payload for message in heard] == [b"online", b"offline", b"online"]


@in_loop
async def test_another_daemon_of_the_same_name_is_noticed_until_it_is_gone(shared_broker, tmp_path):
    async with inner(tmp_path, shared_broker.port) as (daemon, _, client):

        def named(message):
            return [reason["code"] for reason in message.json["reasons"]]

        healths = f"{client.base}/health"
        await client.wait(lambda m: m.topic == healths and named(m) == [])
        assert daemon.parts._router.reasons == [], "our own echo"
        daemon.parts.reporter.online_at -= 60  # a minute later
        await client.send(f"{client.base}/status", b"online", retain=True)
        told = await client.wait(
            lambda m: m.topic == f"{client.base}/log" and m.json["event"] == "node_taken"
        )
        assert told.json["level"] == "error"
        await client.wait(lambda m: m.topic == healths and named(m) == ["node_taken"])
        await client.send(f"{client.base}/status", b"offline", retain=True)
        heard = await asyncio.to_thread(
            client.watcher.wait_many, lambda m: m.topic == f"{client.base}/status", 4
        )
        assert [m.payload for m in heard] == [b"online", b"online", b"offline", b"online"]
        assert daemon.parts._router.reasons == []


@in_loop
async def test_a_run_that_began_before_its_claim_is_told_as_the_first_attempt(shared_broker, tmp_path):
    file = tmp_path / "slow.sim"
    file.write_text("rkllm-simulator 1\nprofile: instant\ndecode_ms_per_token: 20\n")
    models = [{"id": "slow", "file": file}]
    async with inner(tmp_path, shared_broker.port, models=models, drain_timeout_s=0.1) as (daemon, _, client):
        await client.ask("a", prompt="story 400 tokens", stream=True)
        await client.wait(lambda m: m.topic == f"{client.box}/delta/a")
        (turn,) = daemon.parts.dispatcher.turns
        turn.job.attempt = 0  # as it is until the claim is on disk
        assert daemon.parts.views.queue()["running"][0]["attempt"] == 1
        turn.job.attempt = 1


@in_loop
async def test_topics_that_mean_nothing_are_counted_and_never_logged_with_their_content(
    shared_broker, tmp_path
):
    async with inner(tmp_path, shared_broker.port) as (daemon, _, client):
        await client.send(f"{client.base}/client/bad name/request/x", "secret")
        logged = await client.wait(
            lambda m: m.topic == f"{client.base}/log" and m.json["event"] == "invalid_topic"
        )
        assert b"bad name" not in logged.payload
        assert daemon.parts.views.stats()["invalid_topics_total"] == 1
        await client.ask("good")
        assert (await client.final("good"))["text"] == "hello"


@in_loop
async def test_a_duplicate_is_told_its_place_and_the_last_answer_is_retained(shared_broker, tmp_path):
    async with inner(tmp_path, shared_broker.port, limits={"last_ttl_s": 1}) as (daemon, _, client):
        daemon.parts.dispatcher.paused = True
        for name in ("a", "b", "c"):
            await client.ask(name, retain=True)
        await client.ask("b", retain=True)
        told = await asyncio.to_thread(
            client.watcher.wait_many,
            lambda m: m.topic == f"{client.box}/event/b" and "accepted" in m.json["type"],
            2,
        )
        assert [(event.json["duplicate"], event.json["queue_length"]) for event in told] == [
            (False, 2),
            (True, 3),
        ]
        daemon.parts.set_flow(paused=False, draining=False)
        await client.final("c")
        last = await asyncio.to_thread(client.watcher.wait_many, lambda m: m.topic == f"{client.box}/last", 4)
        assert [json.loads(m.payload)["id"] for m in last[:3]] == ["a", "b", "c"]
        assert last[3].payload == b""  # its time is over


@in_loop
async def test_what_a_sender_answers_after_its_deadline_costs_no_memory(shared_broker, tmp_path):
    async with inner(tmp_path, shared_broker.port) as (daemon, _, client):
        for number in range(50):
            await client.ask(f"q{number}", ttl_s=600)
        for number in range(50):
            await client.final(f"q{number}")
        assert daemon.parts.live.count == 0
        assert len(daemon.parts.deadlines._heap) <= 1_100
        assert daemon.parts._background == set()
