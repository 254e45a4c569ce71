"""An intake on a real journal, and a recorder in the place of its neighbours."""

import asyncio
import inspect
import itertools
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.errors import Fault
from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.core.live import Counters, LiveJobs
from rkllm_mqtt.core.topics import Mailbox, Topics
from rkllm_mqtt.intake.neighbours import Neighbours
from rkllm_mqtt.intake.parsing import RequestParser
from rkllm_mqtt.intake.reception import Reception
from rkllm_mqtt.intake.rejections import Rejections
from rkllm_mqtt.mqtt.messages import Inbound
from rkllm_mqtt.store.journal import Journal


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a coroutine test in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@dataclass
class Desk:
    """The intake with everything beside it; `calls` is what it asked of its neighbours, in order."""

    config: Config
    journal: Journal
    live: LiveJobs = field(default_factory=LiveJobs)
    counters: Counters = field(default_factory=Counters)
    calls: list = field(default_factory=list)
    fault: Fault | None = None
    """What `refusal` says."""
    capabilities: dict | None = None
    frees_in_s: float | None = None
    idle: bool = False
    """The slot takes a job while it is being stored."""
    too_late: object = None
    unprepared: Fault | None = None
    """Why no wish for a prefix is taken."""
    failing: str = ""
    """The neighbour that raises: only `cancel` is tried."""

    def __post_init__(self):
        self.parser = RequestParser(self.config, configured_catalogue(self.config))
        topics = Topics(self.config.base, self.config.node, self.config.groups, self.config.reply_topics)
        self.topics = topics
        self._mids = itertools.count(1)
        self.reception = Reception(
            self.config,
            topics,
            self.parser,
            self.live,
            self.counters,
            self.journal,
            Rejections(self.config.node, self.counters, self._sent),
            Neighbours(
                ack=lambda message: self._note("ack", message.mid),
                accepted=lambda job, duplicate, ignored: self._note("accepted", job, duplicate, ignored),
                begin_early=self._begin_early,
                queued=lambda job: self._note("queued", job),
                cancel=self._cancel,
                resend=lambda record, address: self._note("resend", record, address),
                cancel_unknown=lambda address, wanted: self._note("cancel_unknown", address, wanted),
                refusal=lambda model: self.fault,
                too_late=lambda job: self.too_late,
                capabilities=lambda: self.capabilities,
                frees_in_s=lambda client: self.frees_in_s,
                prepare=lambda client, request: (request, self.unprepared),
                send=self._sent,
            ),
        )

    def change(self, **sections):
        """Take over a changed configuration."""
        self.config = Config.model_validate({"node": self.config.node, **sections})
        self.parser.apply(self.config)
        self.reception.apply(self.config)

    def _note(self, *call):
        # The session ignores the second ack of a message, and so does this record.
        if call[0] != "ack" or call not in self.calls:
            self.calls.append(call)

    def _sent(self, message):
        self._note("sent", message)
        return True

    def _begin_early(self, job):
        if not self.idle:
            return None
        stored = asyncio.get_running_loop().create_future()
        self._note("begin_early", job, stored)
        return stored

    async def _cancel(self, job):
        if self.failing == "cancel":
            raise RuntimeError("a bug of ours")
        await self.journal.request_cancel(job.seq)
        self._note("cancel", job)

    def of(self, kind):
        return [call[1:] for call in self.calls if call[0] == kind]

    @property
    def kinds(self):
        return [call[0] for call in self.calls]

    def sent(self):
        """Return {last levels of the topic: payload} of what was published, JSON parsed."""
        return {
            message.topic.split("/client/")[1]: (
                json.loads(message.payload) if message.payload[:1] == b"{" else message.payload
            )
            for (message,) in self.of("sent")
        }

    @property
    def code(self):
        """Return the code of the one rejection."""
        ((message,),) = [call for call in self.of("sent") if "/event" not in call[0].topic]
        if message.payload.startswith(b"ERROR "):
            return message.payload.split()[1].decode().rstrip(":")
        return json.loads(message.payload)["error"]["code"]

    def put(self, topic, payload=b"hi", *, qos=1, **properties):
        """Hand a message in, without waiting."""
        if isinstance(payload, dict):
            payload = json.dumps(payload).encode()
        defaults = {
            "retain": False, "dup": False, "mid": next(self._mids) if qos else 0, "response_topic": None,
            "correlation_data": None, "content_type": None, "message_expiry_s": None, "user_properties": (),
            "connection": 1, "session": "s1",
        }  # fmt: skip
        topic = f"rkllm/{topic}" if topic.startswith("fleet/") else f"rkllm/rock5/client/{topic}"
        message = Inbound(topic=topic, payload=payload, qos=qos, **{**defaults, **properties})
        self.reception.take(message, self.topics.parse(topic))
        return message

    async def take(self, topic, payload=b"hi", **properties):
        """Hand a message in and wait until it is dealt with."""
        message = self.put(topic, payload, **properties)
        await self.reception.drained()
        return message

    async def finish(self, job, outcome=b'{"text":"done"}', event=JobEvent.COMPLETED):
        """End a job as the dispatcher does."""
        await self.journal.claim(job.seq, 1)
        await self.journal.finish(job.seq, event, outcome, Delivery.PENDING)
        self.live.forget(job)


@pytest.fixture
def desk(tmp_path):
    """An opener: `async with desk(limits={...}) as it`; keywords are the configuration."""

    @asynccontextmanager
    async def open_desk(**config):
        journal = await Journal.open(tmp_path / "journal.db", ballast_mb=0)
        try:
            yield Desk(Config.model_validate({"node": "rock5", **config}), journal)
        finally:
            await journal.close()

    return open_desk


@pytest.fixture
def kitchen():
    """The mailbox of most tests."""
    return Mailbox("rkllm", "rock5", "kitchen")


@pytest.fixture
def address(kitchen):
    return Address(kitchen, "q7")
