"""The promise of `core/carried.py`: an answer so far survives as it is; white space at its end is not."""

import pytest

from rkllm_mqtt.core.carried import Carried


def test_what_is_carried_survives_as_json():
    carried = Carried(
        raw=("<think>", "hm", " "),
        tokens=3,
        thinking="hm",
        tool_calls=({"id": "a", "function": {"name": "light", "arguments": "{}"}},),
        deltas=2,
        prompt_tokens=9,
        ttft_ms=12.5,
    )
    assert Carried.from_json(carried.to_json()) == carried


@pytest.mark.parametrize(
    ("raw", "behind"), [((), ""), (("It", " is", " \n\n"), "It is"), (("\n",), ""), ((" a", "b"), " ab")]
)
def test_white_space_at_the_end_is_not_put_behind_the_prompt(raw, behind):
    assert Carried(raw=raw).behind_prompt == behind
