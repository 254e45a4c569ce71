"""What is known of the KV cache."""

import json

import pytest

from rkllm_mqtt.core.cachefacts import CacheFacts

PROBED = CacheFacts(
    reuses_finished=True,
    reuses_aborted=False,
    holds_generated=True,
    load_replaces=True,
    loaded_stays=False,
    aborted_saves=False,
    granularity=16,
    load_s_per_mb=0.004,
    save_s_per_mb=0.01,
    bytes_per_token=28_672,
)


def test_the_unprobed_is_pessimistic():
    unknown = CacheFacts()
    assert not unknown.can_reuse
    assert not unknown.can_restore
    assert not unknown.is_probed
    assert unknown.matched(1000) == 0


def test_a_match_is_rounded_down_to_the_granularity():
    assert PROBED.matched(1000) == 992
    assert PROBED.matched(15) == 0


def test_files_cost_what_their_size_says():
    assert PROBED.load_s(1000) == pytest.approx(28.672 * 0.004)
    assert PROBED.save_s(1000) == pytest.approx(28.672 * 0.01)


def test_an_untimed_file_is_no_faster_than_a_slow_card():
    untimed = CacheFacts(reuses_finished=True, bytes_per_token=1_000_000)
    assert untimed.load_s(40) == pytest.approx(1.0)
    assert not untimed.can_restore


def test_facts_come_back_from_the_journal_as_they_were():
    assert CacheFacts.from_json(json.loads(json.dumps(PROBED.to_json()))) == PROBED


@pytest.mark.parametrize("kept", [{}, {"granularity": True, "reuses_finished": 1, "load_s_per_mb": "fast"}])
def test_what_is_not_of_its_kind_is_unprobed(kept):
    assert CacheFacts.from_json(kept) == CacheFacts()
