"""An answer counts only when it is whole, right and there once."""

import json

import pytest

from bench.asking import Answer, Broken
from bench.models import Question
from bench.service import OURS, THIN

QUESTION = Question("say: one two", "one two", 2)


def final(**changes):
    members = {"id": "q", "status": "ok", "text": "one two", "attempt": 1, "deltas": 2, "error": None}
    return json.dumps(members | changes).encode()


def delta(seq, text, attempt=1):
    return json.dumps({"id": "q", "attempt": attempt, "seq": seq, "text": text}).encode()


def answer(deltas, *finals):
    made = Answer(QUESTION, "q", "client")
    made.deltas = list(enumerate(deltas))
    made.finals = list(enumerate(finals))
    return made


def test_a_whole_answer_passes():
    answer([delta(0, "one"), delta(1, " two")], final()).check(OURS)
    answer([b"one", b" two"], b"one two").check(THIN)


def test_deltas_of_a_void_attempt_do_not_count():
    answer([delta(0, "on", 1), delta(0, "one", 2), delta(1, " two", 2)], final(attempt=2)).check(OURS)


@pytest.mark.parametrize(
    ("deltas", "finals", "complaint"),
    [
        ([delta(0, "one"), delta(1, " two")], [], "0 finals"),
        ([delta(0, "one"), delta(1, " two")], [final(), final()], "2 finals"),
        ([delta(0, "one"), delta(1, " two")], [final(text="one too")], "not 'one two'"),
        ([delta(0, "one")], [final()], "1 of 2 deltas are missing, first 1"),
        ([delta(0, "one"), delta(0, "one"), delta(1, " two")], [final()], "0 of 2 deltas are missing"),
        ([delta(0, "one"), delta(1, " too")], [final()], "come apart from the text of 7 at character 5"),
        ([delta(0, "one"), delta(1, " two")], [final(status="error", error="why")], "why"),
    ],
)
def test_anything_less_is_broken_and_says_how(deltas, finals, complaint):
    with pytest.raises(Broken, match=complaint):
        answer(deltas, *finals).check(OURS)


def test_a_relayed_token_that_is_missing_is_seen():
    with pytest.raises(Broken, match="1 deltas of 3 characters"):
        answer([b"one"], b"one two").check(THIN)
