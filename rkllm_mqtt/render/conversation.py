"""Bring messages and tools into the one form that templates see: plain, canonical, free of forged roles."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from .environment import to_json
from .errors import RenderError
from .markers import Neutraliser, speakable

_ASKS_FOR_NULL = re.compile(r"content\W{0,2}\s+is\s+(?:not\s+)?none")

ROLES = ("system", "user", "assistant", "tool")

_THOUGHTS = ("<think>", "</think>")

_NO_PARAMETERS: Mapping[str, object] = {"type": "object", "properties": {}}

_WRITTEN_FIRST = ("type", "function", "name", "description", "parameters")
"""The order in which tools are published and models have seen them; what else there is follows sorted."""


def canonical_messages(
    messages: Sequence[Mapping[str, object]],
    system: str | None,
    clean: Neutraliser,
    replays: Mapping[int, str] | None = None,
) -> list[dict[str, object]]:
    """Return messages as templates expect them: text content, arguments as objects, absent keys left out.

    Thoughts at the start of an assistant's message are left out, as in every published template.

    Args:
        messages: As in the OpenAI chat API, at least one.
        system: Comes first when no message has the role system.
        clean: Applied to every string that a sender chose.
        replays: By the place of an assistant's message what the model wrote for it: kept in `written`.

    Raises:
        RenderError: A role, content or tool call of another shape.
    """
    if not messages:
        raise _refusal("there are no messages")
    called: dict[object, object] = {}
    canonical: list[dict[str, object]] = []
    if system and not any(row.get("role") == "system" for row in messages):
        canonical.append({"role": "system", "content": clean.text(system)})
    for place, row in enumerate(messages):
        message = _canonical_message(row, place, clean)
        if replays and place in replays and message["role"] == "assistant":
            message["written"] = speakable(replays[place])
        for call in _calls_of(message):
            called[call.get("id")] = call["name"]
        # The API names a result's tool by the id of its call only; some templates want the name.
        answers = message.get("tool_call_id")
        if message["role"] == "tool" and "name" not in message and answers is not None and answers in called:
            message["name"] = called[answers]
        canonical.append(message)
    return canonical


def canonical_tools(tools: Sequence[Mapping[str, object]], clean: Neutraliser) -> list[dict[str, object]]:
    """Return tools sorted by name, keys in a fixed order, so that the same tools always give the same bytes.

    Raises:
        RenderError: A tool without a name.
    """
    rows: list[tuple[str, str, dict[str, object]]] = []
    for tool in tools:
        function = tool.get("function", tool)
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
            raise _refusal("a tool has no function name")
        # Optional in the API, but many published templates stumble when one is missing.
        whole = {"description": "", "parameters": _NO_PARAMETERS, **function}
        signature = {key: clean.json(whole[key]) for key in _in_order(whole) if key != "type"}
        row: dict[str, object] = {"type": "function", "function": signature}
        rows.append((name, json.dumps(signature, sort_keys=True), row))
    return [row for _, _, row in sorted(rows, key=lambda entry: entry[:2])]


def spellings_of(messages: Sequence[dict[str, object]], source: str) -> Iterator[list[dict[str, object]]]:
    """Yield the ways in which published templates expect tool calls, the likeliest for this one first.

    Arguments are an object (Qwen, Llama) or JSON text (DeepSeek). A call without text beside it has an empty
    content, or null where the template asks for that. Without tool calls there is one way only.
    """
    if not any(_calls_of(message) for message in messages):
        yield list(messages)
        return
    for empty in (None, "") if _ASKS_FOR_NULL.search(source) else ("",):
        for as_text in (False, True):
            yield [_spelled(message, empty, as_text) for message in messages]


def replayed(messages: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Return canonical messages with what the model wrote in the place of content and calls."""
    return [
        {"role": message["role"], "content": message["written"]} if "written" in message else message
        for message in messages
    ]


def text_of(message: Mapping[str, object], place: int = 0) -> str:
    """Return the content as one text: parts of type `text` are joined, no content is the empty text.

    Raises:
        RenderError: Content that is neither text nor a list of text parts.
    """
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise _refusal(f"messages[{place}].content is neither text nor a list of parts")
    texts: list[str] = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
        if not isinstance(text, str):
            raise _refusal(f"messages[{place}].content has a part that is not text")
        texts.append(text)
    return "".join(texts)


def raw_text(messages: Sequence[Mapping[str, object]], system: str | None) -> str:
    """Return the contents one after the other, each on a new line; special-token strings in them stay.

    Whoever configures a model without a template wants to write the markers himself.
    """
    texts = [text_of(message, place) for place, message in enumerate(messages)]
    if system and not any(message.get("role") == "system" for message in messages):
        texts.insert(0, system)
    return speakable("\n".join(texts))


def last_user_text(messages: Sequence[Mapping[str, object]], clean: Neutraliser) -> str:
    """Return the content of the last message of role user.

    Raises:
        RenderError: There is none.
    """
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].get("role") == "user":
            return clean.text(text_of(messages[place], place))
    raise _refusal("the runtime's own template takes a user's message, and there is none")


def _canonical_message(row: Mapping[str, object], place: int, clean: Neutraliser) -> dict[str, object]:
    role = row.get("role")
    if role not in ROLES:
        raise _refusal(f"messages[{place}].role is not one of {', '.join(ROLES)}")
    text = text_of(row, place)
    if role == "assistant":
        text = _without_thoughts(text)
    message: dict[str, object] = {"role": role, "content": clean.text(text)}
    for key in ("name", "tool_call_id"):
        value = row.get(key)
        if isinstance(value, str):
            message[key] = clean.text(value)
    calls = row.get("tool_calls")
    if role == "assistant" and calls:
        if not isinstance(calls, (list, tuple)):
            raise _refusal(f"messages[{place}].tool_calls is not a list")
        message["tool_calls"] = [_canonical_call(call, place, clean) for call in calls]
    return message


def _canonical_call(call: object, place: int, clean: Neutraliser) -> dict[str, object]:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(name, str):
        raise _refusal(f"messages[{place}].tool_calls has a call without a function name")
    canonical: dict[str, object] = {
        "type": "function",
        "function": {"name": clean.text(name), "arguments": clean.json(_arguments(function))},
    }
    if isinstance(call.get("id"), str):
        canonical["id"] = clean.text(str(call["id"]))
    return canonical


def _calls_of(message: Mapping[str, object]) -> list[dict[str, object]]:
    """Return id and function of each call in a canonical message."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [{"id": call.get("id"), **call["function"]} for call in calls]


def _spelled(message: dict[str, object], empty: str | None, as_text: bool) -> dict[str, object]:
    calls = _calls_of(message)
    if not calls:
        return message
    spelled = {**message, "content": message["content"] or empty}
    if as_text:
        spelled["tool_calls"] = [
            {
                "type": "function",
                "id": call["id"],
                "function": {"name": call["name"], "arguments": to_json(call["arguments"])},
            }
            for call in calls
        ]
    return spelled


def _arguments(function: Mapping[str, object]) -> object:
    """Return the arguments as a value: the API carries them as JSON text, templates write them as JSON.

    Text that is no JSON stays text: a model's slip in an earlier turn must not end the conversation.
    """
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return arguments if arguments is not None else {}
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        return arguments


def _without_thoughts(text: str) -> str:
    begun = text.lstrip()
    if not begun.startswith(_THOUGHTS[0]) or _THOUGHTS[1] not in begun:
        return text
    return begun.split(_THOUGHTS[1], 1)[1].lstrip()


def _in_order(function: Mapping[str, object]) -> list[str]:
    known = [key for key in _WRITTEN_FIRST if key in function]
    return known + sorted(key for key in function if key not in _WRITTEN_FIRST)


def _refusal(message: str) -> RenderError:
    return RenderError(message, "see the request's fields in the protocol", "invalid_request")
