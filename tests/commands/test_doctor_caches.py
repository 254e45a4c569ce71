"""What `rkllm-mqtt doctor --probe` finds out about caches, with and without a daemon."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_slot import slot_config

from rkllm_mqtt.commands.doctoring.caches import check_caches
from rkllm_mqtt.commands.doctoring.caches_probe import CachesProbe, Learned, probe_caches
from rkllm_mqtt.commands.doctoring.finding import Finding, Level
from rkllm_mqtt.config import Config
from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.store.reading import reader

said: list[str] = []


@pytest.fixture(autouse=True)
def _no_handlers() -> Iterator[None]:
    log = logging.getLogger("rkllm_mqtt")
    before = log.handlers[:]
    yield
    log.handlers[:] = before


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    """Return the configuration of a daemon with one model, `talk`."""

    def made(*lines: str, **settings: Any) -> Config:
        file = tmp_path / "talk.sim"
        file.write_text("\n".join(["rkllm-simulator 1", "profile: instant", *lines, ""]))
        return slot_config(file, journal={"path": tmp_path / "state" / "journal.db"}, **settings)

    return made


def told(findings: list[Finding], level: Level = Level.OK) -> dict[str, str]:
    return {finding.check: finding.sentence for finding in findings if finding.level is level}


def kept(path: Path) -> Any:
    with reader(path) as connection:
        rows = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    return json.loads(rows["facts:talk"])


def make_journal(config: Config, facts: dict[str, Any] | None = None) -> None:
    """Leave a journal as a daemon of this user does."""

    async def make() -> None:
        journal = await Journal.open(config.journal.path, ballast_mb=0)
        if facts is not None:
            await journal.set_meta(
                "facts:talk", json.dumps({"of": [], "facts": facts, "begun": {}, "done": []})
            )
        await journal.close()

    asyncio.run(make())


def test_what_is_learned_is_said_in_words_and_kept_for_the_daemon(config: Callable[..., Config]) -> None:
    asked = config("reuse_granularity: 16", "reuse_aborted: no", "cache_stays: no")
    make_journal(asked)
    probe = probe_caches(asked, said.append)
    assert (probe.asked, probe.kept, probe.problem) == (True, True, "")
    assert "talk" in said[-1]
    findings = check_caches(probe)
    assert {finding.group for finding in findings} == {"Caches of talk"}
    assert told(findings)["blocks"].endswith("in blocks of 16 tokens.")
    assert told(findings)["aborted runs"].endswith("is computed again.")
    assert told(findings)["file kept"] == "A loaded file helps the next run only."
    assert told(findings)["files"].startswith("1,000 tokens take 29 MB")
    assert kept(asked.journal.path)["facts"] == probe.models["talk"].facts.to_json()
    assert not (asked.journal.path.parent / "probe").exists()


def test_without_a_journal_nothing_is_left_behind(config: Callable[..., Config]) -> None:
    asked = config("reuse: no")
    probe = probe_caches(asked, said.append)
    assert (probe.kept, probe.models["talk"].facts.reuses_finished) == (False, False)
    assert not asked.journal.path.parent.exists()
    findings = check_caches(probe)
    assert "not kept" in told(findings, Level.SKIPPED)["journal"]
    assert told(findings, Level.SKIPPED)["answers"] == "Not known."
    assert "not used" in told(findings, Level.SKIPPED)["files"]


def test_beside_a_running_daemon_what_it_has_learned_is_told(config: Callable[..., Config]) -> None:
    asked = config()
    make_journal(asked, {"reuses_finished": True, "granularity": 1})

    async def beside() -> CachesProbe:
        journal = await Journal.open(asked.journal.path, ballast_mb=0)
        try:
            return await asyncio.to_thread(probe_caches, asked, said.append)
        finally:
            await journal.close()

    probe = asyncio.run(beside())
    assert not probe.asked
    assert probe.models == {"talk": Learned(CacheFacts(reuses_finished=True, granularity=1))}
    first, *rest = check_caches(probe)
    assert "is running" in first.sentence
    assert "`probe`" in first.advice
    assert told(rest)["blocks"].endswith("counts to the token.")


def test_a_library_that_dies_is_warned_of_and_the_rest_is_asked(config: Callable[..., Config]) -> None:
    asked = config("on run 12: fault segv")
    findings = check_caches(probe_caches(asked, said.append))
    (sentence,) = told(findings, Level.WARN).values()
    assert "(files)" in sentence
    assert told(findings)["prompts"]


def test_models_that_cannot_be_asked_say_why(config: Callable[..., Config], tmp_path: Path) -> None:
    (learned,) = probe_caches(config(n_batch=2), said.append).models.values()
    assert "batches" in learned.problem
    (tmp_path / "talk.sim").unlink()
    broken = slot_config(tmp_path / "talk.sim")
    findings = check_caches(probe_caches(broken, said.append))
    assert "cannot be loaded" in told(findings, Level.SKIPPED)["probe"]


def test_a_journal_that_cannot_be_read_is_said(config: Callable[..., Config]) -> None:
    asked = config()
    make_journal(asked)
    asked.journal.path.write_bytes(b"no journal at all" * 100)
    (finding,) = check_caches(probe_caches(asked, said.append))
    assert finding.level is Level.SKIPPED
    assert "was not asked" in finding.sentence
