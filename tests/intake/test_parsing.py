"""The promise of `intake/parsing.py`: the format is known, and every default and limit is applied."""

import json

import pytest

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.core.errors import RequestError
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.intake.parsing import RequestParser, parse_cancel

BOM = b"\xef\xbb\xbf"
MODELS = [
    {"id": "small", "file": "/m/small.rkllm", "max_tokens": 64},
    {"id": "big", "file": "/m/big.rkllm", "max_tokens": 9_000, "thinking": "switch"},
    {"id": "deep", "file": "/m/deep.rkllm", "thinking": "always"},
]


def parser(**config):
    settings = {"node": "rock5", "models": MODELS, **config}
    made = Config.model_validate(settings)
    return RequestParser(made, configured_catalogue(made))


def parse(payload, *, client="kitchen", text=False, capabilities=None, **config):
    if isinstance(payload, dict):
        payload = json.dumps({"prompt": "hi", **payload}).encode()
    return parser(**config).parse(payload, text=text, client=client, capabilities=capabilities)


def code_of(payload, **given):
    with pytest.raises(RequestError) as caught:
        parse(payload, **given)
    assert caught.value.fault.hint
    return caught.value.fault.code.value


# the format


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"hello", True),
        (b"{", False),
        (b'{"prompt":"x"}', False),
        (b" \t\r\n{", False),
        (BOM + b" {", False),
        (BOM + b"hello", True),
        (b"[1]", True),
        (b'"{"', True),
        (b"x{", True),
        (b"\0{", True),
        (b"\xff{", True),
        (b" ", True),
    ],
)
def test_without_a_content_type_json_is_what_begins_with_a_brace(payload, text):
    assert parser().is_text(payload, None, "kitchen") is text


@pytest.mark.parametrize(
    ("content_type", "payload", "text"),
    [
        ("application/json", b"hello", False),
        ("Application/JSON; charset=utf-8", b"hello", False),
        ("text/plain", b'{"prompt":"x"}', True),
        (" text/plain ;charset=utf-8", b"{", True),
        ("application/octet-stream", b"{", False),
        ("application/octet-stream", b"hello", True),
        ("", b"{", False),
    ],
)
def test_a_content_type_decides_when_it_says_something(content_type, payload, text):
    assert parser().is_text(payload, content_type, "kitchen") is text


@pytest.mark.parametrize(("configured", "text"), [("text", True), ("json", False)])
def test_the_format_of_a_client_decides_over_the_look_but_not_over_the_content_type(configured, text):
    it = parser(clients=[{"name": "kitchen", "format": configured}])
    for payload in (b"{}", b"hello"):
        assert it.is_text(payload, None, "kitchen") is text
        assert it.is_text(payload, "application/json", "kitchen") is False
        assert it.is_text(payload, "text/plain", "kitchen") is True
    assert it.is_text(b"{}", None, "hall") is False


def test_bare_text_is_the_users_message_and_neither_streams_nor_loses_white_space():
    request = parse(BOM + " grüß dich\n".encode(), text=True).request
    assert request.messages == ({"role": "user", "content": " grüß dich\n"},)
    assert request.text
    assert not request.stream


@pytest.mark.parametrize("payload", [b" ", b"\n\t", BOM, b"a\0b", b"\xff\xfe", b"\xe9t\xe9"])
def test_bare_text_that_is_blank_or_not_utf8_or_holds_nul_is_invalid(payload):
    assert code_of(payload, text=True) == "invalid_request"


def test_what_does_not_parse_as_json_is_never_taken_for_a_prompt():
    assert code_of(b"{oops") == "invalid_json"
    assert code_of(b"oops") == "invalid_json"


def test_json_may_begin_with_a_byte_order_mark():
    assert parse(BOM + b'{"prompt":"hi"}').request.messages[0]["content"] == "hi"


def test_a_request_is_too_large_above_the_limit_only():
    limits = {"request_bytes": 256}
    assert parse(b"x" * 256, text=True, limits=limits)
    assert code_of(b"x" * 257, text=True, limits=limits) == "too_large"
    assert code_of(b"{" * 257, limits=limits) == "too_large"


# defaults


def test_the_defaults_are_those_of_the_protocol():
    parsed = parse({})
    request = parsed.request
    assert (parsed.id, parsed.priority, parsed.ttl_s, parsed.ignored) == (None, Priority.NORMAL, 86_400, ())
    assert (request.model, request.max_tokens, request.reply_qos, request.reply_bytes) == (
        "small",
        64,
        1,
        None,
    )
    assert (request.sampling, request.stop) == ({}, ())
    assert [request.stream, request.text, request.thinking, request.retain] == [False] * 4


def test_every_field_of_a_request_arrives():
    fields = {
        "id": "q1", "stream": True, "model": "big", "max_tokens": 5, "temperature": 0, "top_p": 0.5,
        "top_k": 3, "repeat_penalty": 1.1, "frequency_penalty": -1, "presence_penalty": 1, "mirostat": 2,
        "mirostat_tau": 5, "mirostat_eta": 0.1, "stop": ["a", "b"], "thinking": True, "ttl_s": 60,
        "priority": "background",
        "reply_qos": 0, "retain": True, "reply_bytes": 100,
    }  # fmt: skip
    parsed = parse(fields)
    request = parsed.request
    assert (parsed.id, parsed.priority, parsed.ttl_s) == ("q1", Priority.BACKGROUND, 60)
    assert (request.model, request.max_tokens, request.stop) == ("big", 5, ("a", "b"))
    assert request.sampling == {
        "temperature": 0, "top_p": 0.5, "top_k": 3, "repeat_penalty": 1.1, "frequency_penalty": -1,
        "presence_penalty": 1, "mirostat": 2, "mirostat_tau": 5, "mirostat_eta": 0.1,
    }  # fmt: skip
    assert (request.stream, request.thinking, request.retain) == (True, True, True)
    assert (request.reply_qos, request.reply_bytes) == (0, 100)


def test_one_stop_string_is_a_list_of_one():
    assert parse({"stop": "ab"}).request.stop == ("ab",)


def test_max_tokens_default_to_the_models_and_may_not_pass_the_limit():
    assert parse({"model": "big"}).request.max_tokens == 4_096
    assert parse({"max_tokens": 4_096}).request.max_tokens == 4_096
    assert code_of({"max_tokens": 4_097}) == "invalid_request"
    assert parse({}, models=[]).request.max_tokens == 512


def test_a_model_is_asked_for_with_one_of_its_adapters():
    models = [
        {"id": "talk", "file": "/m.rkllm", "loras": [{"id": "tuned", "file": "/l.rkllm"}]},
        {"id": "talk:7b", "file": "/n.rkllm"},
    ]
    asked = {
        name: parse({"model": name}, models=models).request for name in ("talk", "talk:tuned", "talk:7b")
    }
    assert {name: (one.model, one.lora) for name, one in asked.items()} == {
        "talk": ("talk", None),
        "talk:tuned": ("talk", "tuned"),
        "talk:7b": ("talk:7b", None),
    }
    assert all(request.asked_model == name for name, request in asked.items())
    for unknown in ("talk:lost", "talk:", ":tuned", "lost:tuned", "tuned"):
        with pytest.raises(RequestError) as caught:
            parse({"model": unknown}, models=models)
        assert caught.value.fault.code == "unknown_model"
        assert "talk, talk:tuned, talk:7b" in caught.value.fault.hint


def test_an_unknown_model_or_preset_is_named():
    assert code_of({"model": "huge"}) == "unknown_model"
    assert code_of({"preset": "wild"}) == "invalid_request"


# sampling


def test_a_preset_fills_what_the_request_leaves_open():
    sampling = parse({"preset": "precise", "temperature": 0.9, "mirostat": 1}).request.sampling
    assert sampling == {"temperature": 0.9, "top_p": 0.8, "top_k": 20, "mirostat": 1}


def test_the_preset_of_a_client_counts_when_the_request_names_none():
    clients = [{"name": "kitchen", "preset": "creative"}]
    assert parse({}, clients=clients).request.sampling["top_k"] == 80
    assert parse({"preset": "precise"}, clients=clients).request.sampling["top_k"] == 20


def test_what_the_runtime_cannot_change_per_run_is_told_and_not_stored():
    fields = {"top_k": 5, "seed": 1, "temperature": 0.5, "preset": "precise", "stop": "x", "max_tokens": 5}
    parsed = parse(fields, capabilities={"per_run_sampling": False})
    assert parsed.ignored == ("seed", "temperature", "top_k", "preset")
    assert parsed.request.sampling == {}
    assert (parsed.request.stop, parsed.request.max_tokens) == (("x",), 5)


def test_the_preset_of_a_client_is_no_field_that_its_sender_could_be_told_about():
    clients = [{"name": "kitchen", "preset": "creative"}]
    parsed = parse({}, clients=clients, capabilities={"per_run_sampling": False})
    assert (parsed.ignored, parsed.request.sampling) == ((), {})


@pytest.mark.parametrize("capabilities", [None, {}, {"per_run_sampling": True}])
def test_a_runtime_that_can_or_is_not_known_yet_gets_everything(capabilities):
    parsed = parse({"top_k": 5}, capabilities=capabilities)
    assert (parsed.request.sampling, parsed.ignored) == ({"top_k": 5}, ())


@pytest.mark.parametrize(
    ("model", "thinking", "ignored"),
    [
        ("small", True, ("thinking",)),
        ("small", False, ()),
        ("big", True, ()),
        ("big", False, ()),
        ("deep", True, ()),
        ("deep", False, ("thinking",)),
        ("deep", None, ()),
    ],
)
def test_a_wish_for_thoughts_that_the_model_cannot_grant_is_told(model, thinking, ignored):
    assert parse({"model": model, "thinking": thinking}).ignored == ignored


# clients


def test_the_first_entry_whose_name_matches_counts():
    clients = [
        {"name": "tasmota-1", "ttl_s": 10},
        {"name": "tasmota-*", "ttl_s": 20},
        {"name": "*-?", "ttl_s": 30},
        {"name": "*", "ttl_s": 40},
    ]
    for client, ttl_s in (
        ("tasmota-1", 10),
        ("tasmota-22", 20),
        ("lamp-7", 30),
        ("lamp", 40),
        ("Tasmota-1", 30),
    ):
        assert parse({}, client=client, clients=clients).ttl_s == ttl_s


def test_what_a_tiny_device_cannot_send_is_set_for_it():
    clients = [
        {
            "name": "esp", "format": "text", "system": "Be brief.", "preset": "precise", "model": "big",
            "ttl_s": 60, "priority": "interactive", "stream": True, "last": True, "reply_bytes": 64,
        }
    ]  # fmt: skip
    parsed = parse(b"hi", text=True, client="esp", clients=clients)
    request = parsed.request
    assert request.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"})
    assert (request.model, request.sampling["top_k"], request.retain, request.reply_bytes) == (
        "big",
        20,
        True,
        64,
    )
    assert (parsed.priority, parsed.ttl_s) == (Priority.INTERACTIVE, 60)
    assert not request.stream  # bare text never streams
    assert parse({}, client="esp", clients=clients).request.stream
    assert not parse({"stream": False}, client="esp", clients=clients).request.stream
    assert not parse({"retain": False}, client="esp", clients=clients).request.retain


def test_a_system_prompt_of_the_request_wins_over_that_of_the_client():
    clients = [{"name": "*", "system": "Be brief."}]
    own = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "hi"}]
    assert (
        parse({"prompt": None, "messages": own}, clients=clients).request.messages[0]["content"] == "Be long."
    )


def test_settings_of_a_client_are_found_once_and_a_bounded_number_is_remembered():
    it = parser(limits={"client_states": 2})
    assert it.settings("a") is it.settings("a")
    for number in range(10):
        it.settings(f"c{number}")
    assert it._settings.cache_info().currsize == 2


@pytest.mark.parametrize(
    ("asked", "of_client", "limit", "expected"),
    [
        (None, None, 100, 100),
        (60, None, 100, 60),
        (600, None, 100, 100),
        (None, 50, 100, 50),
        (40, 50, 100, 40),
        (60, 50, 100, 50),
        (None, 500, 100, 100),
        (0.001, 50, 100, 0.001),
    ],
)
def test_the_shortest_clock_counts(asked, of_client, limit, expected):
    clients = [{"name": "*", "ttl_s": of_client}]
    assert parse({"ttl_s": asked}, clients=clients, limits={"ttl_s": limit}).ttl_s == expected


@pytest.mark.parametrize(
    ("asked", "of_client", "expected"), [(None, 64, 64), (32, 64, 32), (99, 64, 64), (99, None, 99)]
)
def test_the_smaller_reply_bytes_count(asked, of_client, expected):
    clients = [{"name": "*", "reply_bytes": of_client}]
    assert parse({"reply_bytes": asked}, clients=clients).request.reply_bytes == expected


LABELS = [priority.label for priority in Priority]


@pytest.mark.parametrize("ceiling", LABELS)
@pytest.mark.parametrize("asked", [None, *LABELS])
@pytest.mark.parametrize("of_client", [None, *LABELS])
def test_a_priority_is_the_requests_else_the_clients_else_normal_and_never_above_the_ceiling(
    asked, of_client, ceiling
):
    clients = [{"name": "*", "priority": of_client, "priority_ceiling": ceiling}]
    wanted = LABELS.index(asked or of_client or "normal")
    assert parse({"priority": asked}, clients=clients).priority == max(wanted, LABELS.index(ceiling))


# cancels


@pytest.mark.parametrize(
    ("payload", "topic_id", "wanted"),
    [
        (b"", "q1", "q1"),
        (b"q2", "q1", "q1"),
        (b"{oops", "q1", "q1"),
        (b"q2", None, "q2"),
        (b" q2\r\n", None, "q2"),
        (BOM + b"q2", None, "q2"),
        (b'{"id":"q2"}', None, "q2"),
        (BOM + b' {"id": "q2", "why": 1}\n', None, "q2"),
        (b'{"all":true}', None, None),
        (b'{"all":true,"id":"q2"}', None, None),
        (b'{"all":false,"id":"q2"}', None, "q2"),
        (b'{"all":1,"id":"q2"}', None, "q2"),
    ],
)
def test_a_cancel_names_an_id_or_all(payload, topic_id, wanted):
    assert parse_cancel(payload, topic_id) == wanted


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{", "invalid_json"),
        (b'{"id":"q1"} x', "invalid_json"),
        (b'{"id":"q1","n":' + b"9" * 5_000 + b"}", "invalid_json"),
        (b'{"a":' * 100_000, "invalid_json"),
        (b"{}", "invalid_request"),
        (b'{"id":5}', "invalid_request"),
        (b'{"id":null}', "invalid_request"),
        (b'{"all":1}', "invalid_request"),
        (b'{"all":"true"}', "invalid_request"),
        (b'{"id":"a b"}', "invalid_request"),
        (b'{"id":"event"}', "invalid_request"),
        (b'{"id":"\\ud800"}', "invalid_request"),
        (b'{"id":"' + b"x" * 65 + b'"}', "invalid_request"),
        (b"two words", "invalid_request"),
        (b"[1]", "invalid_request"),
        (b" ", "invalid_request"),
        (b"\xff", "invalid_request"),
        (b"q\0", "invalid_request"),
    ],
)
def test_a_cancel_that_names_nothing_that_could_exist_is_refused(payload, code):
    with pytest.raises(RequestError) as caught:
        parse_cancel(payload, None)
    assert caught.value.fault.code.value == code
    assert caught.value.fault.hint
