"""Tools as a home offers them."""

import pytest

from rkllm_mqtt.content.offer import Offer

TOOLS = {
    "turn_on": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "brightness": {"type": "integer", "minimum": 0},
            "domain": {"type": "array", "items": {"type": "string"}},
        },
    },
    "get_time": {"type": "object", "properties": {}},
    "say": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


@pytest.fixture(scope="session")  # has no state, and Hypothesis may use it
def offer():
    return Offer(TOOLS)
