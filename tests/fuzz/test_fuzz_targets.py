"""What fuzzing has found stays found: every kept input is replayed, and each target can fail."""

import re
from pathlib import Path

import fuzz_targets
import pytest
from fuzz_choices import Choices
from fuzz_targets import TARGETS

from rkllm_mqtt.runtime.frames import FrameError

CORPUS = Path(__file__).parent / "corpus"
LARGEST_CORPUS_BYTES = 100_000


def replay(target):
    for file in sorted((CORPUS / target).iterdir()):
        TARGETS[target](file.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_no_kept_input_breaks_a_promise(target):
    assert list((CORPUS / target).iterdir())
    replay(target)


def test_the_corpus_is_small_and_has_a_folder_for_each_target():
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) <= LARGEST_CORPUS_BYTES


@pytest.mark.parametrize(
    ("target", "name", "broken"),
    [
        ("payload", "is_id", lambda _text: False),
        ("topics", "is_client", lambda _text: False),
        ("frames", "FrameError", KeyError),
        ("templates", "_SPECIAL", re.compile(r"\w")),
    ],
)
def test_a_target_notices_a_broken_promise(target, name, broken, monkeypatch):
    monkeypatch.setattr(fuzz_targets, name, broken)  # the target's own oracle, not our code
    with pytest.raises((AssertionError, FrameError)):
        replay(target)


def test_choices_end_with_the_first_option_when_the_bytes_are_used_up():
    choices = Choices(b"\x01\x02ab")
    assert (choices.flag(), choices.text(5), choices.left) == (True, "ab", 0)
    assert (choices.one("xyz"), choices.number(9), choices.text(), choices.rest()) == ("x", 0, "", b"")
