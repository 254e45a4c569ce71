"""A conversation with everything in it, and a model folder as Hugging Face lays it out."""

import json

import pytest


@pytest.fixture
def tools():
    """Two tools, not in order of their names."""
    return [
        {
            "type": "function",
            "function": {
                "name": "turn_on",
                "description": "Switch something on",
                "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        },
        {"type": "function", "function": {"name": "get_time"}},
    ]


@pytest.fixture
def conversation():
    """System prompt, question, two calls, two results, answer, question."""
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "turn_on", "arguments": '{"name": "lamp"}'}},
        {"id": "c2", "type": "function", "function": {"name": "get_time", "arguments": ""}},
    ]
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Lamp on. What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "tool", "tool_call_id": "c2", "content": '{"time": "12:00"}'},
        {"role": "assistant", "content": "It is on, and it is noon."},
        {"role": "user", "content": "Thanks!"},
    ]


@pytest.fixture
def model_folder(tmp_path):
    """Write files of a model; returns the folder."""

    def write(**files):
        for name, content in files.items():
            stem, _, suffix = name.rpartition("_")
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
        return tmp_path

    return write
