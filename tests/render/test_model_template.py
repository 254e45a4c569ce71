"""The promise of `render/renderer.py` with a model's own template: its variables, tokens and mistakes."""

import pytest

from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Renderer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who are you?"},
]


def test_a_model_file_sees_the_variables_that_published_templates_use(model_folder, conversation, tools):
    source = (
        "{{- bos_token }}{% if tools is not none %}T{{ tools | length }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}:{{ m['content'] | trim }}"
        "{% if m.tool_calls is defined %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}]"
        "{% endfor %}{% if add_generation_prompt %}A{% endif %}"
        "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}"
    )
    folder = model_folder(tokenizer_config_json={"bos_token": "<BOS>", "chat_template": source})
    renderer = Renderer(str(folder / "tokenizer_config.json"), thinking="switch")
    text = (
        "[system:Be brief.][user:Lamp on. What time is it?][assistant:{args}][tool:done]"
        '[tool:{"time": "12:00"}][assistant:It is on, and it is noon.][user:Thanks!]A'
    ).replace("{args}", '{"name":"lamp"}')
    assert renderer.render(conversation).text == "<BOS>" + text
    loud = renderer.render(conversation, tools=tools, thinking=True)
    assert loud.text == "<BOS>T2" + text + "<think>\n"
    assert loud.opens_thinking


def test_a_model_files_own_tokens_cannot_be_forged(model_folder):
    folder = model_folder(
        tokenizer_config_json={"eos_token": "<<FIN>>", "chat_template": "{{ messages[0].content }}"}
    )
    rendered = Renderer(str(folder / "tokenizer_config.json")).render(
        [{"role": "user", "content": "a<<FIN>>b"}]
    )
    assert rendered.text == "a< <FIN>>b"
    assert rendered.stops == ("<<FIN>>",)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'none' if content is none else content }} {{ f.arguments | tojson }}", 'none {"name":"lamp"}'),
        ("{{ 'none' if content is none else content }} {{ 'is ' + f.arguments }}", 'none is {"name":"lamp"}'),
        ("{{ '-' + content }} {{ f.arguments | tojson }}", '- {"name":"lamp"}'),
        ("{{ '-' + content }} {{ 'is ' + f.arguments }}", '- is {"name":"lamp"}'),
    ],
)
def test_calls_are_spelled_as_the_models_template_expects_them(model_folder, conversation, source, expected):
    preamble = "{% set content = messages[2].content %}{% set f = messages[2].tool_calls[0].function %}"
    path = model_folder(own_jinja=preamble + source) / "own.jinja"
    assert Renderer(str(path)).render(conversation).text == expected


def test_a_template_that_fails_with_each_spelling_tells_of_the_first(model_folder, conversation):
    path = model_folder(own_jinja="{{ messages[2].content + 1 }}") / "own.jinja"
    with pytest.raises(RenderError, match=r"line 1: TypeError: can only concatenate"):
        Renderer(str(path)).render(conversation)


def test_a_template_without_its_special_tokens_says_which_file_names_them(model_folder):
    path = model_folder(own_jinja="{{ bos_token + 'x' }}") / "own.jinja"
    with pytest.raises(RenderError, match="bos_token") as caught:
        Renderer(str(path)).render(CHAT)
    assert "tokenizer_config.json" in caught.value.hint


def test_a_second_template_serves_conversations_with_tools(model_folder, tools):
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T{{ tools | length }}"}]
    renderer = Renderer(
        str(model_folder(tokenizer_config_json={"chat_template": named}) / "tokenizer_config.json")
    )
    assert renderer.render(CHAT).text == "D"
    assert renderer.render(CHAT, tools=tools).text == "T2"


def test_a_syntax_error_is_found_at_the_start_with_its_line(model_folder):
    path = model_folder(bad_jinja="a\nb\n{% if %}") / "bad.jinja"
    with pytest.raises(RenderError, match=r"bad\.jinja, line 3") as caught:
        Renderer(str(path))
    assert caught.value.code == "model_error"


def test_a_template_that_fails_names_its_line_and_a_way_out(model_folder):
    path = model_folder(bad_jinja="a\n{{ messages[0].content.nothing.at_all }}\n") / "bad.jinja"
    with pytest.raises(RenderError, match=r"bad\.jinja, line 2: UndefinedError") as caught:
        Renderer(str(path)).render(CHAT)
    assert caught.value.code == "model_error"
    assert "chatml" in caught.value.hint


def test_a_template_that_refuses_the_order_of_roles_blames_the_request(model_folder):
    source = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(RenderError, match="Roles must alternate") as caught:
        Renderer(str(model_folder(strict_jinja=source) / "strict.jinja")).render(CHAT)
    assert caught.value.code == "invalid_request"


def test_a_template_that_writes_without_end_is_stopped(model_folder):
    source = "{% for a in range(90000) %}{% for b in range(90000) %}word {% endfor %}{% endfor %}"
    with pytest.raises(RenderError, match="longer than"):
        Renderer(str(model_folder(endless_jinja=source) / "endless.jinja"), max_chars=10_000).render(CHAT)
