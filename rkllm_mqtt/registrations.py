"""The prefixes that clients have registered: taken from their requests, kept in the journal, found by name.

Rule 1: a registration is on disk before its sender is told; a change that the disk does not take is none.
Rule 2: what a wish to be warm is made ready with is decided at its receipt: later changes do not touch it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from msgspec.structs import replace

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.allowance import Allowances, Rate
from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.errors import Code, Fault, RequestError
from rkllm_mqtt.core.job import JobEvent
from rkllm_mqtt.core.live import LiveJobs
from rkllm_mqtt.core.prefixes import Change, Prefix, Prefixes, Uses
from rkllm_mqtt.core.verdict import Ended
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.outcomes import Outcomes, Produced
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.store.prefixes import PrefixRow

log = get_logger(__name__)

_WARM_BURST = 10
_NOTED_EVERY_S = 60.0
"""The uses of a prefix are stored at most so often: a spoken turn uses it several times."""
_TOO_MANY = "Send `unregister` for one of them, or use one of their names."
_DONE = Ended(JobEvent.COMPLETED, "stop")


class Registrations:
    """What is registered, and the requests that change it."""

    def __init__(
        self,
        config: Config,
        live: LiveJobs,
        journal: Journal,
        outcomes: Outcomes,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the arguments.

        Args:
            config: Of the daemon.
            live: The unfinished jobs.
            journal: Open.
            outcomes: Where a registration ends.
            clock: Unix seconds.
        """
        limits = config.limits
        self._live = live
        self._journal = journal
        self._outcomes = outcomes
        self._changing = asyncio.Lock()
        self._noted: dict[tuple[str, str], float] = {}
        """When the uses of each were stored last."""
        self._working: set[asyncio.Task[None]] = set()
        self.on_change: Callable[[], None] = lambda: None
        """Called when another prefix may be worth computing."""
        self._clock = clock
        self._warms = Allowances(limits.client_states)
        self._rate = Rate(limits.warms_per_minute / 60, _WARM_BURST, _WARM_BURST)
        self.prefixes = Prefixes(limits.prefixes, limits.client_prefixes)

    async def recover(self) -> None:
        """Take up what an earlier process kept or left undone; what cannot be read is forgotten."""
        for row in await self._journal.prefixes():
            try:
                request = ChatRequest.from_json(row.request)
            except (ValueError, KeyError, TypeError) as exc:
                log.error("prefix_unreadable", client=row.client, name=row.name, error=type(exc).__name__)
                await self._journal.forget_prefix(row.client, row.name)
                continue
            uses = Uses.from_json(row.uses)
            self.prefixes.restore(Prefix(row.client, row.name, request, row.ttl_s, row.used_at, uses))
        await self.expire()
        for job in filter(_is_registration, self._live.all()):
            self._live.take(job)
            await self._carry_out(job)

    def take(self, job: Job) -> bool:
        """Carry out a new job that asks for no slot; False for every other one, which is left alone."""
        if not _is_registration(job):
            return False
        self._live.take(job)  # now: whoever looks for work meanwhile must not find it
        working = asyncio.get_running_loop().create_task(self._carry_out(job), name=f"prefix-{job.seq}")
        self._working.add(working)
        working.add_done_callback(self._working.discard)
        return True

    def prepare(self, client: str, request: ChatRequest) -> tuple[ChatRequest, Fault | None]:
        """Return a request with what it needs of the registrations, or why it cannot be taken.

        One that asks for an answer is returned as it is.
        """
        wish = request.prefix
        if wish is None:
            return request, None
        if wish.verb == "register" and not self.prefixes.has_room(client, wish.name or ""):
            most = self.prefixes.most_of_client
            return request, Fault(Code.CLIENT_LIMIT, f"this client has {most} registered prefixes", _TOO_MANY)
        if wish.verb != "warm":
            return request, None
        if not self._warms.spend(client, time.monotonic(), self._rate):
            return request, Fault(
                Code.RATE_LIMITED,
                f"this client asks for warmth more often than {60 * self._rate.per_s:g} times a minute",
                "Ask when a person begins to speak, not in advance.",
                60.0,
            )
        if wish.name is None:
            return request, None
        prefix = self.prefixes.find(client, wish.name)
        if prefix is None:
            return request, Fault(
                Code.INVALID_REQUEST,
                f"there is no registered prefix {wish.name!r}",
                "Register it first; names are each client's own.",
            )
        self.note_use(prefix)
        known = prefix.request
        return replace(
            request, messages=known.messages, tools=known.tools, model=known.model, lora=known.lora
        ), None

    async def _carry_out(self, job: Job) -> None:
        """Do what a request to register or to unregister asks, and end it; its job waits no more."""
        job.attempt = 1
        await self._outcomes.keep(lambda: self._journal.claim(job.seq, 1))
        try:
            async with self._changing:
                told = await self._change(job)
        except StoreError as exc:
            fault = Fault(Code.INTERNAL, f"the prefix cannot be stored: {exc}", exc.hint, 30)
            await self._outcomes.end(job, Ended(JobEvent.GAVE_UP, "error", fault), Produced())
        except RequestError as exc:
            await self._outcomes.end(job, Ended(JobEvent.GAVE_UP, "error", exc.fault), Produced())
        else:
            await self._outcomes.end(job, _DONE, Produced(members={"prefix": told}))
            self.on_change()

    async def create(self, client: str, name: str, request: ChatRequest, ttl_s: float) -> Change:
        """Register a prefix without a job; an administrator may have more of them than a client.

        Raises:
            StoreError: The journal cannot be written.
        """
        async with self._changing:
            change = await self._register(client, name, request, ttl_s)
        self.on_change()
        return change

    async def remove(self, client: str, name: str) -> Change:
        """Forget a prefix without a job.

        Raises:
            StoreError: The journal cannot be written.
        """
        async with self._changing:
            await self._journal.forget_prefix(client, name)
            change = self.prefixes.remove(client, name)
        self.on_change()
        return change

    def note_use(self, prefix: Prefix) -> None:
        """Count a use; it is stored with whatever is stored next, or with a later use."""
        when = time.localtime(self._clock())
        prefix.used_at = self._journal.now()
        prefix.uses.count(day_of(when), when.tm_hour)
        if prefix.used_at - self._noted.get(prefix.key, float("-inf")) < _NOTED_EVERY_S:
            return
        self._noted[prefix.key] = prefix.used_at
        noted = self._journal.note_prefix_use(prefix.client, prefix.name, prefix.uses.to_json())
        noted.add_done_callback(lambda done: done.cancelled() or done.exception())  # a count may be lost

    async def expire(self) -> None:
        """Forget what nobody used for long.

        Raises:
            StoreError: The journal cannot be written.
        """
        for prefix in self.prefixes.expire(self._journal.now()):
            log.info("prefix_expired", client=prefix.client, name=prefix.name)
            self._noted.pop(prefix.key, None)
            await self._journal.forget_prefix(*prefix.key)

    async def _change(self, job: Job) -> Mapping[str, Any]:
        """Register or unregister; return what is told of it.

        Raises:
            RequestError: Others were registered while this one was being stored.
            StoreError: The journal cannot be written.
        """
        wish = job.request.prefix
        assert wish is not None
        name = wish.name or ""
        if wish.verb == "unregister":
            await self._journal.forget_prefix(job.client, name)
            return {"name": name, "state": self.prefixes.remove(job.client, name)}
        if not self.prefixes.has_room(job.client, name):
            raise RequestError(Code.CLIENT_LIMIT, "this client has registered other prefixes", _TOO_MANY)
        change = await self._register(job.client, name, job.request, wish.ttl_s)
        return {"name": name, "state": change, "ttl_s": wish.ttl_s}

    async def _register(self, client: str, name: str, request: ChatRequest, ttl_s: float) -> Change:
        old = self.prefixes.find(client, name)
        kept = ChatRequest(
            messages=request.messages,
            tools=request.tools,
            model=request.model,
            lora=request.lora,
            max_tokens=request.max_tokens,
        )
        uses = (Uses() if old is None else old.uses).to_json()
        now = self._journal.now()
        await self._journal.keep_prefix(PrefixRow(client, name, kept.to_json(), ttl_s, now, uses))
        _, change, gone = self.prefixes.register(client, name, kept, ttl_s, now)
        for lost in gone:
            await self._journal.forget_prefix(*lost.key)
        return change


def _is_registration(job: Job) -> bool:
    """Return whether a job needs no slot: it registers a prefix, or takes it back."""
    wish = job.request.prefix
    return wish is not None and wish.verb != "warm"


def day_of(when: time.struct_time) -> int:
    """Return the number of a calendar day."""
    return date(when.tm_year, when.tm_mon, when.tm_mday).toordinal()
