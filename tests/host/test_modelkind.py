"""First bytes of model files and of their usual impostors."""

import pytest

from rkllm_mqtt.host.modelkind import RKLLM_MAGIC, ModelKind, recognise

MB = 1_048_576


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "lfs_pointer"),
        (b"GGUF\x03\x00\x00\x00", "gguf"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"RKNN\x00\x00", "rknn"),
        (b"\x7fELF\x02", "elf"),
        (b"\n\n<!DOCTYPE html><html>", "html"),
        (b"<HTML><head>", "html"),
        (b"<?xml version='1.0'?><html xmlns='x'>", "html"),
        (b'{"error": "Repository not found"}', "json"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"__metadata__"', "safetensors"),
        (b"\0" * 4096, "zeros"),
    ],
)
def test_another_thing_in_the_models_place_is_named(head: bytes, code: str) -> None:
    kind, problem = recognise(head, 100 * MB)
    assert kind is ModelKind.FOREIGN
    assert problem is not None
    assert (problem.code, problem.certain) == (code, True)
    assert problem.sentence
    assert problem.hint


def test_a_converted_model_and_a_simulators_model_are_recognised() -> None:
    assert recognise(RKLLM_MAGIC + b"\x03\0\0\0", 100 * MB) == (ModelKind.RKLLM, None)
    assert recognise(b"rkllm-simulator 1\r\nprofile: instant\r\n", 60) == (ModelKind.SIMULATOR, None)


def test_an_unknown_beginning_is_a_suspicion_not_a_verdict() -> None:
    kind, problem = recognise(b"\x01\x02\x03\x04", 100 * MB)
    assert kind is ModelKind.UNKNOWN
    assert problem is not None
    assert (problem.code, problem.certain) == ("unknown_format", False)


def test_an_empty_file_is_certainly_wrong() -> None:
    _, problem = recognise(b"", 0)
    assert problem is not None
    assert (problem.code, problem.certain) == ("empty", True)
