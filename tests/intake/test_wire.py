"""The promise of `intake/wire.py`: a field is what the protocol says, or the request is refused by name."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rkllm_mqtt.core.errors import Code, Fault, RequestError
from rkllm_mqtt.intake.wire import conversation, parse_wire

HI = [{"role": "user", "content": "hi"}]


def refusal(payload):
    """Return (code, message) of the refusal of a payload, or of a request with these fields."""
    if isinstance(payload, dict):
        payload = json.dumps({"prompt": "hi", **payload}).encode()
    with pytest.raises(RequestError) as caught:
        conversation(parse_wire(payload))
    assert caught.value.fault.hint
    return caught.value.fault.code.value, caught.value.fault.message


GOOD = [
    ("id", ["a", "A.z_0-9:", "x" * 64]),
    ("task", ["chat"]),
    ("stream", [True, False]),
    ("model", ["demo", "x" * 64]),
    ("preset", ["precise"]),
    ("max_tokens", [1, 1_000_000_000]),
    ("temperature", [0, 0.7, 5]),
    ("top_p", [0.01, 1]),
    ("top_k", [1, 100_000]),
    ("repeat_penalty", [0.1, 5]),
    ("frequency_penalty", [-2, 0, 2]),
    ("presence_penalty", [-2, 0.5, 2]),
    ("mirostat", [0, 1, 2]),
    ("mirostat_tau", [0.1, 100]),
    ("mirostat_eta", [0.1, 10]),
    ("stop", ["\n", "x" * 256, [], ["a"] * 16]),
    ("thinking", [True, False]),
    ("priority", ["interactive", "normal", "background"]),
    ("ttl_s", [0.001, 1, 1e9]),
    ("reply_qos", [0, 1]),
    ("retain", [True, False]),
    ("reply_bytes", [16, 10**9]),
]
BAD = [
    ("prompt", [5, True, [], {}]),
    ("messages", ["hi", {}, [5], ["hi"], [{"role": "user"}] * 1001]),
    ("task", ["generate", 1, ""]),
    ("options", ["Yes", ["Yes"], [], ["Yes", 1], ["Yes", ""], ["Yes", "x" * 65], ["a", "b"] * 33]),
    ("input", [5, [], [5], ["x"] * 65]),
    ("pooling", ["max", 1]),
    ("stream", [1, 0, "true", "yes", []]),
    ("model", ["", "x" * 65, 5]),
    ("preset", ["", "x" * 65, 5, ["precise"]]),
    ("max_tokens", [0, -1, 1.5, 5.0, "5", True, 1_000_000_001, 10**30]),
    ("temperature", [-0.1, 5.1, "1", True, []]),
    ("top_p", [0, 1.01, "1", True]),
    ("top_k", [0, 100_001, 1.5, "1", True]),
    ("repeat_penalty", [0, 5.1, "1", True]),
    ("frequency_penalty", [-2.1, 2.1, "1", True]),
    ("presence_penalty", [-2.1, 2.1, "1", True]),
    ("mirostat", [-1, 3, 1.0, "1", True, False]),
    ("mirostat_tau", [0, 100.1, "1", True]),
    ("mirostat_eta", [0, 10.1, "1", True]),
    ("stop", ["", "x" * 257, 5, [5], [""], ["a"] * 17, [["a"]], {}]),
    ("tools", ["x", {}, [5], [{}], [{"type": "retrieval", "function": {"name": "a"}}]]),
    ("response_format", ["json_object", []]),
    ("conversation_id", [5]),
    ("thinking", [1, "true"]),
    ("priority", ["Interactive", "high", 1, ""]),
    ("ttl_s", [0, -1, "60", True]),
    ("reply_qos", [-1, 2, 1.0, "1", True]),
    ("retain", [1, "true"]),
    ("reply_bytes", [15, 0, 16.5, "64", True]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD for value in values])
def test_a_field_is_taken_as_it_was_sent(name, value):
    wire = parse_wire(json.dumps({"prompt": "hi", name: value}).encode())
    assert getattr(wire, name) == value
    assert wire.without_effect == []


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD for value in values])
def test_a_wrong_value_is_refused_and_the_sentence_names_the_field(name, value):
    code, message = refusal({name: value} | ({"prompt": None} if name == "messages" else {}))
    assert code == "invalid_request"
    assert message.startswith(name)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stop": ["a", ""]}, "stop.1: String should have at least 1 character"),
        ({"stop": ["a", 5]}, "stop.1: Input should be a valid string"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0.type: Field required",
        ),
    ],
)
def test_of_what_may_be_a_text_or_a_list_the_sentence_speaks_of_what_was_sent(fields, said):
    assert refusal(fields | ({"prompt": None} if "messages" in fields else {})) == ("invalid_request", said)


@pytest.mark.parametrize("bad", ["", "event", "delta", "a/b", "a b", "x" * 65, "é"])
def test_an_id_in_the_json_obeys_the_rule_of_the_topic(bad):
    assert refusal({"id": bad}) == ("invalid_request", "id: not a valid id")


@pytest.mark.parametrize(("name", "_values"), GOOD)
def test_null_is_as_good_as_absent(name, _values):
    wire = parse_wire(json.dumps({"prompt": "hi", name: None}).encode())
    assert getattr(wire, name) is None
    assert wire.without_effect == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"{",
        b'{"prompt":"x"} x',
        b'{"prompt":"x",}',
        b"{'prompt':'x'}",
        b'{"prompt":"\xff"}',
        b'{"prompt":"\\ud800"}',
        b'{"prompt":"a\nb"}',
        b'{"prompt":"x","ttl_s":NaN}',
        b'{"prompt":"x","anything":[Infinity]}',
        b'{"prompt":"x","anything":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
        b'{"prompt":"x","anything":' + b"9" * 5_000 + b"}",
        b'[{"prompt":"x"}]',
        b'"x"',
        b"5",
        b"null",
    ],
)
def test_what_is_no_json_object_is_invalid_json(payload):
    assert refusal(payload)[0] == "invalid_json"


def test_a_number_beyond_the_largest_is_no_number():
    assert refusal(b'{"prompt":"x","ttl_s":1e999}')[1].startswith("ttl_s")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([name for name, _ in BAD] + ["id", "tool_choice", "seed"])


def taken(payload):
    """Return the conversation of a payload, or the fault of its refusal."""
    try:
        return conversation(parse_wire(payload))
    except RequestError as exc:
        return exc.fault


@given(st.dictionaries(FIELDS, JSON, max_size=4))
@example({"messages": [{"role": "user", "content": [{"type": "text"}]}]})
def test_whatever_the_fields_hold_there_is_a_conversation_or_a_code(fields):
    result = taken(json.dumps(fields).encode())
    if isinstance(result, Fault):
        assert result.code in (Code.INVALID_JSON, Code.INVALID_REQUEST, Code.UNSUPPORTED)
        assert len(result.message) < 600
    else:
        assert all(message["role"] in ("system", "user", "assistant", "tool") for message in result)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(payload):
    assert isinstance(taken(payload), Fault | tuple)


# what has no effect


def ignored(**fields):
    return parse_wire(json.dumps({"messages": HI, **fields}).encode()).without_effect


def test_unknown_fields_are_named_in_their_order():
    assert ignored(seed=1, user=None, logprobs=[]) == ["seed", "user", "logprobs"]


def test_unknown_members_of_messages_and_of_their_parts_are_named_once():
    part = {"type": "text", "text": "hi", "cache_control": {}}
    messages = [{"role": "user", "content": [part, part], "refusal": None, "audio": 1}] * 2
    expected = ["messages.refusal", "messages.audio", "messages.content.cache_control"]
    assert ignored(messages=messages) == expected


def test_a_tool_choice_without_tools_and_empty_wishes_have_no_effect():
    assert ignored(tools=[], tool_choice="auto", response_format={}, conversation_id="") == [
        "response_format",
        "tools",
        "tool_choice",
    ]


def test_each_task_names_what_only_others_have():
    assert ignored(options=["a", "b"], input="x", pooling="cls") == ["options", "input", "pooling"]
    weighing = {"task": "evaluate", "options": ["a", "b"]}
    assert ignored(**weighing, input="x", temperature=1, stream=True) == ["input", "stream", "temperature"]
    vectors = {"task": "embed", "input": "x", "pooling": "cls", "priority": "background", "ttl_s": 5}
    assert ignored(**vectors, max_tokens=5, conversation_id="c") == [
        "messages",
        "max_tokens",
        "conversation_id",
    ]


def test_at_most_32_names_of_64_characters_are_told():
    names = ignored(**{f"{number:03}{'x' * 99}": 1 for number in range(100)})
    assert len(names) == 32
    assert {len(name) for name in names} == {64}


# the conversation


def test_a_prompt_is_one_user_message_with_its_text_untouched():
    wire = parse_wire('{"prompt":"  grüß\\n dich 🙂 "}'.encode())
    assert conversation(wire) == ({"role": "user", "content": "  grüß\n dich 🙂 "},)


def test_messages_keep_what_belongs_to_them_and_text_parts_are_joined():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
        {"role": "tool", "content": "21", "tool_call_id": "c1", "name": "sensor"},
        {"role": "assistant", "content": ""},
    ]
    wire = parse_wire(json.dumps({"messages": messages}).encode())
    assert conversation(wire) == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello you"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
        {"role": "tool", "content": "21", "name": "sensor", "tool_call_id": "c1"},
        {"role": "assistant", "content": ""},
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "there is no prompt"),
        ({"prompt": None, "messages": None}, "there is no prompt"),
        ({"prompt": "hi", "messages": HI}, "both given"),
        ({"prompt": "hi", "messages": []}, "both given"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n\t"}, "prompt is empty"),
        ({"prompt": "a\0b"}, "NUL"),
        ({"messages": []}, "no user message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no user message"),
        ({"messages": [{"role": "user", "content": ""}]}, "user message is empty"),
        ({"messages": [{"role": "user"}]}, "user message is empty"),
        ({"messages": [*HI, {"role": "user", "content": [{"type": "text", "text": " "}]}]}, "is empty"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "NUL"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": {"x": 1}}]}, "messages.0.content"),
        ({"messages": [*HI, {"role": "assistant", "tool_calls": [5]}]}, "messages.1.tool_calls.0"),
    ],
)
def test_without_a_clear_question_the_request_is_invalid(fields, says):
    code, message = refusal(json.dumps(fields).encode())
    assert code == "invalid_request"
    assert says in message


@pytest.mark.parametrize("part", [{"type": "image_url"}, {"type": "text"}, {"type": "x" * 99, "text": "a"}])
def test_a_part_that_is_not_text_is_unsupported(part):
    code, message = refusal(json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode())
    assert code == "unsupported"
    assert len(message) < 100


def test_no_refusal_repeats_what_was_sent():
    secret = "the code of the door is 4711"
    for fields in ({"ttl_s": secret}, {"priority": secret}, {"stop": [secret, 5]}, {"messages": secret}):
        assert "4711" not in refusal(fields | ({"prompt": None} if "messages" in fields else {}))[1]
