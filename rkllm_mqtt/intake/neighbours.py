"""What the intake asks of the other parts of the daemon."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.errors import Fault
from rkllm_mqtt.core.job import JobRecord
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.intake.quota import Frees
from rkllm_mqtt.mqtt.messages import Inbound, Outbound


class Neighbours(Struct, frozen=True):
    """Calls to the session, the dispatcher, the outbox and the gate."""

    ack: Callable[[Inbound], None]
    accepted: Callable[[Job, bool, tuple[str, ...]], None]
    """Tell the sender; the flag says duplicate, the names are ignored fields."""
    begin_early: "Callable[[Job], asyncio.Future[bool] | None]"
    """Let an idle slot compute a job while it is being stored; the future is told whether that succeeded."""
    queued: Callable[[Job], None]
    """A new job waits, or runs already."""
    cancel: Callable[[Job], Awaitable[None]]
    """End an unfinished job; returns when that wish is on disk."""
    resend: Callable[[JobRecord, Address], None]
    """Publish a stored outcome again."""
    cancel_unknown: Callable[[Address, str], None]
    refusal: Callable[[str], Fault | None]
    """Why no new job of a model is taken now; None when it is."""
    too_late: Callable[[Job], Fault | None]
    """Why a new job can never be in time; None when it may."""
    capabilities: Callable[[], Mapping[str, bool] | None]
    """Of the loaded runtime."""
    frees_in_s: Frees
    """When there is a place in the queue again."""
    prepare: Callable[[str, ChatRequest], tuple[ChatRequest, Fault | None]]
    """Give a client's wish for a prefix what is registered, or say why it cannot be taken."""
    send: Callable[[Outbound], bool]
