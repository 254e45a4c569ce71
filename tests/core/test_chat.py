"""The promise of `core/chat.py`: a request and its address survive a restart, and say where answers go."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.chat import SAMPLING, Address, ChatRequest
from rkllm_mqtt.core.topics import Mailbox

BOX = Mailbox("rkllm", "rock5", "kitchen")
PLAIN = ChatRequest(messages=({"role": "user", "content": "hi"},), model="demo", max_tokens=10)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.none() | st.text()},
        optional={"name": st.text(max_size=5), "tool_calls": st.just([{"id": "a", "function": {"x": [1]}}])},
    ),
    min_size=1,
    max_size=4,
).map(tuple)
REQUESTS = st.builds(
    ChatRequest,
    messages=MESSAGES,
    model=st.text(min_size=1, max_size=8),
    max_tokens=st.integers(1, 10_000),
    task=st.sampled_from(["chat", "evaluate", "embed"]),
    options=st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple),
    pooling=st.sampled_from(["mean", "last", "cls"]),
    sampling=st.dictionaries(st.sampled_from(SAMPLING), st.floats(-2, 100) | st.integers(0, 100)),
    stop=st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple),
    thinking=st.booleans(),
    stream=st.booleans(),
    text=st.booleans(),
    retain=st.booleans(),
    reply_qos=st.integers(0, 1),
    reply_bytes=st.none() | st.integers(16, 1_000),
)
ADDRESSES = st.builds(
    Address,
    st.just(BOX),
    st.none() | st.just("q1"),
    st.none() | st.just("rkllm/rock5/client/kitchen/mine"),
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3).map(tuple),
)


@given(REQUESTS)
def test_a_request_is_the_same_after_a_restart_byte_for_byte(request_):
    text = request_.to_json()
    assert ChatRequest.from_json(text) == request_
    assert ChatRequest.from_json(text).to_json() == text


@given(ADDRESSES)
def test_an_address_is_the_same_after_a_restart(address):
    assert Address.from_json(address.to_json(), "rock5", "kitchen") == address


def test_empty_correlation_data_are_not_absent_ones():
    for given_data in (b"", None):
        address = Address(BOX, None, None, given_data)
        assert Address.from_json(address.to_json(), "rock5", "kitchen").correlation_data == given_data


def test_the_order_of_the_sampling_parameters_does_not_change_the_stored_bytes():
    one = ChatRequest(**{**_fields(PLAIN), "sampling": {"top_k": 1, "temperature": 0.5}})
    two = ChatRequest(**{**_fields(PLAIN), "sampling": {"temperature": 0.5, "top_k": 1}})
    assert one.to_json() == two.to_json()


def _fields(request_):
    return {name: getattr(request_, name) for name in request_.__slots__}


def test_only_what_was_sent_is_stored_of_an_address():
    assert json.loads(Address(BOX, None).to_json()) == {"base": "rkllm"}


@pytest.mark.parametrize(
    ("address", "reply", "delta", "event"),
    [
        (Address(BOX, None), "reply", "delta", "event"),
        (Address(BOX, "q1"), "reply/q1", "delta/q1", "event/q1"),
        (Address(BOX, "q1", f"{BOX.prefix}/mine"), "mine", "mine/delta", "mine/event"),
    ],
)
def test_answers_go_to_the_mailbox_or_below_the_response_topic(address, reply, delta, event):
    assert address.reply == f"{BOX.prefix}/{reply}"
    assert address.delta == f"{BOX.prefix}/{delta}"
    assert address.event == f"{BOX.prefix}/{event}"
    assert address.last == f"{BOX.prefix}/last"
