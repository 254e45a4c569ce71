"""`rkllm-mqtt models`."""

import json
from pathlib import Path
from typing import Any

import pytest

from rkllm_mqtt.commands.models import MODELS_FOLDER, capabilities, unconfigured
from rkllm_mqtt.config import ModelConfig, parse_config
from rkllm_mqtt.config.folder import read_listing
from rkllm_mqtt.host.modelkind import RKLLM_MAGIC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good model, a pointer, a simulator's model, one in a folder of its own, and other files."""
    models = tmp_path / "models"
    (models / "qwen3").mkdir(parents=True)
    (models / "good-rk3588.rkllm").write_bytes(RKLLM_MAGIC + b"\x5a" * (20 * 1_048_576 - 4))
    (models / "pointer.rkllm").write_text("version https://git-lfs.github.com/spec/v1\n")
    (models / "tiny.sim").write_text("rkllm-simulator 1\nmax_context: 2048\n")
    (models / "qwen3" / "Qwen3-VL.rkllm").write_bytes(RKLLM_MAGIC)
    (models / "README.md").touch()
    return models


def config_file(folder: Path, *names: str) -> Path:
    entries = "".join(
        f"  - {{id: m{n}, file: {folder / name}, template: llama3}}\n" for n, name in enumerate(names)
    )
    path = folder / "rkllm.yaml"
    path.write_text(f"models:\n{entries}" if names else "")
    return path


def listed(commands: Any, *words: str) -> tuple[int, dict[str, Any]]:
    done = commands.run("models", "--json", *words, broker=False)
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout)


def test_configured_models_come_with_their_facts(commands: Any, folder: Path) -> None:
    status, lists = listed(commands, "--config", str(config_file(folder, "good-rk3588.rkllm", "tiny.sim")))
    assert status == 0
    good, tiny = lists["configured"]
    assert (good["id"], good["size_bytes"], good["platform"]) == ("m0", 20 * 1_048_576, "rk3588")
    assert (good["template"], good["context_tokens"], good["simulated"]) == ("llama3", 4096, False)
    assert (tiny["id"], tiny["simulated"], tiny["usable"]) == ("m1", True, True)


def test_files_beside_them_are_listed_as_found(commands: Any, folder: Path) -> None:
    _, lists = listed(commands, "--config", str(config_file(folder, "good-rk3588.rkllm")))
    names = [Path(line["file"]).name for line in lists["found"]]
    assert names == ["pointer.rkllm", "Qwen3-VL.rkllm", "tiny.sim"]
    assert lists["found"][0]["problems"][0]["code"] == "lfs_pointer"
    assert lists["found"][1]["capabilities"] == ["chat", "vision"]
    assert lists["found"][2]["context_tokens"] == 2048


def test_a_model_that_cannot_be_loaded_is_exit_status_1_with_its_hint(commands: Any, folder: Path) -> None:
    path = config_file(folder, "pointer.rkllm")
    done = commands.run("models", "--config", str(path), broker=False)
    assert done.returncode == 1
    text = done.stdout.decode()
    assert "✗ m0" in text
    assert "It is a Git LFS pointer, not the model." in text
    assert "→ Run `git lfs pull`." in text
    assert "\x1b" not in text


def test_without_configured_models_the_simulators_own_is_shown(commands: Any, folder: Path) -> None:
    status, lists = listed(commands, "--config", str(config_file(folder)))
    assert status == 0
    assert [(line["id"], line["simulated"]) for line in lists["configured"]] == [("demo", True)]


def test_a_mistake_in_the_configuration_is_exit_status_78(commands: Any, folder: Path) -> None:
    path = folder / "broken.yaml"
    path.write_text("models: [{id: 7}]\n")
    done = commands.run("models", "--config", str(path), broker=False)
    assert done.returncode == 78
    assert b"broken.yaml:1" in done.stderr


def test_a_folder_can_be_named_and_a_missing_one_is_empty(folder: Path) -> None:
    config = parse_config("", "test", {})
    found = unconfigured(config, [folder, folder, folder / "none"], read_listing(config))
    assert len([line for line in found if Path(line.file).is_relative_to(folder)]) == 4
    assert MODELS_FOLDER.is_absolute()


def test_a_link_to_a_configured_model_is_not_found_again(folder: Path) -> None:
    (folder / "link.rkllm").symlink_to(folder / "good-rk3588.rkllm")
    config = parse_config(f"models: [{{id: m, file: {folder}/link.rkllm}}]", "test", {})
    names = [Path(line.file).name for line in unconfigured(config, [], read_listing(config))]
    assert "good-rk3588.rkllm" not in names
    assert "link.rkllm" not in names


@pytest.mark.parametrize(
    ("name", "thinking", "guess"),
    [
        ("Qwen2.5-1.5B.rkllm", "none", ("chat",)),
        ("Qwen3-0.6B.rkllm", "switch", ("chat", "thinking")),
        ("Qwen2.5-VL-3B.rkllm", "none", ("chat", "vision")),
        ("qwen3-embedding.rkllm", "none", ("embeddings",)),
    ],
)
def test_capabilities_are_guessed_from_name_and_configuration(
    name: str, thinking: Any, guess: tuple[str, ...]
) -> None:
    model = ModelConfig(id="m", file=Path(name), thinking=thinking)
    assert capabilities(model, name) == guess


def test_the_models_of_the_folder_are_listed_with_their_mistakes(commands: Any, folder: Path) -> None:
    (folder / "good-rk3588.yaml").write_text("template: llama3\nloras: [{id: tuned, file: tiny.rkllm}]\n")
    (folder / "tiny.rkllm").write_bytes(RKLLM_MAGIC)
    (folder / "tiny.yaml").write_text("max_tokens: many\n")
    (folder / "odd name.sim").write_text("rkllm-simulator 1\n")
    path = folder.parent / "config.yaml"
    path.write_text(f"models_folder: {folder}\n")
    status, lists = listed(commands, "--config", str(path))
    assert status == 1
    lines = {line["id"]: line for line in lists["configured"]}
    assert list(lines) == ["good-rk3588", "pointer", "tiny"]
    assert (lines["good-rk3588"]["template"], lines["good-rk3588"]["usable"]) == ("llama3", True)
    assert lines["pointer"]["problems"][0]["code"] == "lfs_pointer"
    assert f"{folder / 'tiny.yaml'}:1: max_tokens: " in lines["tiny"]["problems"][0]["message"]
    names = {Path(line["file"]).name: line for line in lists["found"]}
    assert set(names) == {"odd name.sim", "Qwen3-VL.rkllm"}
    assert names["odd name.sim"]["problems"][0]["code"] == "left_out"
    checked = commands.run("config", "check", "--config", str(path), broker=False)
    assert b"models: good-rk3588, pointer, tiny" in checked.stdout
