"""The promise of `runtime/order.py`: which library is loaded, and that each setting reaches the worker."""

from pathlib import Path

import pytest
from live_slot import slot_config

from rkllm_mqtt.config import Config
from rkllm_mqtt.runtime import order
from rkllm_mqtt.runtime.order import CallOrder, RunOrder, find_library, load_order

REAL = {"models": [{"id": "qwen", "file": "/models/qwen.rkllm"}]}
SIMULATED = {"models": [{"id": "demo", "file": "/models/demo.sim"}]}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A board where the library is in the second of the usual folders."""
    paths = (tmp_path / "usr" / "librkllmrt.so", tmp_path / "opt" / "librkllmrt.so")
    paths[1].parent.mkdir()
    paths[1].touch()
    monkeypatch.setattr(order, "LIBRARY_PATHS", paths)
    return paths[1]


@pytest.fixture
def missing(tmp_path, monkeypatch):
    paths = (tmp_path / "librkllmrt.so",)
    monkeypatch.setattr(order, "LIBRARY_PATHS", paths)
    return paths[0]


def config(runtime=None, **top):
    return Config.model_validate({"node": "rock", "runtime": runtime or {}, **top})


def test_an_installed_library_is_found_for_a_real_model(installed):
    assert find_library(config(**REAL)) == installed


def test_without_a_library_the_simulator_plays(missing):
    assert find_library(config(**REAL)) is None


def test_without_a_real_model_the_simulator_plays_although_a_library_is_installed(installed):
    assert find_library(config()) is None
    assert find_library(config(**SIMULATED)) is None


def test_the_configured_library_is_taken_also_when_it_is_missing(installed):
    assert find_library(config({"library": "/x.so"}, **REAL)) == Path("/x.so")


def test_the_simulator_can_be_demanded_and_forbidden(installed):
    assert find_library(config({"simulator": True, "library": "/x.so"}, **REAL)) is None
    assert find_library(config({"simulator": False}, **SIMULATED)) == installed


def test_a_forbidden_simulator_never_plays_when_nothing_is_installed(missing):
    assert find_library(config({"simulator": False}, **REAL)) == missing


def test_every_setting_of_the_runtime_reaches_the_library(installed):
    runtime = {"version": "1.2.3", "enabled_cpus": 3, "cpu_mask": 112, "npu_domain": 2, "embed_flash": True}
    runtime["abort_grace_s"] = 2
    model = {"id": "q", "file": "/q.rkllm", "context_tokens": 2048, "sampling": {"temperature": 0.5}}
    made = config(runtime, models=[model], limits={"max_tokens": 900})
    frame = load_order(made, made.models[0]).frame()
    assert frame["op"] == "load"
    assert (frame["library"], frame["version"], frame["file"]) == (str(installed), "1.2.3", "/q.rkllm")
    assert frame["raw"] is True
    assert frame["orphan_grace_s"] == 2 * made.runtime.abort_grace_s == 4
    assert frame["params"] == {
        "skip_special_token": False,
        "max_context_len": 2048,
        "max_new_tokens": 900,
        "temperature": 0.5,
        "enabled_cpus_num": 3,
        "enabled_cpus_mask": 112,
        "base_domain_id": 2,
        "embed_flash": True,
    }


def test_what_is_not_set_is_left_to_the_library():
    made = slot_config(Path("/m.sim"))
    assert set(load_order(made, made.models[0]).params) == {
        "skip_special_token",
        "max_context_len",
        "max_new_tokens",
    }


def test_a_version_that_is_believed_is_the_real_librarys_not_the_simulators():
    assert load_order(config({"simulator": True, "version": "9.9"}), None).version is None


def test_the_runtimes_own_template_stays_when_it_is_asked_for():
    own = slot_config(Path("/m.sim"), template="runtime")
    assert load_order(own, own.models[0]).raw is False
    assert load_order(config(), None).raw is True


def test_a_run_says_everything_that_the_worker_needs():
    frame = RunOrder("hi", 7, {"top_k": 3.0}, ("</s>",), ("END",), ("<pad>",), True, True).frame(12)
    assert frame == {
        "op": "run",
        "gen": 12,
        "prompt": "hi",
        "max_tokens": 7,
        "sampling": {"top_k": 3.0},
        "stops": ("</s>",),
        "text_stops": ("END",),
        "specials": ("<pad>",),
        "opens_thinking": True,
        "thinking": True,
        "thinking_tokens": None,
        "calls": None,
        "carried": (),
        "carried_tokens": 0,
        "chunks": None,
        "lora": None,
        "prime": False,
        "restore": None,
        "save": None,
        "readout": None,
    }
    calls = CallOrder({"on": {"type": "object"}}, "<tool_call>\n", True)
    assert RunOrder("hi", 7, calls=calls).frame(12)["calls"] == {
        "tools": {"on": {"type": "object"}},
        "begun": "<tool_call>\n",
        "only_one": True,
    }
