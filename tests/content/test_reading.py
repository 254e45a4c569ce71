"""The promise of `content/reading.py`: each form of a call gives the same call, nothing else gives one."""

import json

import pytest

from rkllm_mqtt.content.reading import read_calls

ON = ("turn_on", {"name": "lamp", "brightness": 20})
ARGUMENTS = '{"name": "lamp", "brightness": 20}'


def read(text, offer, **options):
    return [(call.name, json.loads(call.arguments)) for call in read_calls(text, offer, **options)]


@pytest.mark.parametrize(
    "text",
    [
        f'{{"name": "turn_on", "arguments": {ARGUMENTS}}}',
        f'{{"name": "turn_on", "parameters": {ARGUMENTS}}}',
        f'{{"type": "function", "function": {{"name": "turn_on", "arguments": {json.dumps(ARGUMENTS)}}}}}',
        f'{{"type": "function", "function": {{"name": "turn_on"}}, "arguments": {ARGUMENTS}}}',
        f'{{"tool_calls": [{{"name": "turn_on", "args": {ARGUMENTS}}}]}}',
        f'[{{"tool": "turn_on", "input": {ARGUMENTS}}}]',
        '{"function": "turn_on", "name": "lamp", "brightness": 20}',
        f'{{"turn_on": {ARGUMENTS}}}',
        f'\n```json\n{{"name": "turn_on", "arguments": {ARGUMENTS}}}\n```\n',
        "{'name': 'turn-on', 'arguments': {'name': 'lamp', 'brightness': '20',}}",
        '{"name": "turn_on", "arguments": {"name": "lamp", "brightness": 20',
        json.dumps(f'{{"name": "turn_on", "arguments": {ARGUMENTS}}}'),
        f"turn_on[ARGS]{ARGUMENTS}",
        f"turn_on[CALL_ID]abc123[ARGS]{ARGUMENTS}",
        f"turn_on {ARGUMENTS}",
        "call:turn_on{name:<escape>lamp<escape>,brightness:20}",
        f"<function=turn_on>{ARGUMENTS}</function>",
        "<function=turn_on>\n<parameter=name>\nlamp\n</parameter>\n<parameter=brightness>\n20\n</parameter>\n"
        "</function>",
        "turn_on(name='lamp', brightness=20)",
        "```tool_code\nprint(turn_on(name='lamp', brightness=20))\n```",
    ],
)
def test_each_form_gives_the_same_call(offer, text):
    assert read(text, offer) == [ON]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "words",
        '{"name": "other", "arguments": {}}',
        '{"name": 5, "arguments": {}}',
        '{"name": "turn_on", "colour": "red"}',
        '{"name": "turn_on", "description": "Switch it on", "parameters": {"type": "object"}}',
        '{"name": "turn_on", "arguments": [1, 2]}',
        '{"name": "turn_on", "arguments": {"brightness": 1e999}}',
        "[1, 2]",
        "5",
        "turn_on[ARGS][1]",
        "<function=other></function>",
        "<function=turn_on>{broken</function",
    ],
)
def test_what_calls_no_offered_tool_gives_none(offer, text):
    assert read(text, offer, mend=False) == []


def test_an_object_without_a_mark_needs_arguments_unless_the_tool_takes_none(offer):
    assert read('{"name": "get_time"}', offer, bare=True) == [("get_time", {})]
    assert read('{"name": "say"}', offer, bare=True) == []
    assert read('{"name": "say"}', offer) == [("say", {})]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "turn_on", "arguments": {"name": "lamp", "brightness": 2',
        'turn_on[ARGS]{"name": "lamp", "brightness": 2',
        "turn_on(name='lamp', brightness=2",
        "<function=turn_on>\n<parameter=brightness>\n2",
    ],
)
def test_half_a_call_is_none_where_the_answer_was_cut_off(offer, text):
    assert read(text, offer, mend=False) == []
