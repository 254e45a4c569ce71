"""The promise of `core/errors.py`: a closed list of codes, and who may simply try again."""

import pytest

from rkllm_mqtt.core.errors import (
    Code,
    ConfigError,
    Fault,
    ModelUnavailable,
    RequestError,
    RkllmMqttError,
    SlotError,
    SlotLost,
)

# Of protocol 1.0, with the word on whether the same request may succeed later.
CODES = {
    "invalid_json": False,
    "invalid_request": False,
    "too_large": False,
    "unsupported": False,
    "unknown_model": False,
    "queue_full": True,
    "client_limit": True,
    "rate_limited": True,
    "id_conflict": False,
    "expired": False,
    "timeout": True,
    "cancelled": False,
    "paused": True,
    "shutting_down": True,
    "reply_topic_denied": False,
    "context_overflow": False,
    "invalid_output": False,
    "model_error": True,
    "slot_failed": True,
    "internal": True,
}


def test_the_codes_are_those_of_the_protocol_in_its_order():
    assert [code.value for code in Code] == list(CODES)


@pytest.mark.parametrize("code", Code)
def test_a_fault_says_whether_the_same_request_may_succeed_later(code):
    assert Fault(code, "no").retryable is CODES[code.value]


def test_a_request_error_carries_what_its_sender_is_told():
    error = RequestError(Code.QUEUE_FULL, "it is full", "Wait.", retry_after_s=30)
    assert error.fault == Fault(Code.QUEUE_FULL, "it is full", "Wait.", 30)
    assert str(error) == "it is full"


def test_each_error_says_whose_turn_it_is():
    assert ConfigError("line 3: node", "Use lower case.").hint == "Use lower case."
    assert ModelUnavailable("no file", "Copy it.").hint == "Copy it."
    assert SlotLost("signal 6").reason == "signal 6"
    assert not SlotLost("signal 6").deliberate
    assert SlotLost("replaced", deliberate=True).deliberate
    for error in (ModelUnavailable, SlotLost):
        assert issubclass(error, SlotError)
    for error in (ConfigError, RequestError, SlotError):
        assert issubclass(error, RkllmMqttError)
