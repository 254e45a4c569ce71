"""The promise of `render/environment.py`: Hugging Face's conventions, nothing volatile, no way out."""

import pytest
from jinja2 import TemplateError, TemplateNotFound
from jinja2.exceptions import SecurityError

from rkllm_mqtt.render.environment import RaisedByTemplate, TemplateSandbox, to_json


def show(source, **variables):
    return TemplateSandbox({"t": source}, max_chars=1000).get_template("t").render(variables)


def test_blocks_leave_no_lines_and_no_indentation():
    assert (
        show("{% for x in xs %}\n    {% if x %}\n{{ x }},\n    {% endif %}\n{% endfor %}\n", xs=[1, 0, 2])
        == "1,\n2,\n"
    )


def test_loops_can_be_left_and_continued():
    assert (
        show(
            "{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% elif x == 4 %}{% break %}{% endif %}"
            "{{ x }}{% endfor %}"
        )
        == "13"
    )


def test_a_generation_block_is_its_content():
    assert show("a{% generation %}{{ x }}{% endgeneration %}c", x="b") == "abc"


def test_a_template_can_refuse():
    with pytest.raises(RaisedByTemplate, match="roles must alternate"):
        show("{{ raise_exception('roles must alternate') }}")


def test_json_is_compact_and_keeps_characters_as_they_are():
    assert to_json({"b": "<ü> & '", "a": [1, None]}) == '{"b":"<ü> & \'","a":[1,null]}'
    assert show("{{ x | tojson }}", x="<b>&") == '"<b>&"'


def test_json_follows_the_arguments_that_templates_use():
    assert to_json({"b": 1, "a": [2]}, indent=1, sort_keys=True) == '{\n "a": [\n  2\n ],\n "b": 1\n}'
    assert show("{{ x | tojson(separators=(', ', ': ')) }}", x={"a": [1, 2]}) == '{"a": [1, 2]}'
    assert to_json("ü", ensure_ascii=True) == '"\\u00fc"'


def test_json_has_no_number_that_json_has_not():
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))


def test_the_clock_stands_still():
    assert show("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ x.append(1) }}",
        "{{ raise_exception.__globals__.json }}",
        "{{ 'x' * 1001 }}",
        "{{ 10 ** 100 }}",
        "{{ 9000000000 * 2 }}",
        "{% for i in range(1000000) %}{% endfor %}",
    ],
)
def test_a_template_can_neither_escape_nor_waste(source):
    with pytest.raises((SecurityError, OverflowError)):
        show(source, x=[])


def test_small_sums_and_repetitions_work():
    assert show("{{ '=' * 3 ~ 2 ** 3 ~ 6 * 7 }}") == "===842"


def test_a_template_cannot_read_files():
    with pytest.raises(TemplateNotFound):
        show("{% include '/etc/hostname' %}")
    with pytest.raises(TemplateError):
        show("{% import '../templates/calls.jinja' as calls %}")
