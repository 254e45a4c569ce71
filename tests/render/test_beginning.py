"""The promise of `render/beginning.py`: what each next prompt begins with, cut where a message ends."""

import pytest

from rkllm_mqtt.render.beginning import beginning_of
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Renderer

SYSTEM = {"role": "system", "content": "You are the voice of a house."}
TURN = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "turn_on", "description": "Turns on.", "parameters": {}}}


def prompt(renderer, messages, tools):
    return renderer.render(messages, tools=tools).text


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma", "phi", "raw"])
@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["plain", "tools"])
@pytest.mark.parametrize("messages", [[SYSTEM], [SYSTEM, *TURN]], ids=["system", "turn"])
def test_each_question_begins_with_it_and_it_holds_all_that_came_before(template, tools, messages):
    if template == "raw" and tools:
        tools = []
    renderer = Renderer(template)
    found = beginning_of(lambda part: renderer.render(part, tools=tools), messages)
    for question in ("turn on the lamp", "0", "", "\n\nwell"):
        asked = [*messages, {"role": "user", "content": question or "?"}]
        assert prompt(renderer, asked, tools).startswith(found.text)
    for message in messages:
        assert message["content"] in found.text
    if tools:
        assert "turn_on" in found.text
    assert not found.opens_thinking


@pytest.mark.parametrize("template", ["chatml", "llama3", "phi"])
def test_it_ends_where_a_message_ends(template):
    renderer = Renderer(template)
    found = beginning_of(renderer.render, [SYSTEM])
    rest = renderer.render([SYSTEM, {"role": "user", "content": "hi"}]).text.removeprefix(found.text)
    assert rest.startswith("<|")


def test_a_conversation_that_ends_with_a_question_is_its_own_prompt():
    renderer = Renderer("chatml")
    asked = [SYSTEM, {"role": "user", "content": "hi"}]
    assert beginning_of(renderer.render, asked) == renderer.render(asked)


def test_what_the_template_refuses_has_no_beginning(tmp_path):
    template = tmp_path / "strict.jinja"
    template.write_text("{{ raise_exception('never') }}")
    with pytest.raises(RenderError):
        beginning_of(Renderer(str(template)).render, [SYSTEM])
