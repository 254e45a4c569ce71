"""The promise of `core/health.py`: one word, and it is the worst of the reasons."""

import pytest

from rkllm_mqtt.core.health import Reason, assess

MINOR = Reason("disk_low", "only 120 MB are free", "Free some space.")
SERIOUS = Reason("journal", "the disk is full", serious=True)


@pytest.mark.parametrize(
    ("reasons", "word"),
    [
        ([], "healthy"),
        ([MINOR], "degraded"),
        ([MINOR, MINOR], "degraded"),
        ([SERIOUS], "unhealthy"),
        ([MINOR, SERIOUS], "unhealthy"),
        ([SERIOUS, MINOR], "unhealthy"),
    ],
)
def test_the_word_is_the_worst_of_the_reasons(reasons, word):
    assert assess(reasons) == word


def test_a_reason_is_shown_as_code_message_and_hint_and_nothing_else():
    assert list(MINOR.members().items()) == [
        ("code", "disk_low"),
        ("message", "only 120 MB are free"),
        ("hint", "Free some space."),
    ]
    assert SERIOUS.members() == {"code": "journal", "message": "the disk is full", "hint": ""}
