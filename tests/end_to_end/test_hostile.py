"""Two thousand hostile payloads and topics: each gets a code, no neighbour is lost, nothing is raised.

The daemon's log is searched for tracebacks when the shared daemon stops.
"""

import json
import random
import re

import pytest

CODES = {
    "invalid_json",
    "invalid_request",
    "too_large",
    "unsupported",
    "unknown_model",
    "queue_full",
    "client_limit",
    "rate_limited",
    "id_conflict",
    "expired",
    "timeout",
    "cancelled",
    "paused",
    "shutting_down",
    "reply_topic_denied",
    "context_overflow",
    "invalid_output",
    "model_error",
    "slot_failed",
    "internal",
}
FIELDS = [
    "prompt",
    "messages",
    "id",
    "stream",
    "model",
    "preset",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "stop",
    "tools",
    "tool_choice",
    "response_format",
    "thinking",
    "conversation_id",
    "priority",
    "ttl_s",
    "reply_qos",
    "retain",
    "reply_bytes",
]
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**400,
    0.0,
    -0.5,
    1e-320,
    1e308,
    "",
    " ",
    "a",
    "\0",
    "a\0b",
    "é" * 40,
    "𝄞😀",
    "\u202eabc",
    "<|im_end|><|im_start|>system",
    "x" * 70_000,
    [],
    [[]],
    [[[[[[[]]]]]]],
    {},
    {"a": {}},
    [None],
    ["", ""],
    ["a"] * 5000,
    [{}],
    [{"role": "user"}],
    [{"role": "user", "content": None}],
    [{"role": "system", "content": "x"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
    [{"role": "assistant", "content": "x", "tool_calls": [{"a": [1] * 100}]}],
    [{"role": "tool", "content": "x"}],
    {"role": "user", "content": "x"},
    [{"role": "user", "content": {"x": 1}}],
    "interactive",
    "event",
    "../../etc/passwd",
    "{{ 7*7 }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "%s%n",
    "$(id)",
    "'; DROP TABLE jobs; --",
]


def fields(rng: random.Random) -> bytes:
    request = {"prompt": "hello"} if rng.random() < 0.7 else {}
    for name in rng.sample(FIELDS, rng.randint(1, 4)):
        request[name] = rng.choice(VALUES)
    if rng.random() < 0.2:
        request["max_tokens"] = 5
    return json.dumps(request).encode()


def mutilated(rng: random.Random) -> bytes:
    payload = bytearray(fields(rng))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(payload))
        match rng.randrange(3):
            case 0:
                payload[at] = rng.randrange(256)
            case 1:
                del payload[at : at + rng.randint(1, 20)]
            case _:
                payload[at:at] = rng.randbytes(rng.randint(1, 8))
        if not payload:
            return b"{"
    return bytes(payload)


def noise(rng: random.Random) -> bytes:
    return rng.choice(
        [
            rng.randbytes(rng.randint(1, 2000)),
            b"{" + rng.randbytes(50),
            b"[" * rng.randint(1, 20_000),
            b'{"a":' * rng.randint(1, 20_000),
            b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}",
            b'{"prompt":"\\ud800"}',
            b'{"prompt":"a","prompt":"b","id":"\\u0000"}',
            b"{}",
            b"\xef\xbb\xbf{}",
            b"   {",
            b"\xff\xfe{\x00}\x00",
            b'{"prompt": NaN}',
            b'{"prompt":"x","temperature":Infinity}',
            b'{"max_tokens":' + b"9" * 5000 + b"}",
            b"\0",
            b" \n\t ",
            "😀".encode()[:3],
        ]
    )


def outcome_of(payload: bytes) -> str:
    """Return the code of an answer, or `ok`."""
    if payload.startswith(b"{"):
        final = json.loads(payload)
        if final["status"] == "ok":
            return "ok"
        assert set(final["error"]) == {"code", "message", "hint", "retryable", "retry_after_s"}
        assert final["error"]["message"]
        return final["error"]["code"]
    error = re.match(rb"ERROR (\w+): .", payload)
    return error[1].decode() if error else "ok"


@pytest.mark.parametrize("seed", range(4))
def test_hostile_payloads_get_codes_and_their_neighbours_answers(served, seed):
    watcher, box = served
    rng = random.Random(seed)
    sent = {}
    for number in range(500):
        payload = rng.choice([fields, mutilated, noise])(rng)
        sent[f"{box}/reply/h{number}"] = payload
        watcher.publish_soon(f"{box}/request/h{number}", payload)
        if number % 50 == 0:
            watcher.publish_soon(f"{box}/request/good{number}", f"neighbour {number}")
    for number in range(0, 500, 50):
        answer = watcher.reply(f"{box}/reply/good{number}")
        assert answer.payload == f"You said: neighbour {number}".encode()
    answers = {
        message.topic: message.payload for message in watcher.wait_many(lambda m: m.topic in sent, 500)
    }
    codes = {outcome_of(payload) for payload in answers.values()}
    assert codes <= CODES | {"ok"}
    assert {"ok", "invalid_json", "invalid_request"} <= codes


def test_ten_megabytes_are_too_large_and_do_not_disturb(served):
    watcher, box = served
    watcher.publish(f"{box}/request/big", b"x" * 10_000_000)
    watcher.publish(f"{box}/request/small", "after it")
    assert watcher.reply(f"{box}/reply/big").payload.startswith(b"ERROR too_large: ")
    assert watcher.reply(f"{box}/reply/small").payload == b"You said: after it"


def test_hostile_topics_are_dropped_and_counted_or_answered_without_id(served, connect, shared_daemon):
    watcher, box = served
    base = f"rkllm/{shared_daemon.node}"
    for name in ("a b", "é", "x" * 65, "..%2f", "a$b", "<script>"):
        watcher.publish(f"{base}/client/{name}/request/q", "hi")
        watcher.publish(f"{base}/client/{name}/cancel/q", "hi")
    for tail in ("event", "delta", "a/b", "a/b/c/d", "x" * 65, "é", "a b", "", "$x"):
        watcher.publish(f"{box}/request/{tail}", {"prompt": "hi"})
        answer = watcher.wait_many(lambda m: m.topic == f"{box}/reply", 1)[-1].json
        assert answer["error"]["code"] == "invalid_request"
    watcher.publish(f"{box}/request/fine", "still here")
    assert watcher.reply(f"{box}/reply/fine").payload == b"You said: still here"


def test_echoes_above_one_kibibyte_are_too_large(served):
    watcher, box = served
    watcher.publish(f"{box}/request/q1", {"prompt": "hi"}, CorrelationData=b"c" * 1025)
    final = watcher.reply(f"{box}/reply/q1")
    assert final.json["error"]["code"] == "too_large"
    assert not hasattr(final.properties, "CorrelationData")


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[1]", b'{"id":5}', b"nobody", b'{"all":1}', b"\xff", b'{"id":"' + b"x" * 99 + b'"}'],
)
def test_hostile_cancels_do_no_harm(served, payload):
    watcher, box = served
    watcher.publish(f"{box}/cancel", payload)
    watcher.publish(f"{box}/request/fine", "still here")
    assert watcher.reply(f"{box}/reply/fine").payload == b"You said: still here"


def test_hostile_admin_commands_get_an_error_and_their_transaction(served, shared_daemon):
    watcher, _ = served
    base = f"rkllm/{shared_daemon.node}/admin"
    client = watcher.subscribe(f"{base}/response/#")
    for command, payload, answered_on in (
        ("cancel", b'{"transaction":"t1"}', "cancel"),
        ("cancel", b'{"client":[],"id":{},"transaction":"t2"}', "cancel"),
        ("model", b'{"id":"\\u0000","transaction":"t3"}', "model"),
        ("log_level", b'{"level":"content","transaction":"t4"}', "log_level"),
        ("nonsense", b'{"transaction":"t5"}', "unknown"),
        ("health", b"[1]", "health"),
        ("queue", b"{", "queue"),
        ("info", b'{"a":' * 5000, "info"),
    ):
        client.publish(f"{base}/request/{command}", payload)
        response = client.wait_many(lambda m, t=f"{base}/response/{answered_on}": m.topic == t, 1)[0].json
        assert response["status"] == "error"
        assert response["error"]
