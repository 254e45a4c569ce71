"""The promise of `tools.py`: few short tools in stable order, and calls of small models understood."""

import json

import probatio
import pytest
from custom_components.rkllm_mqtt.tools import (
    canonical,
    choose_tools,
    find_tool,
    format_tool,
    format_tools,
    read_call,
)
from homeassistant.helpers import llm


class Tool(llm.Tool):
    """A tool of a test."""

    def __init__(self, name, description=None, fields=None):
        self.name = name
        self.description = description
        self.parameters = probatio.Schema(
            {probatio.Optional(key): kind for key, kind in (fields or {}).items()}
        )
        self.integration = "test"

    async def async_call(self, hass, tool_input, llm_context):
        """Do nothing."""


NAMES = (
    "todo__get_items",
    "intent__HassTurnOn",
    "intent__HassStartTimer",
    "homeassistant__GetLiveContext",
    "intent__HassTurnOff",
    "llm__GetDateTime",
)
TOOLS = [Tool(name) for name in NAMES]


def names(tools):
    return [tool.name for tool in tools]


def test_tools_that_only_some_satellites_have_come_last():
    assert names(choose_tools(TOOLS, "all", ())) == [
        "homeassistant__GetLiveContext",
        "intent__HassTurnOff",
        "intent__HassTurnOn",
        "llm__GetDateTime",
        "todo__get_items",
        "intent__HassStartTimer",
    ]


def test_control_only_leaves_what_switches_and_asks():
    assert names(choose_tools(TOOLS, "control", ())) == [
        "homeassistant__GetLiveContext",
        "intent__HassTurnOff",
        "intent__HassTurnOn",
        "llm__GetDateTime",
    ]


def test_selected_tools_are_the_selected_ones():
    assert names(choose_tools(TOOLS, "selected", ["todo__get_items", "gone"])) == ["todo__get_items"]


def test_the_order_and_the_bytes_do_not_depend_on_how_tools_come():
    forward = format_tools(choose_tools(TOOLS, "all", ()), None)
    backward = format_tools(choose_tools(TOOLS[::-1], "all", ()), None)
    assert canonical(forward) == canonical(backward)
    assert json.dumps(forward) == json.dumps(backward)


def test_words_that_only_repeat_a_name_are_left_out():
    tool = Tool("intent__HassTurnOn", "Hass turn on", {"area": str})
    assert "description" not in format_tool(tool, None)["function"]
    tool = Tool("intent__HassTurnOn", "Turns on/opens/presses   a device", {"area": str})
    assert format_tool(tool, None)["function"]["description"] == "Turns on/opens/presses a device"


def test_a_field_says_what_its_name_does_not():
    tool = Tool("x__y")
    tool.parameters = probatio.Schema(
        {
            probatio.Optional("area", description="the area"): str,
            probatio.Required("brightness", description="percent, 0 to 100"): int,
        }
    )
    properties = format_tool(tool, None)["function"]["parameters"]["properties"]
    assert "description" not in properties["area"]
    assert properties["brightness"]["description"] == "percent, 0 to 100"


@pytest.mark.parametrize(
    "name",
    [
        "intent__HassTurnOn",
        "HassTurnOn",
        "hassturnon",
        "intent.HassTurnOn",
        "Hass_Turn_On",
        "x__HassTurnOn",
    ],
)
def test_a_name_is_understood_as_small_models_write_it(name):
    assert find_tool(TOOLS, name).name == "intent__HassTurnOn"


@pytest.mark.parametrize("name", ["", "HassTurn", "fly"])
def test_an_unknown_name_is_no_tool(name):
    assert find_tool(TOOLS, name) is None


def test_a_name_that_two_tools_could_have_is_no_tool():
    assert find_tool([Tool("a__Play"), Tool("b__Play")], "play") is None


def call(arguments, fields):
    tool = Tool("x__Do", fields=fields)
    made = {"function": {"name": "Do", "arguments": arguments}}
    return read_call(made, [tool], None, "id").tool_args


@pytest.mark.parametrize(
    ("arguments", "fields", "wanted"),
    [
        ('{"name": "Lamp"}', {"name": str}, {"name": "Lamp"}),
        ({"name": "Lamp", "area": None, "floor": ""}, {"name": str}, {"name": "Lamp"}),
        ({"domain": "light"}, {"domain": [str]}, {"domain": ["light"]}),
        ({"domain": '["light", "switch"]'}, {"domain": [str]}, {"domain": ["light", "switch"]}),
        ({"brightness": "50"}, {"brightness": int}, {"brightness": 50}),
        ({"brightness": "50%"}, {"brightness": int}, {"brightness": 50}),
        ({"temperature": "20.5"}, {"temperature": float}, {"temperature": 20.5}),
        ({"brightness": "bright"}, {"brightness": int}, {"brightness": "bright"}),
        ({"on": "True"}, {"on": bool}, {"on": True}),
        ({"name": ["Lamp"]}, {"name": str}, {"name": "Lamp"}),
        ({"name": "[ceiling"}, {"name": str}, {"name": "[ceiling"}),
        ({"more": {"a": "", "b": 1}}, {}, {"more": {"b": 1}}),
        ("{broken", {}, {}),
        ("text", {}, {}),
        (None, {}, {}),
        ([1], {}, {}),
    ],
)
def test_arguments_are_repaired_as_far_as_that_is_not_a_guess(arguments, fields, wanted):
    assert call(arguments, fields) == wanted


@pytest.mark.parametrize("made", [{}, {"function": 5}, {"function": {}}])
def test_a_call_without_a_function_is_one_of_an_unknown_tool(made):
    assert read_call(made, TOOLS, None, "id").tool_name == ""
