"""How each family of models is asked to write a tool call, and how a prompt begins one for it.

Pure. Our own templates and those of Hugging Face are told apart by the marks that stand in them.
"""

import json
from collections.abc import Mapping
from enum import StrEnum

from rkllm_mqtt.content.reading import SEPARATOR


class Dialect(StrEnum):
    """What a family writes."""

    HERMES = "hermes"
    """`<tool_call>{"name", "arguments"}</tool_call>`: Qwen, Hermes."""
    LLAMA = "llama"
    """`{"name", "parameters"}`, sometimes behind `<|python_tag|>`: Llama 3, and Gemma with our template."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS][{"name", "arguments"}]`, or `[TOOL_CALLS]NAME[ARGS]{...}`."""
    DEEPSEEK = "deepseek"
    """`<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME` and fenced JSON: DeepSeek V3 and R1."""
    DEEPSEEK_31 = "deepseek 3.1"
    """`<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}`."""
    PLAIN = "plain"
    """`{"name", "arguments"}`."""


_BEGINS = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"

_OPENINGS: Mapping[Dialect, str] = {
    Dialect.HERMES: "<tool_call>\n",
    Dialect.LLAMA: "",
    Dialect.MISTRAL: "[TOOL_CALLS]",
    Dialect.DEEPSEEK: f"{_BEGINS}function{SEPARATOR}",
    Dialect.DEEPSEEK_31: _BEGINS,
    Dialect.PLAIN: "",
}


def dialect_of(template: str) -> Dialect:
    """Return the dialect of a chat template's text."""
    if "<｜tool▁call▁begin｜>" in template:
        return Dialect.DEEPSEEK if "```json" in template else Dialect.DEEPSEEK_31
    if "<tool_call>" in template:
        return Dialect.HERMES
    if "[TOOL_CALLS]" in template:
        return Dialect.MISTRAL
    if "<|python_tag|>" in template or "'parameters'" in template or '"parameters": ' in template:
        return Dialect.LLAMA
    return Dialect.PLAIN


def begun_call(dialect: Dialect, name: str | None) -> str:
    """Return the beginning of an answer that has to be a call.

    Args:
        dialect: Of the model.
        name: The tool, as it stands in the prompt; None leaves the choice to the model.
    """
    opening = _OPENINGS[dialect]
    if name is None:
        return opening or '{"name":'
    if dialect is Dialect.DEEPSEEK:
        return f"{opening}{name}\n```json\n"
    if dialect is Dialect.DEEPSEEK_31:
        return f"{opening}{name}{SEPARATOR}"
    key = "parameters" if dialect is Dialect.LLAMA else "arguments"
    # No blank at the end: with most tokenizers it belongs to what follows.
    begun = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{key}":'
    return f"{opening}[{begun}" if dialect is Dialect.MISTRAL else opening + begun
