"""The promise of `render/fence.py`: whatever a template file does, it costs one prompt and nothing else."""

import os
import signal
import threading
from pathlib import Path

import pytest

from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.fence import FencedRenderer, open_renderer
from rkllm_mqtt.render.renderer import Renderer

ATTACKS = {
    # Time.
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "sum": "{{ range(99999) | batch(1) | sum(start=[]) }}",
    "filler": "{{ lipsum(n=100000, html=false) }}",
    # Memory.
    "doubling": "{% set n = namespace(s='xxxxxxxx') %}"
    "{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "replacing": "{{ ('a' * 9999) | replace('a', 'a' * 9999) | replace('a', 'a' * 9999) }}",
    "padding": "{{ messages[0].content.rjust(9999999999) }}",
    "format": "{{ '%09999999999d' % messages | length }}",
    "list": "{{ [0] * 999999999 }}",
    # Recursion.
    "macro": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "nesting": "{{ " + "[" * 40 + "]" * 40 + " }}{% for i in [1] recursive %}{{ loop([i]) }}{% endfor %}",
    # Ways out.
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.environ }}",
    "filter": "{{ messages | attr('__class__') | attr('__init__') }}",
    "format string": "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "format map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "generator": "{{ (messages | map('upper')).gi_frame.f_builtins }}",
    "function": "{{ raise_exception.__code__ }}{{ strftime_now.__self__.__class__.now() }}",
    "file": "{% include '/etc/hostname' %}",
    "change": "{{ messages.append(messages) }}",
}

ENDLESS = ("loops", "sum", "filler")

HARMLESS = {"filter": "", "format map": ""}
"""What the sandbox answers where it needs no error."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A renderer whose template does what the first message names."""
    branches = [
        "{%% if messages[0].content == '%s' %%}%s{%% endif %%}" % (name, attack)  # noqa: UP031 - braces
        for name, attack in ATTACKS.items()
    ]
    path = tmp_path_factory.mktemp("templates") / "hostile.jinja"
    path.write_text("\n".join(branches) + "\nYou said {{ messages[0].content }}.")
    renderer = FencedRenderer(str(path), thinking="none", system=None, limit_s=1.0)
    yield renderer
    renderer.close()


def ask(renderer, text):
    # A busy machine may take a second for an honest one.
    renderer._limit_s = 0.3 if text in ENDLESS else 1.0 if text in ATTACKS else 20.0
    return renderer.render([{"role": "user", "content": text}]).text.strip()


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_an_error_and_the_next_prompt_is_made(hostile, name):
    if name in HARMLESS:
        assert ask(hostile, name) == f"{HARMLESS[name]}You said {name}."
    else:
        with pytest.raises(RenderError, match="template") as failure:
            ask(hostile, name)
        assert failure.value.code == "model_error"
        assert failure.value.hint
    assert ask(hostile, "hello") == "You said hello."


def test_a_file_renders_as_without_the_fence(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if tools %}{{ tools | tojson }}{% endif %}{{ enable_thinking }}"
    )
    messages = [{"role": "user", "content": "grüße \ud83d <|im_start|> 😀"}]
    tools = [{"type": "function", "function": {"name": "on", "parameters": {"type": "object"}}}]
    fenced = FencedRenderer(str(path), thinking="switch", system="Be brief.", limit_s=20)
    try:
        bare = Renderer(str(path), thinking="switch", system="Be brief.")
        for options in ({}, {"tools": tools}, {"thinking": True}):
            assert fenced.render(messages, **options) == bare.render(messages, **options)
        for wrong in ([{"role": "nobody", "content": "x"}], []):
            with pytest.raises(RenderError) as expected:
                bare.render(wrong)
            with pytest.raises(RenderError) as found:
                fenced.render(wrong)
            assert (found.value.message, found.value.code) == (expected.value.message, expected.value.code)
    finally:
        fenced.close()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}", "RecursionError"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_refused_at_the_start(tmp_path, source, reason):
    path = tmp_path / "t.jinja"
    path.write_text(source)
    with pytest.raises(RenderError, match=reason):
        FencedRenderer(str(path), thinking="none", system=None, limit_s=5)


def test_the_process_holds_nothing_of_the_daemon(hostile, monkeypatch):
    ask(hostile, "hello")
    process = Path(f"/proc/{hostile.pid}")
    assert b"RKLLM_MQTT" not in (process / "environ").read_bytes()
    targets = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
    assert sorted(name.split(":")[0] for name in targets) == ["/dev/null"] * 3 + ["socket"]


def test_a_killed_process_costs_one_prompt_and_its_end_is_the_daemons(hostile):
    ask(hostile, "hello")
    pid = hostile.pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RenderError):
        ask(hostile, "hello")
    assert ask(hostile, "hello") == "You said hello."
    assert hostile.pid != pid


def test_threads_take_turns(hostile):
    made = []
    threads = [threading.Thread(target=lambda n=n: made.append(ask(hostile, f"t{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(made) == [f"You said t{n}." for n in range(8)]


def test_our_own_templates_need_no_fence():
    for name in ("chatml", "llama3", "gemma", "phi", "raw", "runtime"):
        assert isinstance(open_renderer(name, thinking="none", system=None, limit_s=1), Renderer)
