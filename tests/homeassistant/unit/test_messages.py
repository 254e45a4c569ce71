"""The promise of `messages.py`: equal beginnings are equal bytes, and history is cut in whole turns."""

import pytest
from custom_components.rkllm_mqtt.messages import build_messages, estimate_tokens, split_system
from homeassistant.components import conversation
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import llm

AREA = "You are in area Kitchen and all generic commands like 'turn on the lights' should target this area."
FLOOR = AREA.replace("Kitchen and", "Kitchen (floor Ground) and")
NO_AREA = (
    "When a user asks to turn on all devices of a specific type, ask the user to specify an area, "
    "unless there is only one device of that type."
)
NO_TIMERS = "This device is not able to start timers."


def system(*lines):
    return conversation.SystemContent("\n".join(lines))


def user(text):
    return conversation.UserContent(text)


def said(text, calls=None):
    return conversation.AssistantContent("agent", text, tool_calls=calls)


def result(call_id, data, *, error=False):
    return conversation.ToolResultContent("agent", call_id, "tool", llm.ToolResult(data=data, error=error))


def build(*content, turns=8, budget=100_000):
    return build_messages(content, max_turns=turns, budget_tokens=budget)


@pytest.mark.parametrize("line", [AREA, FLOOR, NO_AREA, NO_TIMERS])
def test_what_differs_between_satellites_goes_last(line):
    shared, own = split_system(f"Be kind.\n{line}\nLights: Lamp")
    assert shared == "Be kind.\nLights: Lamp"
    assert own == line


def test_satellites_share_the_longest_beginning():
    kitchen = build(system("Be kind.", AREA, "Lights: Lamp"), user("hello"))
    hall = build(system("Be kind.", AREA.replace("Kitchen", "Hall"), "Lights: Lamp"), user("hello"))
    assert kitchen[0] == hall[0] == {"role": "system", "content": "Be kind.\nLights: Lamp"}
    assert kitchen[1] == {"role": "system", "content": AREA}
    assert kitchen[1] != hall[1]


def test_turns_become_messages():
    call = llm.ToolInput("intent__HassTurnOn", {"name": "Lamp", "domain": ["light"]}, id="c1")
    other = llm.ToolInput("web", {}, id="c2", external=True)
    messages = build(
        system("Be kind."),
        user("on"),
        said(None, [call, other]),
        result("c1", {"b": 1, "a": "ä"}),
        said("Done."),
        user("off"),
    )
    assert messages[2] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "intent__HassTurnOn", "arguments": '{"domain":["light"],"name":"Lamp"}'},
            }
        ],
    }
    assert messages[3] == {"role": "tool", "tool_call_id": "c1", "name": "tool", "content": '{"a":"ä","b":1}'}
    assert messages[4:] == [{"role": "assistant", "content": "Done."}, {"role": "user", "content": "off"}]


def test_a_failed_tool_says_so():
    assert build(user("x"), result("c", {"reason": "no"}, error=True))[1]["content"] == (
        '{"error":{"reason":"no"}}'
    )


def turns(count):
    return [each for number in range(count) for each in (user(f"q{number}"), said(f"a{number}"))]


def test_history_is_cut_from_the_oldest_in_whole_turns():
    messages = build(system("s"), *turns(5), user("now"), turns=2)
    assert [m["content"] for m in messages] == ["s", "q3", "a3", "q4", "a4", "now"]


def test_history_is_cut_to_the_budget_and_the_question_stays():
    long = [user("q " * 500), said("a " * 500), user("short"), said("yes"), user("now")]
    assert [m["content"] for m in build(system("s"), *long, budget=100)] == ["s", "short", "yes", "now"]
    assert [m["content"] for m in build(system("s"), user("now " * 500), budget=1)][1].startswith("now")


def test_turns_that_failed_are_forgotten():
    messages = build(user("q"), said("Error: CancelledError"), user("now"))
    assert [m["content"] for m in messages] == ["now"]


def test_an_attachment_is_refused(tmp_path):
    picture = conversation.Attachment("m", "image/png", tmp_path / "x.png")
    with pytest.raises(HomeAssistantError):
        build(conversation.UserContent("look", [picture]))


def test_an_estimate_counts_bytes_of_texts_and_of_json():
    assert estimate_tokens("") == 0
    assert estimate_tokens("a" * 36) == 10
    assert estimate_tokens("ä" * 18) == 10
    assert estimate_tokens({"a": 1}) == 2
