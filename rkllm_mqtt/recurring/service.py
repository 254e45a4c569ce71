"""Ask the recurring prompts when their time has come, once each, through restarts and a clock that is set.

Rule 1: a time of a schedule has an id of its own: asking it again is a duplicate and not a second run.
Rule 2: what was dealt with is in the journal behind the request itself: a crash between the two asks again,
and the journal knows the id.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from rkllm_mqtt.config.schedules import ScheduleConfig
from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.errors import Fault
from rkllm_mqtt.core.recurrence import Recurrence
from rkllm_mqtt.core.topics import ClientTopic, Mailbox, Topics, Verb
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Inbound, Outbound
from rkllm_mqtt.recurring.question import Question
from rkllm_mqtt.recurring.trigger import build_times, zone_of
from rkllm_mqtt.recurring.values import Values
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_LOOK_S = 1.0
"""Longest sleep: so soon a clock that was set is noticed."""
_RETRY_S = 30.0
_META = "schedule:"

Submit = Callable[[Inbound, ClientTopic, bool], Awaitable[Fault | None]]
"""Takes a request as if the broker had sent it; the flag asks for bare text. Returns why it was refused."""


class _Plan(Struct):
    """One schedule and where it stands."""

    config: ScheduleConfig
    recurrence: Recurrence
    question: Question
    last: float
    """Unix seconds: the newest time that was dealt with."""
    paused: bool
    asked: int = 0
    missed: int = 0
    refused: str | None = None
    last_id: str | None = None
    retry_at: float = 0.0

    def name_of(self, moment: float) -> str:
        return f"{self.config.id}.{datetime.fromtimestamp(moment, UTC):%Y%m%dT%H%M%SZ}"


class Recurring:
    """All schedules of this daemon."""

    def __init__(
        self,
        schedules: Sequence[ScheduleConfig],
        topics: Topics,
        journal: Journal,
        submit: Submit,
        publish: Callable[[Outbound], object],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the arguments and read where each schedule stands.

        Args:
            schedules: As configured.
            topics: Of this node.
            journal: Open.
            submit: Of the intake.
            publish: Of the session.
            clock: Unix seconds.

        Raises:
            ConfigError: A crontab expression or a template cannot be read.
        """
        self._topics = topics
        self._journal = journal
        self._submit = submit
        self._publish = publish
        self._clock = clock
        self._wake = asyncio.Event()
        self._told = b""
        self.values = Values(topic for schedule in schedules for topic in schedule.values.values())
        self._plans = {schedule.id: self._plan(schedule) for schedule in schedules}

    @property
    def names(self) -> list[str]:
        """Return the ids of the schedules."""
        return list(self._plans)

    def members(self) -> dict[str, Any]:
        """Return the members of the topic `schedules`: when each is asked next, and how it went."""
        now = self._clock()
        return {"schedules": [self._shown(plan, now) for plan in self._plans.values()]}

    def announce(self) -> None:
        """Publish everything again: the broker may have forgotten it."""
        self._told = b""
        self._tell()

    async def run(self) -> None:
        """Ask what is due; cancelled by the daemon's task group."""
        while self._plans:
            self._wake.clear()
            await self.look()
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Ask what is due now."""
        now = self._clock()
        for plan in self._plans.values():
            await self._look_at(plan, now)
        self._tell()

    async def ask_now(self, name: str) -> str:
        """Ask a schedule's prompt out of its time; return the id of the request.

        Raises:
            KeyError: There is no such schedule.
            ValueError: It was refused, with the reason.
        """
        plan = self._plans[name]
        request_id = f"{name}.run-{int(self._clock() * 1000)}"
        fault = await self._ask(plan, request_id)
        if fault is not None:
            raise ValueError(fault)
        self._tell()
        return request_id

    async def pause(self, name: str, *, paused: bool) -> None:
        """Ask no more, or again from now on; that stands until it is changed, also after a restart.

        Raises:
            KeyError: There is no such schedule.
        """
        plan = self._plans[name]
        if plan.paused and not paused:
            plan.last = self._clock()
        plan.paused = paused
        await self._store(plan)
        self._tell()
        self._wake.set()

    # one schedule

    def _plan(self, schedule: ScheduleConfig) -> _Plan:
        stored: Mapping[str, Any] = json.loads(self._journal.meta.get(_META + schedule.id, "{}"))
        now = self._clock()
        # A calendar that is new begins now; one date is also asked when it passed a moment ago.
        first = now - schedule.misfire_grace_s if schedule.at is not None else now
        return _Plan(
            schedule,
            Recurrence(
                schedule.id,
                build_times(schedule),
                schedule.misfire_grace_s,
                schedule.coalesce,
                schedule.jitter_s,
            ),
            Question(schedule),
            last=stored.get("last", first),
            paused=stored.get("paused", schedule.paused),
            asked=stored.get("asked", 0),
            last_id=stored.get("last_id"),
        )

    async def _look_at(self, plan: _Plan, now: float) -> None:
        due = plan.recurrence.due(plan.last, now)
        if plan.paused:
            plan.last = max(plan.last, due.last) if due.times else plan.last
            return
        if due.last < plan.last:  # the clock was set back
            log.warning("clock_set_back", schedule=plan.config.id, seconds=plan.last - now)
            plan.last = due.last
        if not due.times or self._clock() < plan.retry_at <= self._clock() + _RETRY_S:
            return
        for moment in due.times:
            fault = await self._ask(plan, plan.name_of(moment))
            if fault is not None:  # it is tried again until its grace is over
                plan.retry_at = self._clock() + _RETRY_S
                return
            plan.last = moment
            await self._store(plan)
        plan.last = due.last
        plan.missed += due.missed

    async def _ask(self, plan: _Plan, request_id: str) -> str | None:
        """Ask, unless the journal knows the id; return why it was refused."""
        try:
            plan.refused = await self._hand_in(plan, request_id)
        except (StoreError, ValueError) as exc:
            plan.refused = str(exc)
        if plan.refused is not None:
            log.warning("schedule_refused", schedule=plan.config.id, reason=plan.refused)
            return plan.refused
        plan.asked += 1
        plan.last_id = request_id
        log.info("schedule_asked", schedule=plan.config.id)
        return None

    async def _hand_in(self, plan: _Plan, request_id: str) -> str | None:
        config = plan.config
        mailbox = Mailbox(self._topics.base, self._topics.node, config.client)
        if await self._journal.find(mailbox.target, mailbox.client, request_id) is not None:
            return None
        values = {name: self.values.text(topic) for name, topic in config.values.items()}
        payload = plan.question.payload(values, datetime.fromtimestamp(self._clock(), zone_of(config)))
        message = _message(mailbox, request_id, payload, config.reply_topic)
        where = ClientTopic(mailbox, Verb.REQUEST, request_id)
        fault = await self._submit(message, where, config.format == "text")
        return None if fault is None else fault.message

    async def _store(self, plan: _Plan) -> None:
        state = {"last": plan.last, "paused": plan.paused, "asked": plan.asked, "last_id": plan.last_id}
        try:
            await self._journal.set_meta(_META + plan.config.id, json.dumps(state))
        except StoreError as exc:
            log.warning("schedule_not_noted", schedule=plan.config.id, reason=str(exc))

    def _pause_s(self) -> float:
        now = self._clock()
        soonest = _LOOK_S
        for plan in self._plans.values():
            due_at = None if plan.paused else plan.recurrence.next_at(plan.last, now)
            if due_at is not None:
                soonest = min(soonest, max(due_at, plan.retry_at) - now)
        return max(0.0, soonest)

    def _shown(self, plan: _Plan, now: float) -> dict[str, Any]:
        next_at = plan.recurrence.next_at(plan.last, now)
        zone = zone_of(plan.config)
        state = "paused" if plan.paused else "done" if next_at is None else "active"
        shown = (
            None if next_at is None or plan.paused else datetime.fromtimestamp(int(next_at), zone).isoformat()
        )
        return {
            "id": plan.config.id,
            "state": state,
            "next_at": shown,
            "client": plan.config.client,
            "priority": plan.config.priority,
            "asked": plan.asked,
            "missed": plan.missed,
            "last_id": plan.last_id,
            "refused": plan.refused,
        }

    def _tell(self) -> None:
        payload = encode(self.members())
        if self._plans and payload != self._told:
            self._told = payload
            self._publish(Outbound(self._topics.state("schedules"), payload, qos=1, retain=True))


def _message(mailbox: Mailbox, request_id: str, payload: bytes, reply_topic: str | None) -> Inbound:
    """Return the request as if a client of ours had sent it at QoS 0: there is nobody to acknowledge to."""
    return Inbound(
        topic=mailbox.topic("request", request_id),
        payload=payload,
        qos=0,
        retain=False,
        dup=False,
        mid=0,
        response_topic=reply_topic,
        correlation_data=None,
        content_type="application/json",
        message_expiry_s=None,
        user_properties=(),
        connection=0,
        session="",
    )
