"""Turn Home Assistant's chat log into the messages of a request, so that prefixes stay equal.

Rule 1: what depends on the asking satellite goes behind everything that does not: into a second system
message, which templates put behind the tools.
Rule 2: history is cut in whole turns from the oldest; a call is never without its result.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from homeassistant.components import conversation
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import llm

from .const import DOMAIN
from .tools import canonical

Messages = list[dict[str, Any]]

_VOLATILE = re.compile(
    r"You are in area .+ should target this area\."
    r"|When a user asks to turn on all devices of a specific type, .+"
    r"|This device is not able to start timers\."
    r"|Current time is \d\d:\d\d:\d\d\. Today's date is .+"
)
"""Lines of Home Assistant's prompt that differ from one satellite, or from one moment, to another."""
_BYTES_PER_TOKEN = 3.6
_MESSAGE_TOKENS = 5


def split_system(prompt: str) -> tuple[str, str]:
    """Return what all satellites share of a system prompt, and what only this one has."""
    shared: list[str] = []
    own: list[str] = []
    for line in prompt.split("\n"):
        (own if _VOLATILE.fullmatch(line.strip()) else shared).append(line)
    return "\n".join(shared).strip(), "\n".join(own).strip()


def estimate_tokens(*parts: Any) -> int:
    """Return about how many tokens texts or JSON values have; a few per cent above most tokenizers."""
    size = sum(len((part if isinstance(part, str) else canonical(part)).encode()) for part in parts)
    return math.ceil(size / _BYTES_PER_TOKEN)


def build_messages(
    content: Sequence[conversation.Content], *, max_turns: int, budget_tokens: int
) -> Messages:
    """Return the messages of a chat log.

    Args:
        content: The chat log, the system prompt first.
        max_turns: Earlier turns to keep; 0 keeps none.
        budget_tokens: For all of it, by our estimate. The system prompt and the turn that is asked now are
            kept whatever they cost: the daemon says how much is too much.

    Raises:
        HomeAssistantError: Something cannot be sent, like an attachment.
    """
    system, own = "", ""
    if content and isinstance(content[0], conversation.SystemContent):
        system, own = split_system(content[0].content)
        content = content[1:]
    turns = [turn for turn in _turns(content) if turn]
    *past, present = [_convert_turn(turn) for turn in turns] or [[]]
    past = [turn for turn, raw in zip(past, turns, strict=False) if not _failed(raw)]
    past = past[-max_turns:] if max_turns > 0 else []
    left = budget_tokens - _cost([{"content": system + own}]) - _cost(present)
    kept: list[Messages] = []
    for turn in reversed(past):
        left -= _cost(turn)
        if left < 0:
            break
        kept.insert(0, turn)
    before = [{"role": "system", "content": text} for text in (system, own) if text]
    return before + [message for turn in (*kept, present) for message in turn]


def _turns(content: Sequence[conversation.Content]) -> list[list[conversation.Content]]:
    turns: list[list[conversation.Content]] = [[]]
    for each in content:
        if isinstance(each, conversation.UserContent) and turns[-1]:
            turns.append([])
        turns[-1].append(each)
    return turns


def _failed(turn: Sequence[conversation.Content]) -> bool:
    """Return whether a turn ended in an error that Home Assistant noted in place of an answer."""
    last = turn[-1]
    return isinstance(last, conversation.AssistantContent) and (last.content or "").startswith("Error: ")


def _convert_turn(turn: Sequence[conversation.Content]) -> Messages:
    return [_convert(each) for each in turn]


def _convert(content: conversation.Content) -> dict[str, Any]:
    match content:
        case conversation.UserContent():
            if content.attachments:
                raise HomeAssistantError(translation_domain=DOMAIN, translation_key="attachments_unsupported")
            return {"role": "user", "content": content.content}
        case conversation.AssistantContent():
            message: dict[str, Any] = {"role": "assistant", "content": content.content or ""}
            if calls := [_call(call) for call in content.tool_calls or () if not call.external]:
                message["tool_calls"] = calls
            return message
        case conversation.ToolResultContent():
            result = {"error": content.result.data} if content.result.error else content.result.data
            return {
                "role": "tool",
                "tool_call_id": content.tool_call_id,
                "name": content.tool_name,
                "content": canonical(result),
            }
        case _:
            return {"role": "system", "content": content.content}


def _call(call: llm.ToolInput) -> dict[str, Any]:
    function = {"name": call.tool_name, "arguments": canonical(call.tool_args)}
    return {"id": call.id, "type": "function", "function": function}


def _cost(messages: Messages) -> int:
    return sum(
        estimate_tokens(message.get("content", ""), message.get("tool_calls", "")) + _MESSAGE_TOKENS
        for message in messages
    )
