"""The promise of `orders.py`: a run is told exactly what its request asks for."""

from live_jobs import make_job, request

from rkllm_mqtt.orders import Orders
from rkllm_mqtt.render.renderer import Renderer

TOOLS = (
    {"type": "function", "function": {"name": "on", "parameters": {"properties": {"a": {}}}}},
    {"type": "function", "function": {"name": "off"}},
)
ORDERS = Orders({"plain": Renderer("chatml", thinking="switch")})


def make(**fields):
    return ORDERS.make(make_job(request("hi", **fields)))


def test_a_request_without_tools_is_read_as_text():
    rendered, order = make(stop=("END",), sampling={"top_k": 3}, max_tokens=7)
    assert order.prompt == rendered.text
    assert (order.text_stops, order.sampling, order.max_tokens) == (("END",), {"top_k": 3}, 7)
    assert order.stops == rendered.stops
    assert order.calls is None


def test_offered_tools_stand_in_the_prompt_and_are_the_ones_that_are_found():
    _, order = make(tools=TOOLS)
    assert '"name":"on"' in order.prompt
    assert order.calls.tools == {"on": {"properties": {"a": {}}}, "off": {}}
    assert (order.calls.begun, order.calls.only_one) == ("", False)


def test_tools_that_may_not_be_called_are_not_offered():
    _, order = make(tools=TOOLS, tool_choice="none")
    assert '"name":"on"' not in order.prompt
    assert order.calls is None


def test_a_conversation_with_calls_shows_no_marks_even_where_no_tool_is_offered():
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "on", "arguments": "{}"}}]}
    messages = ({"role": "user", "content": "x"}, called, {"role": "tool", "content": "ok"})
    assert make(messages=messages)[1].calls.tools == {}


def test_a_tool_that_must_be_called_is_begun_and_ends_the_answer():
    _, order = make(tools=TOOLS, tool_choice="required", tool_name="off", thinking=True)
    begun = '<tool_call>\n{"name": "off", "arguments":'
    assert order.prompt.endswith("</think>\n\n" + begun)
    assert (order.calls.begun, order.calls.only_one, list(order.calls.tools)) == (begun, True, ["off"])
    assert '"name":"on"' in order.prompt  # the same beginning as any other prompt with these tools


def test_a_call_of_any_tool_is_begun_too():
    _, order = make(tools=TOOLS, tool_choice="required")
    assert order.prompt.endswith("<tool_call>\n")
    assert (order.calls.begun, order.calls.only_one) == ("<tool_call>\n", False)
