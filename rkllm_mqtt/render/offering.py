"""Offer tools to a model whose own template knows none: in words, and in the form of its family.

All texts are canonical and harmless already; the marks that are put around them here are ours.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from rkllm_mqtt.content.dialects import Dialect, begun_call
from rkllm_mqtt.content.reading import SEPARATOR

from .environment import to_json

Message = dict[str, object]

_SIGNATURES = "These functions are at your disposal, one JSON signature a line:\n"
_WHEN = "When the request needs one or several of them, answer with nothing but this, once for each call:\n"
_NAME, _ARGUMENTS = "<function-name>", "<arguments-json-object>"


def with_offer(messages: Sequence[Message], offer: str, *, to_user: bool) -> list[Message]:
    """Return messages that offer tools in their text: behind the system prompt, or before the first words.

    Args:
        messages: Canonical, at least one.
        offer: What `offer_of` returned.
        to_user: The template takes no system prompt: the user says it.
    """
    first = messages[0]
    if first["role"] == "system":
        return [{**first, "content": f"{first['content']}\n\n{offer}"}, *messages[1:]]
    if not to_user:
        return [{"role": "system", "content": offer}, *messages]
    if first["role"] == "user":
        return [{**first, "content": f"{offer}\n\n{first['content']}"}, *messages[1:]]
    return [{"role": "user", "content": offer}, *messages]


def without_calls(messages: Sequence[Message], dialect: Dialect) -> list[Message]:
    """Return messages in which calls and their results are text, for a template that knows neither."""
    plain: list[Message] = []
    after_result = False
    for message in messages:
        told, is_result = message, message["role"] == "tool"
        if is_result:
            told = {"role": "user", "content": _result(message, dialect)}
        elif message.get("tool_calls"):
            said = [str(message["content"] or "").strip(), *_made(message, dialect)]
            told = {key: value for key, value in message.items() if key != "tool_calls"}
            told["content"] = "\n".join(filter(None, said))
        if (is_result or after_result) and plain and told["role"] == plain[-1]["role"]:
            # Most templates want the roles in turns.
            told = {**told, "content": f"{plain.pop()['content']}\n{told['content']}"}
        plain.append(told)
        after_result = is_result
    return plain


def offer_of(tools: Sequence[Mapping[str, object]], dialect: Dialect) -> str:
    """Return the text that offers canonical tools, and says how they are called."""
    lines = "\n".join(to_json(tool["function"]) for tool in tools)
    return f"{_SIGNATURES}{lines}\n\n{_WHEN}{_call(_NAME, _ARGUMENTS, dialect)}"


def _call(name: str, arguments: str, dialect: Dialect) -> str:
    """Return a call as the model is to write it."""
    match dialect:
        case Dialect.DEEPSEEK:
            whole = f"function{SEPARATOR}{name}\n```json\n{arguments}\n```"
        case Dialect.DEEPSEEK_31:
            whole = f"{name}{SEPARATOR}{arguments}"
        case _:
            written = name if name == _NAME else json.dumps(name, ensure_ascii=False)
            key = "parameters" if dialect is Dialect.LLAMA else "arguments"
            whole = f'{{"name": {written}, "{key}": {arguments}}}'
    match dialect:
        case Dialect.DEEPSEEK | Dialect.DEEPSEEK_31:
            return (
                f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{whole}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
            )
        case Dialect.HERMES:
            return f"{begun_call(dialect, None)}{whole}\n</tool_call>"
        case Dialect.MISTRAL:
            return f"{begun_call(dialect, None)}[{whole}]"
        case _:
            return whole


def _made(message: Message, dialect: Dialect) -> Iterator[str]:
    calls = message["tool_calls"]
    assert isinstance(calls, list)
    for call in calls:
        function = call["function"]
        arguments = function["arguments"]
        written = arguments if isinstance(arguments, str) else to_json(arguments, separators=(", ", ": "))
        yield _call(function["name"], written, dialect)


def _result(message: Message, dialect: Dialect) -> str:
    if dialect is Dialect.HERMES:
        return f"<tool_response>\n{message['content']}\n</tool_response>"
    name = f" of {message['name']}" if message.get("name") else ""
    return f"Result{name}:\n{message['content']}"
