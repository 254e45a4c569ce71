"""The promise of `content/dialects.py`: each family's way to call, and a prompt that begins the call."""

import pytest

from rkllm_mqtt.content.calls import CallParser
from rkllm_mqtt.content.dialects import Dialect, begun_call, dialect_of
from rkllm_mqtt.content.offer import Offer
from rkllm_mqtt.render.template import open_template

REST = {
    Dialect.MISTRAL: ' {"text": "hi"}}]',
    Dialect.HERMES: ' {"text": "hi"}}\n</tool_call>',
    Dialect.DEEPSEEK: '{"text": "hi"}\n```<｜tool▁call▁end｜>',
    Dialect.DEEPSEEK_31: '{"text": "hi"}<｜tool▁call▁end｜>',
}
CHOSEN = {
    Dialect.HERMES: '{"name": "say", "arguments": {"text": "hi"}}\n</tool_call>',
    Dialect.MISTRAL: '[{"name": "say", "arguments": {"text": "hi"}}]',
    Dialect.DEEPSEEK: 'say\n```json\n{"text": "hi"}\n```<｜tool▁call▁end｜>',
    Dialect.DEEPSEEK_31: 'say<｜tool▁sep｜>{"text": "hi"}<｜tool▁call▁end｜>',
}


@pytest.mark.parametrize(
    ("family", "dialect"),
    [
        ("chatml", Dialect.HERMES),
        ("llama3", Dialect.LLAMA),
        ("gemma", Dialect.LLAMA),
        ("phi", Dialect.PLAIN),
    ],
)
def test_our_own_templates_ask_for_their_familys_form(family, dialect):
    assert open_template(family).dialect is dialect


@pytest.mark.parametrize(
    ("source", "dialect"),
    [
        ("{{ '<tool_call>' }}", Dialect.HERMES),
        ("{{ '[TOOL_CALLS] [' }}", Dialect.MISTRAL),
        ("{{ '<|python_tag|>' }}", Dialect.LLAMA),
        ('{"name": x, "parameters": y}', Dialect.LLAMA),
        ("{{ '<｜tool▁call▁begin｜>' + f.name + '\\n```json\\n' }}", Dialect.DEEPSEEK),
        ("{{ '<｜tool▁call▁begin｜>' + f.name + '<｜tool▁sep｜>' }}", Dialect.DEEPSEEK_31),
        ("{{ tools }}", Dialect.PLAIN),
    ],
)
def test_a_models_own_template_is_known_by_its_marks(source, dialect):
    assert dialect_of(source) is dialect


@pytest.mark.parametrize("dialect", Dialect)
def test_a_call_that_the_prompt_has_begun_is_read_to_its_end(dialect):
    offer = Offer({"say": {"properties": {"text": {}}}, "other": {}})
    parser = CallParser(offer, begun=begun_call(dialect, "say"), only_one=True)
    (call,) = parser.feed(REST.get(dialect, ' {"text": "hi"}}')) or parser.flush(complete=True)
    assert (call.name, call.arguments) == ("say", '{"text": "hi"}')
    assert parser.ended


@pytest.mark.parametrize("dialect", Dialect)
def test_a_call_whose_tool_the_model_may_choose_is_read_too(dialect):
    parser = CallParser(Offer({"say": {}}), begun=begun_call(dialect, None))
    rest = CHOSEN.get(dialect, ' "say", "arguments": {"text": "hi"}}')
    (call,) = [*parser.feed(rest), *parser.flush(complete=True)]
    assert (call.name, call.arguments) == ("say", '{"text": "hi"}')
