"""The promise of `render/conversation.py`: every accepted shape becomes one canonical shape."""

import pytest

from rkllm_mqtt.render.conversation import canonical_messages, canonical_tools, last_user_text, raw_text
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.markers import Neutraliser

CLEAN = Neutraliser()


def user(text):
    return {"role": "user", "content": text}


def assistant_with(*functions):
    calls = [
        {"id": f"c{i}", "type": "function", "function": function} for i, function in enumerate(functions)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def test_a_default_system_prompt_comes_first_when_there_is_none():
    assert canonical_messages([user("hi")], "Be brief.", CLEAN)[0] == {
        "role": "system",
        "content": "Be brief.",
    }
    own = {"role": "system", "content": "Be long."}
    assert canonical_messages([own, user("hi")], "Be brief.", CLEAN) == [own, user("hi")]


def test_text_parts_are_joined_and_no_content_is_empty_text():
    parts = [{"type": "text", "text": "a <|im"}, {"type": "text", "text": "_end|> b"}]
    assert canonical_messages([user(parts), user(None)], None, CLEAN) == [user("a < |im_end|> b"), user("")]


def test_arguments_become_objects_with_sorted_keys_whatever_their_form():
    message = assistant_with(
        {"name": "f", "arguments": '{"b": 1, "a": {"d": 2, "c": 3}}'},
        {"name": "f", "arguments": {"b": 1, "a": 2}},
        {"name": "f", "arguments": " "},
        {"name": "f"},
        {"name": "f", "arguments": "{broken"},
    )
    calls = canonical_messages([user("x"), message], None, CLEAN)[1]["tool_calls"]
    arguments = [call["function"]["arguments"] for call in calls]
    assert arguments == [{"a": {"c": 3, "d": 2}, "b": 1}, {"a": 2, "b": 1}, {}, {}, "{broken"]
    assert list(arguments[0]) == ["a", "b"]
    assert list(arguments[0]["a"]) == ["c", "d"]


def test_a_result_learns_the_name_of_its_tool_from_the_call():
    messages = [assistant_with({"name": "f"}), {"role": "tool", "tool_call_id": "c0", "content": "1"}]
    assert canonical_messages(messages, None, CLEAN)[1]["name"] == "f"


def test_a_result_that_names_no_call_stays_without_a_name():
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    assert "name" not in canonical_messages([called, {"role": "tool", "content": "1"}], None, CLEAN)[1]


def test_earlier_thoughts_are_left_out():
    def history(text):
        return canonical_messages([{"role": "assistant", "content": text}], None, CLEAN)[0]["content"]

    assert history("<think>\nHm.\n</think>\n\nYes.") == "Yes."
    assert history("Yes, <think>.") == "Yes, < think>."


def test_tools_come_sorted_in_one_shape_and_order_of_keys(tools):
    flat = {"parameters": {"b": 1, "a": 2}, "strict": True, "description": "d", "name": "zoom"}
    rows = canonical_tools([flat, *tools], CLEAN)
    assert [row["function"]["name"] for row in rows] == ["get_time", "turn_on", "zoom"]
    assert list(rows[2]["function"]) == ["name", "description", "parameters", "strict"]
    assert list(rows[2]["function"]["parameters"]) == ["a", "b"]
    assert rows[0]["function"]["parameters"] == {"properties": {}, "type": "object"}
    assert rows == canonical_tools([*reversed(tools), dict(reversed(flat.items()))], CLEAN)


def test_without_a_template_the_texts_stand_as_they_are():
    assert raw_text([user("a <|im_end|>\0"), user("b")], None) == "a <|im_end|>\nb"
    assert raw_text([user("b")], "System.") == "System.\nb"


def test_the_last_words_of_the_user_are_found():
    messages = [user("a"), user("b <|im_end|>"), {"role": "assistant", "content": "c"}]
    assert last_user_text(messages, CLEAN) == "b < |im_end|>"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "boss", "content": "x"}],
        [{"content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [user(5)],
        [user([{"type": "image_url", "image_url": "x"}])],
        [user([{"type": "text", "text": 5}])],
        [{"role": "assistant", "tool_calls": "x"}],
        [{"role": "assistant", "tool_calls": ["x"]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}],
    ],
)
def test_other_shapes_are_the_senders_mistake(messages):
    with pytest.raises(RenderError) as caught:
        canonical_messages(messages, None, CLEAN)
    assert caught.value.code == "invalid_request"
    assert caught.value.hint


@pytest.mark.parametrize("tool", [{}, {"function": 5}, {"function": {"name": ""}}])
def test_a_tool_without_a_name_is_the_senders_mistake(tool):
    with pytest.raises(RenderError, match="name"):
        canonical_tools([tool], CLEAN)


def test_the_runtimes_template_needs_a_user():
    with pytest.raises(RenderError, match="user"):
        last_user_text([{"role": "assistant", "content": "c"}], CLEAN)
