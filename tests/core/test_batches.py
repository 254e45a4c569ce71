"""The promise of `core/batches.py`: batches are judged by what was measured, and only then."""

import pytest
from live_jobs import request

from rkllm_mqtt.core.batches import BatchRecord, may_share, step_ms


def test_requests_of_one_model_and_one_sampling_may_share_a_batch():
    cold = {"temperature": 0.1}
    assert may_share(request("a", sampling=cold, max_tokens=5), request("b", sampling=dict(cold)))
    assert not may_share(request(sampling=cold), request())
    assert not may_share(request(), request(model="other"))


@pytest.mark.parametrize(
    ("tokens", "generate_ms", "expected"), [(11, 100, 10), (8, 100, None), (101, 50, None), (11, None, None)]
)
def test_a_step_is_measured_from_answers_that_are_long_and_slow_enough(tokens, generate_ms, expected):
    assert step_ms(tokens, generate_ms) == expected


@pytest.mark.parametrize(("batch_ms", "gain", "off"), [(20, 2.0, ""), (34, 1.18, "gain"), (40, 1.0, "gain")])
def test_batches_that_gain_less_than_a_fifth_are_switched_off(batch_ms, gain, off):
    record = BatchRecord()
    record.single_ms.append(10)
    record.batch_ms.extend([batch_ms] * 3)
    record.judge(4)
    assert (record.gain(4), record.off, record.columns(4)) == (None, "", 4)  # too little was measured
    record.batch_ms.append(batch_ms)
    record.judge(4)
    assert record.gain(4) == pytest.approx(gain, abs=0.01)
    assert (record.off, record.columns(4)) == (off, 1 if off else 4)


def test_one_strange_column_switches_nothing_off():
    record = BatchRecord()
    record.single_ms.append(10)
    record.batch_ms.extend([20, 20, 20, 500])
    record.judge(4)
    assert record.off == ""


def test_a_record_without_a_single_run_asks_for_one_and_judges_nothing():
    record = BatchRecord()
    assert not record.needs_single
    record.batch_ms.extend([40] * 16)
    record.judge(4)
    assert (record.needs_single, record.well_measured, record.off) == (True, True, "")


def test_a_lost_batch_is_kept_over_a_restart_and_forgotten_when_it_is_tried_again():
    record = BatchRecord(version="1.3.1")
    record.single_ms.append(10.0)
    record.lose("the model process ended")
    kept = BatchRecord.from_json(record.to_json())
    assert (kept.version, kept.off, kept.why) == ("1.3.1", "crash", "the model process ended")
    assert (kept.columns(4), list(kept.single_ms)) == (1, [10.0])
    kept.try_again()
    assert (kept.off, kept.columns(4)) == ("", 4)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1, "off": "x", "why": "", "single_ms": 3}'])
def test_a_record_that_cannot_be_read_is_an_empty_one(text):
    assert BatchRecord.from_json(text) == BatchRecord()
