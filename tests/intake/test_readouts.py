"""The promise of `intake/readouts.py`: what is to be weighed or embedded is whole, or refused with a code."""

import json

import pytest

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.core.errors import RequestError
from rkllm_mqtt.intake.parsing import RequestParser

MODELS = [{"id": "small", "file": "/m/small.rkllm"}]
YES_NO = {"task": "evaluate", "options": ["Yes", "No"]}
TEXTS = {"task": "embed", "prompt": None, "input": ["one", "two"]}
RAW = [{"id": "bare", "file": "/m/bare.rkllm", "template": "raw"}]
ALL = {"logits": True, "arrays": True}


def parse(fields, *, capabilities=None, **config):
    settings = {"node": "rock5", "models": MODELS, **config}
    config = Config.model_validate(settings)
    made = RequestParser(config, configured_catalogue(config))
    payload = json.dumps({"prompt": "hi", **fields}).encode()
    return made.parse(payload, text=False, client="kitchen", capabilities=capabilities)


def code_of(fields, **given):
    with pytest.raises(RequestError) as caught:
        parse(fields, **given)
    assert caught.value.fault.hint
    return caught.value.fault.code.value


def test_an_evaluation_has_its_conversation_and_its_options():
    parsed = parse({**YES_NO, "priority": "background", "ttl_s": 9, "retain": True})
    request = parsed.request
    assert (request.task, request.options) == ("evaluate", ("Yes", "No"))
    assert request.messages == ({"role": "user", "content": "hi"},)
    assert (request.max_tokens, request.stream, request.retain, parsed.ttl_s) == (1, False, True, 9)
    assert (parsed.priority.label, parsed.ignored) == ("background", ())


def test_the_system_prompt_of_a_client_is_that_of_its_evaluations():
    clients = [{"name": "kitchen", "system": "Be strict."}]
    assert parse(YES_NO, clients=clients).request.messages[0]["content"] == "Be strict."
    assert len(parse(TEXTS, clients=clients).request.messages) == 2, "but no text to embed"


def test_texts_are_one_message_each_and_one_may_stand_alone():
    parsed = parse({**TEXTS, "pooling": "last"})
    assert [message["content"] for message in parsed.request.messages] == ["one", "two"]
    assert parsed.request.pooling == "last"
    assert len(parse({**TEXTS, "input": "one"}).request.messages) == 1


def test_no_text_becomes_a_special_token_but_for_a_model_without_template():
    text = "an <|im_end|> in a name"
    assert parse({**TEXTS, "input": text}).request.messages[0]["content"] != text
    assert parse({**TEXTS, "input": text}, models=RAW).request.messages[0]["content"] == text


@pytest.mark.parametrize(
    "fields",
    [
        {"options": None},
        {"options": ["Yes", "Yes"]},
        {"options": ["Yes", " No"]},
        {"options": ["Yes", " "]},
        {"options": ["Yes", "N\0o"]},
        {"prompt": None},
    ],
)
def test_an_evaluation_that_nobody_could_answer_is_invalid(fields):
    assert code_of({**YES_NO, **fields}) == "invalid_request"


@pytest.mark.parametrize("fields", [{"input": None}, {"input": ""}, {"input": ["x", " "]}, {"input": "a\0"}])
def test_texts_that_are_none_are_invalid(fields):
    assert code_of({**TEXTS, **fields}) == "invalid_request"


@pytest.mark.parametrize("asked", [YES_NO, TEXTS])
@pytest.mark.parametrize("settings", [{"template": "runtime"}, {"n_batch": 2}])
def test_a_model_that_cannot_be_read_is_unsupported(asked, settings):
    assert code_of(asked, models=[{**MODELS[0], **settings}]) == "unsupported"


@pytest.mark.parametrize(
    ("asked", "capabilities", "works"),
    [
        (YES_NO, None, True),
        (YES_NO, ALL, True),
        (YES_NO, {**ALL, "logits": False}, False),
        (YES_NO, {**ALL, "arrays": False}, False),
        (TEXTS, {**ALL, "logits": False}, True),
        (TEXTS, {**ALL, "arrays": False}, False),
    ],
)
def test_a_runtime_without_the_mode_is_unsupported(asked, capabilities, works):
    if works:
        assert parse(asked, capabilities=capabilities).request.task == asked["task"]
    else:
        assert code_of(asked, capabilities=capabilities) == "unsupported"
