"""The promise of `runtime/probe.py`: each unknown of the library is found out, whatever the library does."""

from contextlib import contextmanager

import pytest

import rkllmrt
from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.probes import STEPS
from rkllm_mqtt.runtime import probe as module
from rkllm_mqtt.runtime.order import ProbeOrder
from rkllm_mqtt.runtime.probe import Probe
from rkllmrt import simulator

YES_AND_NO = pytest.mark.parametrize("value", [True, False])
JOINS = pytest.mark.parametrize("joins", ["stable", "unstable"])


@contextmanager
def loaded(file, version="1.3.1", *, raw=True, **params):
    library = rkllmrt.open_library(simulator.build(version))
    with rkllmrt.Model(
        library, rkllmrt.ModelParams(model_path=file, max_context_len=1024, **params)
    ) as model:
        model.load()
        if raw:
            model.raw_chat_template()
        yield model


def order(step, folder, granularity=1, *, raw=True):
    folder.mkdir(exist_ok=True)
    return ProbeOrder(step=step, granularity=granularity, raw=raw, folder=str(folder)).frame(7)


@pytest.fixture
def probe(model, tmp_path):
    """Return what the steps of a probe find on a library with these switches."""

    def found(*switches, steps=STEPS, version="1.3.1", raw=True, **params):
        facts = CacheFacts(granularity=1)
        with loaded(model(*switches), version, raw=raw, **params) as library:
            for step in steps:
                sent = []
                wanted = order(step, tmp_path / step, facts.granularity or 1, raw=raw)
                done = Probe(library, wanted, sent.append).run()
                assert (done["reason"], done["gen"]) == ("stop", 7), done
                assert all(frame == {"t": "resumed", "gen": 7} for frame in sent)
                facts = CacheFacts.from_json({**facts.to_json(), **done["found"]})
        return facts

    return found


@JOINS
@YES_AND_NO
@pytest.mark.parametrize(
    ("switch", "fact"),
    [
        ("reuse", "reuses_finished"),
        ("reuse_aborted", "reuses_aborted"),
        ("reuse_generated", "holds_generated"),
        ("cache_load_replaces", "load_replaces"),
        ("cache_stays", "loaded_stays"),
        ("aborted_run_saves", "aborted_saves"),
    ],
)
def test_each_switch_is_found_both_ways(probe, switch, fact, value, joins):
    facts = probe(f"{switch}: {'yes' if value else 'no'}", f"joins: {joins}")
    assert getattr(facts, fact) is value
    if switch != "reuse":
        assert facts.can_reuse


@JOINS
@pytest.mark.parametrize("granularity", [1, 2, 3, 4, 8, 16, 32, 48, 64])
def test_the_granularity_is_found(probe, granularity, joins):
    facts = probe(f"reuse_granularity: {granularity}", f"joins: {joins}")
    assert facts.granularity == granularity
    # An answer must be longer than that; what nobody can afford to ask stays unknown.
    assert facts.holds_generated is (True if granularity <= 32 else None)


@pytest.mark.parametrize(
    "switches", [(), ("cache_load_replaces: no", "cache_stays: no", "reuse_generated: no")]
)
def test_what_files_cost_is_found(probe, switches):
    pace = ("kv_bytes_per_token: 20000", "cache_save_mb_s: 50", "cache_load_mb_s: 100")
    facts = probe(*switches, *pace, steps=("reuse", "files"))
    assert facts.bytes_per_token == pytest.approx(20000, rel=0.05)
    assert facts.save_s_per_mb == pytest.approx(1 / 50, rel=0.5)
    assert facts.load_s_per_mb == pytest.approx(1 / 100, rel=0.5)
    assert facts.can_restore


@pytest.mark.parametrize(("every", "reuses"), [(1, False), (2, True)])
def test_a_library_that_refuses_runs_behind_an_abort_is_asked_again(probe, every, reuses):
    facts = probe(f"fail_after_abort: {every}")
    assert facts.reuses_aborted is reuses
    assert facts.can_restore
    assert facts.holds_generated


@pytest.mark.parametrize(
    ("version", "reuses"), [("1.1.4", (None, None)), ("1.2.0", (None, None)), ("1.2.3", (True, False))]
)
def test_older_releases_tell_what_they_can(probe, version, reuses):
    facts = probe("reuse_aborted: no", version=version, max_new_tokens=200)
    assert (facts.reuses_finished, facts.reuses_aborted) == reuses
    assert facts.can_restore is bool(reuses[0])
    assert facts.holds_generated is None  # an answer of so many tokens can only be had by an abort


@pytest.mark.parametrize("reuse", ["yes", "no"])
def test_a_release_that_tells_no_tokens_tells_by_its_times(probe, reuse):
    facts = probe(f"reuse: {reuse}", "prefill_ms_per_token: 1", version="1.2.0", steps=("reuse", "aborted"))
    assert (facts.reuses_finished, facts.reuses_aborted) == (reuse == "yes", reuse == "yes")


def test_the_runtimes_own_template_does_not_confuse_it(probe):
    facts = probe(raw=False)
    assert (facts.reuses_finished, facts.reuses_aborted, facts.granularity) == (True, True, 1)
    assert facts.can_restore
    assert facts.holds_generated is None  # its prompts never go on from an answer


@pytest.mark.parametrize("ended_before", [0, 2, 5])
def test_a_step_ends_between_two_runs_and_tells_what_it_has_found(model, tmp_path, ended_before):
    sent = []

    def send(frame):
        sent.append(frame)
        if len(sent) == ended_before:
            one.abort()

    with loaded(model("reuse_granularity: 48")) as library:
        one = Probe(library, order("reuse", tmp_path / "files"), send)
        if not ended_before:
            one.end(7, "abort")
        one.end(8, "abort")  # is not meant
        done = one.run()
        assert done["reason"] == "aborted"
        assert len(sent) == ended_before
        assert done["found"] == ({"reuses_finished": True} if ended_before == 5 else {})


def test_a_step_that_takes_too_long_ends_with_what_it_has_found(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LONGEST_S", 0.0)
    with loaded(model()) as library:
        done = Probe(library, order("reuse", tmp_path / "files"), lambda _frame: None).run()
    assert (done["reason"], done["found"]) == ("stop", {})


def test_a_library_that_refuses_a_run_is_told_as_stuck_with_what_was_found(model, tmp_path):
    with loaded(model("on run 3: fault fail", "reuse_granularity: 2")) as library:
        done = Probe(library, order("reuse", tmp_path / "files"), lambda _frame: None).run()
    assert (done["reason"], done["stuck"]) == ("error", True)
    assert done["found"] == {"reuses_finished": True}


def test_a_file_that_was_loaded_is_released_also_when_the_step_ends_early(model, tmp_path):
    loads = []

    def send(_frame):
        if library._cache_loaded:
            loads.append(True)
            one.abort()

    with loaded(model()) as library:
        one = Probe(library, order("files", tmp_path / "files"), send)
        assert one.run()["reason"] == "aborted"
        assert (loads, library._cache_loaded) == ([True], False)
