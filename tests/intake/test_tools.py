"""The promise of `intake/tools.py`: tools in the API's shape are taken, all else is refused with a hint."""

import pytest

from rkllm_mqtt.core.errors import RequestError
from rkllm_mqtt.intake.tools import MAX_TOOLS, Tool, wish_of
from rkllm_mqtt.intake.wire import parse_wire

ON = {"type": "function", "function": {"name": "on", "parameters": {"type": "object"}, "strict": True}}
OFF = {"type": "function", "function": {"name": "off"}}


def wish(tools, choice=None):
    return wish_of([Tool.model_validate(tool) for tool in tools], choice)


def code_of(tools, choice=None):
    with pytest.raises(RequestError) as caught:
        wish(tools, choice)
    assert caught.value.fault.hint
    return caught.value.fault.code


def test_tools_are_kept_as_they_were_sent_without_what_is_absent():
    assert wish([ON, {**OFF, "x": 1}]).tools == (ON, OFF)


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, ("auto", None)),
        ("auto", ("auto", None)),
        ("none", ("none", None)),
        ("required", ("required", None)),
        ({"type": "function", "function": {"name": "off"}}, ("required", "off")),
    ],
)
def test_each_choice_of_the_api_is_understood(choice, meant):
    assert wish([ON, OFF], choice)[1:] == meant


@pytest.mark.parametrize("choice", ["any", 5, [], {}, {"function": "on"}, {"function": {"name": "other"}}])
def test_another_choice_is_refused(choice):
    assert code_of([ON], choice) == "invalid_request"


def test_without_tools_there_is_nothing_to_choose():
    assert wish([], "required") == ((), "auto", None)


def test_two_tools_of_one_name_are_refused():
    assert code_of([ON, ON]) == "invalid_request"


def test_a_schema_nested_too_deeply_is_refused():
    deep = {}
    for _ in range(40):
        deep = {"a": deep}
    assert code_of([{"function": {"name": "on", "parameters": deep}}]) == "invalid_request"


def test_at_most_128_tools_are_taken():
    tools = [{"function": {"name": f"t{number}"}} for number in range(MAX_TOOLS + 1)]
    assert wish(tools[:-1])
    with pytest.raises(RequestError, match="tools"):
        parse_wire(b'{"prompt":"hi","tools":' + repr(tools).replace("'", '"').encode() + b"}")
