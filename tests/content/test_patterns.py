"""The promise of `content/patterns.py`: what could run for ever is refused, what people write passes."""

import pytest

from rkllm_mqtt.content.patterns import MAX_PATTERN_CHARS, why_refused


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"^(a*)*b",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        r"(a|a)*b",
        r"(?:x+y?){20}",
        r"(\w+\s?){2,}",
        r"((a{2,5})b)+",
        r"(.*)\1",
        r"(?P<x>a)(?P=x)",
        "(",
        "[z-a]",
        "a" * (MAX_PATTERN_CHARS + 1),
    ],
)
def test_a_dangerous_or_broken_pattern_is_refused(pattern):
    assert why_refused(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        r"^[a-z_]+\.[a-z0-9_]+$",
        r"^\d{4}-\d{2}-\d{2}$",
        r"^(\d{1,3}\.){3}\d{1,3}$",
        r"^(on|off)$",
        r"^#[0-9a-f]{6}([0-9a-f]{2})?$",
        r"[()*+|]+",
        r"[^]a*]+",
        r"\(+a\)+",
        r"(?:abc)+",
        r"^(?=.*\d).+$",
        "a" * MAX_PATTERN_CHARS,
    ],
)
def test_an_ordinary_pattern_passes(pattern):
    assert why_refused(pattern) is None
