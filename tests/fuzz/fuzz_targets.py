"""What is fuzzed: functions from any bytes to nothing that raise where a promise is broken.

`make fuzz` runs each under atheris, `test_fuzz_targets.py` replays the kept corpus.
"""

import asyncio
import functools
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fuzz_choices import Choices
from paho.mqtt.exception import MalformedPacket

from rkllm_mqtt.answer import Answer
from rkllm_mqtt.config import parse_config
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.core.answers import encode, error_members
from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.errors import RequestError, SlotLost
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.topics import ClientTopic, Mailbox, Topics, is_client, is_id
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.intake.parsing import RequestParser, parse_cancel
from rkllm_mqtt.intake.rejections import peek_id
from rkllm_mqtt.mqtt.publication import read_publish
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.render.template import FAMILIES
from rkllm_mqtt.runtime.frames import FrameError, FrameReader
from rkllm_mqtt.runtime.order import RunOrder
from rkllm_mqtt.runtime.output import LibraryOutput
from rkllm_mqtt.runtime.process import WorkerProcess
from rkllm_mqtt.runtime.run import Run, Watch

# payloads

_CONFIG = """
node: rock
clients:
  - {name: texter, format: text, reply_bytes: 40, priority: background}
  - {name: "json*", format: json, system: Be brief., last: true, stream: true}
limits: {request_bytes: 4096}
"""
_SETTINGS = parse_config(_CONFIG, "fuzz", {})
_PARSER = RequestParser(_SETTINGS, configured_catalogue(_SETTINGS))
_CLIENTS = ("anybody", "texter", "json-1")
_CONTENT_TYPES = (
    None,
    "application/json",
    "text/plain; charset=utf-8",
    "Application/JSON;x",
    "",
    "image/png",
)


def payload(data: bytes) -> None:
    """A payload becomes a request that survives the journal, or an error with a code; nothing else."""
    choices = Choices(data)
    client, content_type = choices.one(_CLIENTS), choices.one(_CONTENT_TYPES)
    able = choices.one((None, {"per_run_sampling": False}, {"per_run_sampling": True}))
    body = choices.rest()
    peeked = peek_id(body)
    assert peeked is None or is_id(peeked)
    _cancel(body)
    if not body:
        return
    text = _PARSER.is_text(body, content_type, client)
    try:
        parsed = _PARSER.parse(body, text=text, client=client, capabilities=able)
    except RequestError as exc:
        encode(error_members(exc.fault))  # goes on the wire: no half surrogate, no infinity
        return
    request = parsed.request
    stored = request.to_json()
    stored.encode("utf-8")
    assert ChatRequest.from_json(stored).to_json() == stored
    encode({"ignored": parsed.ignored})
    assert parsed.id is None or is_id(parsed.id)
    assert 0 < parsed.ttl_s < float("inf")
    assert request.max_tokens >= 1
    assert request.messages
    assert not any("\0" in str(message.get("content")) for message in request.messages)


def _cancel(body: bytes) -> None:
    try:
        named = parse_cancel(body, None)
    except RequestError as exc:
        encode(error_members(exc.fault))
    else:
        assert named is None or is_id(named)


# topics

_PATTERNS = ("home/{client}/answers", "voice/{client}", "rkllm/{client}", "rkllm/rock/{client}")
_TOPICS = Topics("rkllm", "rock", ("fleet",), _PATTERNS)
_WORDS = (
    *("rkllm", "rock", "fleet", "client", "kitchen", "request", "cancel", "reply", "event", "delta", "last"),
    *("admin", "response", "status", "home", "voice", "answers", "", "+", "#", "$SYS", "q1", "\0", "info"),
)


def topics(data: bytes) -> None:
    """A PUBLISH packet of any bytes is read or refused, and no answer leaves its sender's mailbox."""
    choices = Choices(data)
    if choices.flag():
        topic, asked = _built_topic(choices), _built_topic(choices)
    else:
        first, v5 = choices.number(256), choices.flag()
        try:
            message = read_publish(first, choices.rest(), v5=v5, connection=1, session="s")
        except MalformedPacket:
            return
        topic, asked = message.topic, message.response_topic or ""
        assert "\0" not in asked
        for name, value in message.user_properties:
            (name + value).encode("utf-8")  # what is echoed must be fit to be sent
    where = _TOPICS.parse(topic)
    if _TOPICS.may_publish(topic):
        assert not isinstance(where, ClientTopic)
        assert not set("+#$\0") & set(topic)
        assert _is_ours(topic)
    if isinstance(where, ClientTopic):
        assert is_client(where.mailbox.client)
        assert where.id is None or is_id(where.id)
        _answered(asked, where.mailbox)


def _built_topic(choices: Choices) -> str:
    levels = [
        choices.text(12) if choices.number(8) == 0 else choices.one(_WORDS)
        for _ in range(1 + choices.number(11))
    ]
    return "/".join(levels)


def _answered(asked: str, mailbox: Mailbox) -> None:
    for kind in ("reply", "event", "delta", "last"):
        assert _TOPICS.may_publish(mailbox.topic(kind))
    if _TOPICS.may_answer_on(asked, mailbox):
        own = asked.startswith(f"{mailbox.prefix}/")
        patterns = {pattern.replace("{client}", mailbox.client) for pattern in _PATTERNS}
        assert own or asked in patterns
        for topic in (asked, f"{asked}/delta", f"{asked}/event"):
            assert _TOPICS.may_publish(topic)
            assert _TOPICS.parse(topic) is None


def _is_ours(topic: str) -> bool:
    levels = topic.split("/")
    if topic.startswith(("rkllm/rock/", "rkllm/fleet/", "homeassistant/")):
        return True
    stems = [levels, levels[:-1]] if levels[-1] in ("delta", "event") else [levels]
    return any(
        len(stem) == len(pattern.split("/"))
        and all(part in (level, "{client}") for part, level in zip(pattern.split("/"), stem, strict=True))
        for stem in stems
        for pattern in _PATTERNS
    )


# frames

_LOOP = asyncio.new_event_loop()
_KINDS = ("hello", "ready", "failed", "started", "tokens", "done", "", "nonsense")


def frames(data: bytes) -> None:
    """Whatever a worker writes and prints: the daemon takes it or ends the worker, and raises nothing."""
    choices = Choices(data)
    mode = choices.number(3)
    if mode == 0:
        _cut_anywhere(choices)
    elif mode == 1:
        _printed(choices)
    else:
        _LOOP.run_until_complete(_taken(choices))


def _cut_anywhere(choices: Choices) -> None:
    cuts = [choices.number(64) for _ in range(choices.number(5))]
    stream = choices.rest()
    whole, pieces = _read([stream]), []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    assert _read([*pieces, stream])[1] == whole[1]


def _read(pieces: list[bytes]) -> tuple[list[Mapping[str, Any]], bool]:
    reader, came = FrameReader(), []
    try:
        for piece in pieces:
            came += reader.feed(piece)
    except FrameError:
        return came, False
    return came, True


def _printed(choices: Choices) -> None:
    logged: list[str] = []
    output = LibraryOutput(lambda _level, line: logged.append(line))
    while choices.left:
        output.feed(choices.take(1 + choices.number(200)))
    reason, hint = output.why()
    for line in (*logged, reason, hint):
        line.encode("utf-8")
        assert len(line) <= 4096
        assert "\n" not in line


async def _taken(choices: Choices) -> None:
    loop = asyncio.get_running_loop()
    request = ChatRequest(
        messages=({"role": "user", "content": "x"},), model="demo", max_tokens=9, stream=True
    )
    address = Address(Mailbox("rkllm", "rock", "c"), "q1")
    job = Job(
        seq=1, id="q1", request=request, address=address, priority=Priority.NORMAL,
        accepted_at=0.0, queued_at=0.0, deadline=float("inf"),
    )  # fmt: skip
    answer = Answer(job, lambda message: bool(message.payload.decode("utf-8")), interval_s=0)
    killed: list[str] = []
    order = RunOrder(prompt="x", max_tokens=9)
    run = Run(1, order, Watch(30, 1800, 5), answer.take, lambda _frame: None, killed.append)
    worker = WorkerProcess(lambda frame: run.take(frame) if frame["gen"] == 1 else None, 0)
    if choices.flag():
        answer.open(started_at=loop.time(), prefill_s=None)
    while choices.left:
        worker.data_received(_frame(choices) if choices.number(4) else choices.take(choices.number(60)))
    run.lost(SlotLost("the input has ended"))  # also stops its clocks
    for future in (worker.hello, worker.ready, run.ended):
        if future.done() and not future.cancelled():
            future.exception()
    answer.close()


def _frame(choices: Choices) -> bytes:
    members: dict[str, Any] = {"t": choices.one(_KINDS), "gen": choices.one((1, 2, "1", None))}
    for name in ("n", "d", "reason", "tokens", "message", "hint", "run_ms", "text"):
        if choices.flag():
            members[name] = _value(choices)
    return json.dumps(members).encode() + b"\n"


def _value(choices: Choices) -> Any:
    kind = choices.number(8)
    if kind < 3:
        return choices.one((["a"], [["b"]], ["a", ["b"], "ü"], [], "stop", "length", "error", 3))
    if kind == 3:
        return choices.one((0, -1, 2**70, 1.5, float("nan"), True, None, {}))
    if kind == 4:
        return [choices.text(8), [choices.text(8)], choices.one((1, None, [], [1], {}))]
    return choices.text(16)


# templates

_MISTRAL = (
    "{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}"
    "{% for call in m.tool_calls or [] %}[TOOL_CALLS]{{ call.function | tojson }}{% endfor %}</s>"
    "{% else %}[INST]{{ m['name'] or '' }}{{ m['content'] }}[/INST]{% endif %}{% endfor %}"
)
_SPECIAL = re.compile(
    r"<\|\w+\|>|<｜[^｜]*｜>|</?s>|<(?:bos|eos|start_of_turn|end_of_turn)>|\[/?[A-Z_]{3,}\]|</?tool_call>"
)
_EVIL = (
    *(
        "<|im_end|>",
        "<|im_start|>system\n",
        "<|eot_id|>",
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "</s>",
    ),
    *(
        "<s>",
        "<|end|>",
        "<|",
        "|>",
        "<｜User｜>",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<think>",
        "\0",
    ),
    *("\ud800", "{{ 1 }}", "{% raw %}", "<\0|im_end|>", "\n", '"', "\\", " ", "</think>", "[/INST]", "<bos>"),
)
_ROLES = ("user", "assistant", "system", "tool", "nobody")


@functools.cache
def _renderers() -> list[Renderer]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mistral.jinja"
        file.write_text(_MISTRAL)
        file.with_name("tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
        own = [Renderer(name, thinking=kind) for name in FAMILIES for kind in ("none", "switch", "always")]
        return [*own, Renderer(str(file), system="Be brief."), Renderer("raw"), Renderer("runtime")]


def templates(data: bytes) -> None:
    """No conversation makes a template fail in its own way, and no text in it becomes a special token."""
    choices = Choices(data)
    renderer = choices.one(_renderers())
    options = {"thinking": choices.flag(), "must_call": choices.flag()}
    messages = [_message(choices) for _ in range(1 + choices.number(5))]
    tools = [_tool(choices) for _ in range(choices.number(3))]
    try:
        rendered = renderer.render(messages, tools=tools, **options)
        again = renderer.render(messages, tools=tools[::-1], **options)
    except RenderError as exc:
        if exc.code not in ("invalid_request", "unsupported", "too_large", "model_error"):
            raise
        return
    assert again == rendered
    rendered.text.encode("utf-8")
    assert "\0" not in rendered.text
    if renderer is not _renderers()[-2]:  # raw: whoever configures it writes the markers himself
        plain = renderer.render(_harmless(messages), tools=_harmless(tools), **options).text
        assert Counter(_SPECIAL.findall(rendered.text)) == Counter(_SPECIAL.findall(plain))


def _words(choices: Choices) -> str:
    return "".join(
        choices.one(_EVIL) if choices.number(4) else choices.text(6) for _ in range(choices.number(6))
    )


def _message(choices: Choices) -> dict[str, Any]:
    message: dict[str, Any] = {"role": choices.one(_ROLES), "content": _words(choices)}
    if choices.number(4) == 1:
        message["content"] = choices.one(
            (None, [{"type": "text", "text": _words(choices)}], [], [_words(choices)])
        )
    if choices.number(4) == 1:
        arguments = {_words(choices): _words(choices)}
        shown: object = json.dumps(arguments) if choices.flag() else arguments
        function = {"name": _words(choices) or "f", "arguments": shown}
        message["tool_calls"] = [{"id": _words(choices), "type": "function", "function": function}]
    for key in ("name", "tool_call_id"):
        if choices.number(4) == 1:
            message[key] = _words(choices)
    return message


def _tool(choices: Choices) -> dict[str, Any]:
    function: dict[str, Any] = {"name": _words(choices)}
    if choices.flag():
        function["description"] = _words(choices)
    if choices.flag():
        function["parameters"] = {
            "type": "object",
            "properties": {_words(choices): {"enum": [_words(choices)]}},
        }
    return {"type": "function", "function": function}


def _harmless(value: Any, key: str = "") -> Any:
    """Return the same shape with texts that mean nothing in place of those that a sender chose."""
    if isinstance(value, list):
        return [_harmless(item, key) for item in value]
    if isinstance(value, dict):
        return {name: _harmless(item, name) for name, item in value.items()}
    if not isinstance(value, str) or key in ("role", "type"):
        return value
    if key == "arguments":
        return json.dumps(_harmless(json.loads(value)))
    return value if not value.strip() else "x"


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "payload": payload,
    "topics": topics,
    "frames": frames,
    "templates": templates,
}
"""Each with a corpus folder of its name."""
