"""Weigh a prompt against the model's context. Pure: settings and texts in, tokens out."""

from collections.abc import Mapping
from typing import Any

from homeassistant.const import CONF_MODEL

from .const import CONF_MAX_TOKENS, DEFAULT_MAX_TOKENS
from .messages import estimate_tokens
from .protocol import Info

QUESTION_TOKENS = 150
"""Room for a question of two or three sentences and the result of a tool."""
_DEFAULT_CONTEXT = 4096


def context_tokens(info: Info | None, data: Mapping[str, Any]) -> int:
    """Return the context of the model that the settings name."""
    model = info.model(data.get(CONF_MODEL)) if info else None
    return (model.context_tokens if model else 0) or _DEFAULT_CONTEXT


def reply_tokens(info: Info | None, data: Mapping[str, Any]) -> int:
    """Return how many tokens a prompt may have, so that the longest answer still fits."""
    return context_tokens(info, data) - int(data.get(CONF_MAX_TOKENS, DEFAULT_MAX_TOKENS))


def prompt_tokens(system: str, tools: list[dict[str, Any]]) -> int:
    """Return about how many tokens the constant part of every prompt has."""
    return estimate_tokens(system) + (estimate_tokens(tools) if tools else 0)
