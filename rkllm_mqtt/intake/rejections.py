"""Tell a sender that its request is not taken: an event, and an error as its one outcome."""

import time
from collections.abc import Callable

from pydantic_core import from_json

from rkllm_mqtt.answer import outbound
from rkllm_mqtt.core.answers import Final, Timing, Usage, bare_text, encode, error_members
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.errors import Fault
from rkllm_mqtt.core.live import Counters
from rkllm_mqtt.core.topics import is_id
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Outbound

log = get_logger(__name__)


class Rejections:
    """Publishes rejections; none is stored, and none uses up an id."""

    def __init__(self, node: str, counters: Counters, send: Callable[[Outbound], bool]) -> None:
        self._node = node
        self._counters = counters
        self._send = send

    def reject(
        self, address: Address, fault: Fault, *, request_id: str | None, text: bool, outcome: bool = True
    ) -> None:
        """Publish a rejection.

        Args:
            address: Where the answers go.
            fault: Why.
            request_id: Of the request, as far as it could be read.
            text: The sender reads bare text and gets no event.
            outcome: Whether a request has come to its end by this; else only the event is told.
        """
        self._counters.rejected += 1
        self._counters.rejected_by_code[fault.code] += 1
        log.info("request_rejected", client=address.mailbox.client, code=fault.code.value)
        final = Final(
            id=request_id,
            node=self._node,
            model="",
            created=int(time.time()),
            status="error",
            text="",
            thinking="",
            finish_reason="error",
            usage=Usage(),
            timing=Timing(),
            attempt=0,
            deltas=0,
            fault=fault,
        )
        if not text:
            event = {
                "type": "rejected",
                "n": 0,
                "id": request_id,
                "node": self._node,
                # The members of `accepted`, so that one reader understands both; nothing of it came to be.
                "priority": None,
                "position": None,
                "queue_length": None,
                "eta_s": fault.eta_s,
                "duplicate": False,
                "ignored": [],
                "error": error_members(fault),
            }
            self._send(outbound(address, address.event, encode(event), qos=1))
        if outcome:
            payload, content_type = encode(final.members()), "application/json"
            if text:
                payload, content_type = bare_text(payload), "text/plain"
            self._send(outbound(address, address.reply, payload, qos=1, content_type=content_type))


def peek_id(payload: bytes) -> str | None:
    """Return the id of a JSON request that is not valid otherwise, so that its sender knows which one."""
    try:
        members = from_json(payload.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        return None
    name = members.get("id") if isinstance(members, dict) else None
    return name if isinstance(name, str) and is_id(name) else None
