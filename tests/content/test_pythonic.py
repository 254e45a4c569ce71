"""The promise of `content/pythonic.py`: calls written as Python are read, and nothing is ever run."""

import pytest

from rkllm_mqtt.content.pythonic import python_calls


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("turn_on(name='lamp', brightness=20)", [("turn_on", {"name": "lamp", "brightness": 20})]),
        ("[turn_on(name='a'), get_time()]", [("turn_on", {"name": "a"}), ("get_time", {})]),
        ("print(default_api.say(text='hi'))", [("say", {"text": "hi"})]),
        ("result = say('hi')\nget_time()", [("say", {"text": "hi"}), ("get_time", {})]),
        ("turn_on.call(domain=['light', true, null])", [("turn_on", {"domain": ["light", True, None]})]),
        ("turn_on(name={'a': (1, 2)})", [("turn_on", {"name": {"a": [1, 2]}})]),
        ("turn_on('lamp')", []),  # which parameter?
        ("other(name='a')", []),
        ("turn_on(name=open('/etc/passwd'))", []),
        ("turn_on(name=f'{1}')", []),
        ("turn_on(name=b'a')", []),
        ("turn_on(", []),
        ("(" * 5_000 + ")" * 5_000, []),
        ("say(" + "-" * 15_000 + "1)", []),
        ("x" * 20_000 + "()", []),
        ("turn_on(name='a\0')", []),
    ],
)
def test_calls_with_literals_are_read(offer, text, calls):
    assert list(python_calls(text, offer)) == calls
