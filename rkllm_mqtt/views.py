"""Build the members of the retained topics from the live parts; reads everything, changes nothing."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from rkllm_mqtt import __version__
from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import Catalogue, Entry
from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.core.health import (
    SMALL_PACKET_BYTES,
    Reason,
    packets_small,
    publish_refused,
    subscription_refused,
)
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.pace import Pace, percentile
from rkllm_mqtt.core.topics import Topics
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.dispatcher import Dispatcher
from rkllm_mqtt.host.disk import free_mb
from rkllm_mqtt.host.memory import rss_mb
from rkllm_mqtt.host.npu import BoardReader
from rkllm_mqtt.mqtt.session import Session
from rkllm_mqtt.outbox import Outbox
from rkllm_mqtt.runtime.order import DEMO_CONTEXT_TOKENS
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.scheduler import Scheduler
from rkllm_mqtt.store.journal import Journal

LIMIT_CODES = (Code.RATE_LIMITED, Code.CLIENT_LIMIT, Code.QUEUE_FULL, Code.TOO_LARGE, Code.INTERNAL)
"""Refusals by the limits of the configuration, counted one by one; `internal` is a full disk or journal."""

_LOW_DISK_MB = 200
_OLD_DRIVER = (0, 9, 7)
_MOST_FAULTY = 5
"""Model files that `health` names; `info` has all."""
FEATURES = (
    "chat",
    "stream",
    "cancel",
    "last",
    "duplicates",
    "tools",
    "response_format",
    "conversations",
    "evaluate",
    "embed",
    "prefixes",
    "warm",
    "admin",
)


class DaemonViews:
    """What the outside may see."""

    def __init__(
        self,
        config: Config,
        topics: Topics,
        live: LiveJobs,
        counters: Counters,
        journal: Journal,
        slot: Slot,
        catalogue: Catalogue,
        dispatcher: Dispatcher,
        scheduler: Scheduler,
        outbox: Outbox,
        session: Session,
        *,
        uid: str,
        boot_id: str,
        accepting: Callable[[], bool],
        prefix: Callable[[], Mapping[str, str] | None],
        unapplied: Callable[[], list[Reason]],
    ) -> None:
        self._config = config
        self._topics = topics
        self._live = live
        self._counters = counters
        self._journal = journal
        self._slot = slot
        self._catalogue = catalogue
        self._dispatcher = dispatcher
        self._scheduler = scheduler
        self._outbox = outbox
        self._session = session
        self._uid = uid
        self._boot_id = boot_id
        self._accepting = accepting
        self._prefix = prefix
        self._unapplied = unapplied
        self._started_at = time.time()
        self._started = time.monotonic()
        self._board = BoardReader(config.sysfs_root)
        self._driver: str | None = None

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._config = config

    def info(self) -> Mapping[str, Any]:
        """Return the static facts."""
        facts, limits = self._slot.facts, self._config.limits
        return {
            "schema": "1.0",
            "uid": self._uid,
            "node": self._config.node,
            "base": self._config.base,
            "software": "rkllm-mqtt",
            "version": __version__,
            "boot_id": self._boot_id,
            "started_at": int(self._started_at),
            "runtime": {
                "version": facts.version,
                "abi": facts.abi,
                "driver": self._driver or facts.output.get("driver"),
                "platform": facts.output.get("platform"),
                "simulated": facts.simulated,
            },
            "models": [self._model(entry) for entry in self._catalogue.entries],
            "features": list(FEATURES if self._config.admin.enabled else FEATURES[:-1]),
            "presets": sorted(self._config.presets),
            "limits": limits.model_dump(),
            "topics": self._topics.templates(),
            "groups": list(self._config.groups) if self._session.shared_subscriptions else [],
        }

    def queue(self) -> Mapping[str, Any]:
        """Return the queue."""
        now, staged, running = self._journal.now(), self.staged(), self._running()
        oldest = [job for job in (*staged, self._live.waiting.oldest) if job]
        length = len(staged) + len(self._live.waiting)
        total = max(self._slot.columns, len(running))
        by_priority = {priority: self._live.waiting.count(priority) for priority in Priority}
        for job in staged:
            by_priority[job.priority] += 1
        return {
            "state": self.state(),
            "accepting": self._accepting(),
            "length": length,
            "limit": self._config.limits.queue_length,
            "slots": {"total": total, "active": len(running), "available": total - len(running)},
            "running": running,
            "waiting_by_priority": {priority.label: count for priority, count in by_priority.items()},
            "oldest_wait_s": max((round(now - job.queued_at, 1) for job in oldest), default=0),
            "eta_s": self._scheduler.outlooks.all_done_s() if length else None,
        }

    def staged(self) -> list[Job]:
        """Return the job that the worker holds ready but has not begun: it still waits."""
        return [turn.job for turn in self._dispatcher.turns if turn.staged]

    def state(self) -> str:
        """Return idle, busy, paused or draining."""
        if self._dispatcher.paused:
            return "paused"
        if not self._accepting():
            return "draining"
        return "busy" if self._live.count else "idle"

    def status_line(self) -> str:
        """Return what the daemon does, in one line for the service manager."""
        if not self._session.connected:
            return f"no broker: {self._session.last_error or 'connecting'}"
        waiting = f"{len(self._live.waiting)} waiting"
        if self._slot.problem is not None:
            return f"no model: {self._slot.problem.message} ({waiting})"
        if self._slot.unloaded:
            return f"idle, no model loaded ({waiting})"
        if self._slot.loaded is None:
            return f"loading {self._slot.wanted} ({waiting})"
        return f"{self.state()} with {self._slot.loaded}, {waiting}"

    def health(self) -> tuple[Mapping[str, Any], list[Reason]]:
        """Return the members of health, and what is wrong."""
        board, slot = self._board.read(), self._slot
        self._driver = board.driver_version
        loop_time = asyncio.get_running_loop().time()
        disk = free_mb(self._config.journal.path.parent)
        members = {
            "boot_id": self._boot_id,
            "simulated": slot.facts.simulated,
            "model_loaded": slot.loaded,
            "model_unloaded": slot.unloaded,
            "prefix": self._prefix(),
            "worker": {
                "pid": slot.pid,
                "restarts": slot.restarts,
                "uptime_s": None if slot.ready_since is None else round(loop_time - slot.ready_since),
            },
            "npu": board.npu_facts(),
            "driver": board.driver_version or slot.facts.output.get("driver"),
            "disk_free_mb": disk,
            "broker": {"protocol": self._session.protocol, "reconnects": max(0, self._session.reconnects)},
        }
        return members, self._reasons(disk, board.driver_version)

    def stats(self) -> Mapping[str, Any]:
        """Return flat numbers, each of which a person may plot."""
        counters, pace = self._counters, self._pace(self._slot.wanted)
        holds, savings = self._live.policy.holds, self._scheduler.savings
        cache = self._scheduler.cache
        uptime = time.monotonic() - self._started
        pid = self._slot.pid
        members: dict[str, Any] = {
            "jobs_waiting": len(self._live.waiting),
            "jobs_running": len(self._running()),
            "jobs_accepted_total": counters.accepted,
            "jobs_succeeded_total": counters.succeeded,
            "jobs_failed_total": counters.failed,
            "jobs_cancelled_total": counters.cancelled,
            "jobs_expired_total": counters.expired,
            "jobs_rejected_total": counters.rejected,
            **{f"rejected_{code.value}_total": counters.rejected_by_code[code] for code in LIMIT_CODES},
            "requests_dropped_total": counters.dropped,
            "jobs_retried_total": counters.retried,
            "jobs_preempted_total": counters.preempted,
            "tokens_discarded_total": counters.tokens_discarded,
            "jobs_redelivered_total": counters.redelivered,
            "tokens_generated_total": counters.tokens_generated,
            "tokens_prompt_total": counters.tokens_prompt,
            "tokens_cached_total": counters.tokens_cached,
            "prefix_hits_total": savings.hits,
            "prefix_hit_percent": savings.hit_percent,
            "prefix_saved_s_total": round(savings.seconds, 1),
            "prefix_restores_total": cache.counts.restores,
            "prefix_saves_total": cache.counts.saves,
            "prefix_file_failures_total": cache.counts.failures,
            "prefix_files_mb": cache.mb,
            "prefix_disk_written_mb": round(cache.ledger.written / 1e6, 1),
            **_quantiles("ttft_ms", pace.ttft_ms),
            **_quantiles("tokens_per_s", pace.tokens_per_s),
            "slot_busy_percent": round(100 * counters.busy_s / uptime, 2) if uptime else 0,
            "hold_percent": round(100 * holds.held_s / uptime, 2) if uptime else 0,
            "holds_total": holds.count,
            "worker_restarts_total": self._slot.restarts,
            "tasks": len(asyncio.all_tasks()),
            "worker_recycles_total": self._slot.recycles,
            "rss_mb": rss_mb(),
            "worker_rss_mb": rss_mb(pid) if pid is not None else None,
            "uptime_s": round(uptime),
            "journal_commits_total": self._journal.commits,
            "journal_commit_ms_last": round(self._journal.last_commit_ms, 3),
            "journal_bytes": self._journal.bytes,
            "deltas_dropped_total": self._session.dropped,
            "outbox_pending": self._outbox.pending,
            "ignored_retained_total": counters.ignored_retained,
            "invalid_topics_total": counters.invalid_topics,
        }
        return members

    def _pace(self, model_id: str) -> Pace:
        return self._scheduler.paces[model_id]

    def _running(self) -> list[dict[str, Any]]:
        now = asyncio.get_running_loop().time()
        return [
            {
                "id": turn.job.id,
                "client": turn.job.client,
                "priority": turn.job.priority.label,
                "attempt": max(1, turn.job.attempt),  # it may run before it is claimed
                "tokens": turn.run.tokens,
                "max_tokens": turn.job.request.max_tokens,
                "elapsed_s": round(now - turn.run.started_at, 1),
            }
            for turn in self._dispatcher.turns
            if turn.run.started_at is not None and not turn.run.ended.done()
        ]

    def _model(self, entry: Entry) -> dict[str, Any]:
        model, fault, facts = entry.settings, entry.fault, self._slot.facts
        able = {"chat"}
        if model is not None and model.thinking != "none":
            able.add("thinking")
        if model is not None and model.n_batch > 1:
            able.add("batch")
        if facts.capabilities.get("per_run_sampling"):
            able.add("sampling")
        single = model is None or (model.n_batch == 1 and model.template != "runtime")
        if single and facts.capabilities.get("arrays"):
            able |= {"embed", "evaluate"} if facts.capabilities.get("logits") else {"embed"}
        return {
            "id": entry.id,
            "file": model.file.name if model else "demo.sim",
            "loras": [lora.id for lora in model.loras] if model else [],
            "context_tokens": model.context_tokens if model else DEMO_CONTEXT_TOKENS,
            "loaded": self._slot.loaded == entry.id,
            "pinned": model is not None and model.pinned,
            "load_s": round(self._slot.loads.seconds(entry.id), 1),
            "capabilities": sorted(able),
            "fault": None if fault is None else {"message": fault.message, "hint": fault.hint},
        }

    def _faulty_models(self) -> list[Reason]:
        """Return the models that cannot be loaded, but the one that the slot tells of."""
        told = self._slot.wanted if self._slot.problem is not None else None
        return [
            Reason("model_file", entry.fault.message, entry.fault.hint)
            for entry in self._catalogue.entries
            if entry.fault is not None and entry.id != told
        ][:_MOST_FAULTY]

    def _reasons(self, disk_mb: int | None, driver: str | None) -> list[Reason]:
        wedge = self._slot.wedged.reason(serious=self._slot.loaded is None)
        reasons = [reason for reason in (wedge, self._slot.problem) if reason]
        reasons += self._unapplied()
        reasons += self._faulty_models()
        reasons += self._dispatcher.batching.reasons
        reasons += [Reason("runtime_warning", text) for text in self._slot.facts.warnings]
        if not self._journal.healthy:
            reasons.append(
                Reason(
                    "journal",
                    self._journal.last_error or "the disk is full",
                    "Free some space.",
                    serious=True,
                )
            )
        elif disk_mb is not None and disk_mb < _LOW_DISK_MB:
            reasons.append(
                Reason("disk_low", f"only {disk_mb} MB are free beside the journal", "Free some space.")
            )
        if driver and _version(driver) < _OLD_DRIVER:
            reasons.append(
                Reason("driver_old", f"the NPU driver is {driver}", "Upgrade the kernel: 0.9.8 is needed.")
            )
        if self._session.taken_over:
            reasons.append(
                Reason(
                    "taken_over",
                    "another client uses our MQTT client id",
                    "Stop the other daemon of this node.",
                )
            )
        if refused := self._session.refused_topics:
            reasons.append(publish_refused(map(self._topics.kind, refused)))
        elif self._outbox.refused:
            reasons.append(
                Reason(
                    "answer_refused",
                    f"the broker did not take an answer of ours: {self._outbox.refused}",
                    "Raise its largest packet, or lower `limits.reply_bytes`.",
                )
            )
        largest = self._session.maximum_packet_bytes
        if largest is not None and largest < SMALL_PACKET_BYTES:
            reasons.append(packets_small(largest))
        if self._session.refused_subscriptions:
            reasons.append(subscription_refused(self._session.refused_subscriptions))
        return reasons


def _quantiles(name: str, values: Any) -> dict[str, float | None]:
    figures = {
        f"{name}_last": values[-1] if values else None,
        f"{name}_p50": percentile(values, 0.5),
        f"{name}_p95": percentile(values, 0.95),
    }
    return {key: None if value is None else round(value, 2) for key, value in figures.items()}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
