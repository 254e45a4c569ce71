"""The promise of `intake/rejections.py`: an event and one outcome with the reason; bare text gets text."""

import json
import time
from pathlib import Path

import pytest

from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.core.live import Counters
from rkllm_mqtt.intake.rejections import Rejections, peek_id

WIRE = Path(__file__).parents[1] / "wire"
FAULT = Fault(
    Code.INVALID_REQUEST,
    "ttl_s: Input should be greater than 0",
    "`rkllm/<node>/info` and the README show the fields.",
)


@pytest.fixture
def reject():
    """Reject something; return the published messages and the counters."""

    def run(address, **given):
        sent, counters = [], Counters()
        rejections = Rejections("rock5", counters, lambda message: sent.append(message) or True)
        rejections.reject(address, FAULT, **{"request_id": "q7", "text": False} | given)
        return sent, counters

    return run


def test_the_event_and_the_outcome_are_the_golden_ones(reject, address):
    before = int(time.time())
    (event, reply), counters = reject(address)
    assert reply.content_type == "application/json"
    assert event.topic == "rkllm/rock5/client/kitchen/event/q7"
    assert event.payload == encode(json.loads((WIRE / "rejected.json").read_bytes()))
    assert reply.topic == "rkllm/rock5/client/kitchen/reply/q7"
    members = json.loads(reply.payload)
    assert before <= members["created"] <= time.time()
    expected = json.loads((WIRE / "rejection.json").read_bytes())
    assert encode({**members, "created": expected["created"]}) == encode(expected)
    assert [(message.qos, message.retain) for message in (event, reply)] == [(1, False)] * 2
    assert counters.rejected == 1


def test_bare_text_gets_one_line_and_no_event(reject, address):
    (reply,), counters = reject(address, text=True)
    assert reply.content_type == "text/plain"
    assert reply.topic == "rkllm/rock5/client/kitchen/reply/q7"
    assert reply.payload == b"ERROR invalid_request: ttl_s: Input should be greater than 0"
    assert counters.rejected == 1


def test_a_request_whose_id_could_not_be_read_has_none(reject, kitchen):
    sent, _ = reject(Address(kitchen, None), request_id=None)
    assert [json.loads(message.payload)["id"] for message in sent] == [None, None]
    assert [message.topic for message in sent] == [f"{kitchen.prefix}/event", f"{kitchen.prefix}/reply"]


def test_both_carry_the_echoes_and_go_to_the_response_topic(reject, kitchen):
    mine = f"{kitchen.prefix}/mine"
    sent, _ = reject(Address(kitchen, "q7", mine, b"\0c", (("x-room", "k"),)))
    assert [message.topic for message in sent] == [f"{mine}/event", mine]
    for message in sent:
        assert (message.correlation_data, message.user_properties) == (b"\0c", (("x-room", "k"),))


@pytest.mark.parametrize(
    ("payload", "request_id"),
    [
        (b'{"id":"q1","ttl_s":0}', "q1"),
        (b'\xef\xbb\xbf{"id":"q1"}', "q1"),
        (b'{"id":"a b"}', None),
        (b'{"id":"event"}', None),
        (b'{"id":5}', None),
        (b"{}", None),
        (b'["id"]', None),
        (b'{"id":"q1"', None),
        (b'{"id":"\\ud800"}', None),
        (b"[" * 100_000, None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_the_id_of_a_bad_request_is_told_when_it_can_be_read(payload, request_id):
    assert peek_id(payload) == request_id
