"""The promise of `content/repair.py`: JSON as models write it is read; what is no JSON gives nothing."""

import pytest

from rkllm_mqtt.content.repair import MAX_REPAIRED_CHARS, json_values, repaired


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ('{"a": 1}; {"b": 2}\n[3]', [{"a": 1}, {"b": 2}, [3]]),
        ('{"a": 1}}} and more', [{"a": 1}]),
        ('{"a": "two\nlines"}', [{"a": "two\nlines"}]),
        ("{'a': True, 'b': None,}", [{"a": True, "b": None}]),
        ('{"a": {"b": [1, 2}}', [{"a": {"b": [1, 2]}}]),
        ("{a: 1", [{"a": 1}]),
        ('{"a": NaN}', [{"a": None}]),
        ("", []),
        ("words", []),
    ],
)
def test_values_are_read_one_after_the_other_and_mended(text, values):
    assert json_values(text, mend=True) == values


def test_what_is_broken_gives_nothing_where_mending_would_be_a_guess():
    assert json_values('{"a": 2', mend=False) == []
    assert json_values('{"a": 2} {"a": 2', mend=False) == []
    assert json_values('{"a": 2}', mend=False) == [{"a": 2}]


@pytest.mark.parametrize(
    "text", ["[" * 10_000, '{"a":' * 3_000, '"' * 10_000, "[" * (MAX_REPAIRED_CHARS + 1)]
)
def test_hostile_text_ends_in_nothing_and_not_in_an_error(text):
    assert not repaired(text)
    json_values(text, mend=True)
