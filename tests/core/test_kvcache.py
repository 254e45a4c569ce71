"""The promise of `core/kvcache.py`: what is built on is known, and what is unknown is not built on."""

import pytest

from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.kvcache import NOTHING, UNKNOWN, KvState, Match, Passed
from rkllm_mqtt.core.prefix import Chain

PROMPT = "<|im_start|>user\n" + "word " * 200 + "<|im_end|>\n<|im_start|>assistant\n"
ANSWER = "An answer. " * 30
NEXT = PROMPT + ANSWER + "<|im_end|>\n<|im_start|>user\nAnd?"
PROBED = CacheFacts(
    reuses_finished=True, reuses_aborted=True, holds_generated=True, load_s_per_mb=0.01, bytes_per_token=1
)
UNPROBED = CacheFacts()


def chain(text):
    return Chain.of(text, "model")


def after(facts, *, aborted=False, state=UNKNOWN, **more):
    return state.after(Passed(chain(PROMPT + ANSWER), len(PROMPT), aborted=aborted, **more), facts)


def facts(**changed):
    return CacheFacts(**{**PROBED.to_json(), **changed})


def test_with_everything_known_prompt_and_answer_are_there():
    found = after(PROBED).match(chain(NEXT), PROBED)
    assert (found.known, found.likely) == (len(PROMPT + ANSWER), len(PROMPT + ANSWER))


def test_unprobed_nothing_is_known_but_all_is_likely():
    assert after(UNPROBED).match(chain(NEXT), UNPROBED) == Match(0, len(PROMPT + ANSWER))


@pytest.mark.parametrize(
    ("changed", "aborted", "known", "likely"),
    [
        ({"reuses_finished": False}, False, 0, 0),
        ({"holds_generated": False}, False, len(PROMPT), len(PROMPT)),
        ({"holds_generated": None}, False, len(PROMPT), len(PROMPT + ANSWER)),
        ({"reuses_aborted": False}, True, 0, 0),
        ({"reuses_aborted": None}, True, 0, len(PROMPT + ANSWER)),
        ({"reuses_aborted": False}, False, len(PROMPT + ANSWER), len(PROMPT + ANSWER)),
    ],
)
def test_each_fact_counts(changed, aborted, known, likely):
    found = after(facts(**changed), aborted=aborted).match(chain(NEXT), facts(**changed))
    assert found == Match(known, likely)


def test_behind_something_unknown_nothing_is_there():
    assert UNKNOWN.match(chain(NEXT), PROBED) == NOTHING


def test_another_prompt_replaces_what_was_there():
    state = after(PROBED).after(Passed(chain("other " * 100), 600, aborted=False), PROBED)
    assert state.match(chain(NEXT), PROBED) == NOTHING


@pytest.mark.parametrize("replaces", [True, False, None])
def test_a_loaded_file_is_there_and_what_was_held_only_where_the_load_is_known_to_leave_it(replaces):
    known = facts(load_replaces=replaces)
    state = after(known).restored(chain("file " * 100), 500, known)
    assert state.match(chain("file " * 100 + "more"), known).known > 0
    assert (state.match(chain(NEXT), known).known > 0) == (replaces is False)


@pytest.mark.parametrize(
    ("stays", "known", "likely"), [(True, True, True), (None, False, True), (False, False, False)]
)
def test_a_loaded_file_is_there_for_later_runs_where_it_stays(stays, known, likely):
    told = facts(loaded_stays=stays)
    state = after(told, restored=chain("file " * 100))
    found = state.match(chain("file " * 100 + "more"), told)
    assert (found.known > 0, found.likely > 0) == (known, likely)


def test_behind_a_load_that_was_refused_no_file_counts():
    state = KvState(loaded=chain("file " * 100))
    assert after(PROBED, state=state, refused=True).loaded is None


def test_tokens_are_told_in_proportion_to_the_texts_that_were_counted():
    state = after(PROBED, tokens=(200, 50))
    assert state.match(chain(PROMPT), PROBED).tokens == pytest.approx(200, abs=10)
    assert state.match(chain(NEXT), PROBED).tokens == 250
    assert (
        UNKNOWN.restored(chain("file " * 100), 120, PROBED).match(chain("file " * 100), PROBED).tokens == 120
    )
