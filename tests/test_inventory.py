"""The promise of `inventory.py`: files come and go as models once they are whole, each with its fault."""

import os

import pytest
from live_slot import in_loop

from rkllm_mqtt.config import Config, ConfigError
from rkllm_mqtt.config.folder import read_listing
from rkllm_mqtt.core.errors import Code
from rkllm_mqtt.host.modelkind import RKLLM_MAGIC
from rkllm_mqtt.inventory import Inventory, open_inventory

SIM = "rkllm-simulator 1\nprofile: instant\n"
LONG_AGO = 1_700_000_000


class Folder:
    """A models folder and the daemon's view of it."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        self.inventory = None

    def write(self, name, content=SIM):
        file = self.path / name
        (file.write_bytes if isinstance(content, bytes) else file.write_text)(content)
        return file

    def config(self, *configured, **settings):
        return Config.model_validate(
            {"node": "rock", "models": configured, "models_folder": self.path, **settings}
        )

    def open(self, *configured, **settings):
        self.inventory = open_inventory(self.config(*configured, **settings))
        return self.inventory.catalogue

    async def look(self, times=2):
        for _ in range(times):
            await self.inventory.look()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr("rkllm_mqtt.inventory._START_S", 0.0)


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "models")
    yield folder
    if folder.inventory is not None:
        for model_id in list(folder.inventory.kits.renderers):
            folder.inventory.kits._take_away(model_id)


def faults(catalogue):
    return {entry.id: entry.fault.message for entry in catalogue.entries if entry.fault}


# coming and going


@in_loop
async def test_files_become_models_by_their_names_and_leave_with_them(folder):
    catalogue, heard = folder.open(), []
    assert catalogue.ids == ("demo",)
    catalogue.listen(heard.append)
    talk = folder.write("talk.sim")
    for name in ("notes.txt", ".hidden.sim", "talk.sim.part"):
        folder.write(name)
    await folder.look()
    assert catalogue.ids == ("talk",)
    assert (heard[-1].added, heard[-1].removed) == ({"talk"}, {"demo"})
    assert catalogue.settings("talk").file == talk
    folder.write("code-2.5.sim")
    await folder.look()
    assert catalogue.ids == ("code-2.5", "talk")
    talk.unlink()
    await folder.look(1)
    assert "talk" in catalogue, "it may just be replaced"
    await folder.look(1)
    assert catalogue.ids == ("code-2.5",)


@in_loop
async def test_a_copy_in_progress_is_no_model(folder):
    catalogue = folder.open()
    for size in (1, 2, 3):
        folder.write("talk.sim", SIM + "# " + "x" * size)
        await folder.look(1)
        assert catalogue.ids == ("demo",)
    await folder.look(1)
    assert catalogue.ids == ("talk",)


def test_what_lies_there_at_the_start_is_there_at_once_also_when_it_just_came(folder, monkeypatch):
    looks = []
    monkeypatch.setattr("rkllm_mqtt.inventory.time.sleep", looks.append)
    os.utime(folder.write("talk.sim"), (LONG_AGO, LONG_AGO))
    assert (folder.open().ids, len(looks)) == (("talk",), 1), "its inode has changed"
    monkeypatch.setattr("rkllm_mqtt.inventory._SETTLED_S", 0)
    assert (folder.open().ids, len(looks)) == (("talk",), 1)


def test_what_is_being_copied_at_the_start_is_no_model(folder, monkeypatch):
    file = folder.write("talk.sim")
    monkeypatch.setattr("rkllm_mqtt.inventory.time.sleep", lambda _s: file.write_text(SIM + "# more"))
    assert folder.open().ids == ("demo",)


@in_loop
async def test_models_of_the_configuration_come_first_and_keep_their_names(folder, events):
    own = folder.write("own.sim").rename(folder.path.parent / "own.sim")
    for name in ("a.sim", "own.sim", "b.rkllm", "b.sim"):
        folder.write(name)
    catalogue = folder.open({"id": "own", "file": own})
    await folder.look(4)
    assert catalogue.ids == ("own", "a", "b")
    assert catalogue.settings("own").file == own
    left_out = [facts["file"] for name, facts in events if name == "model_left_out"]
    assert sorted(left_out) == [str(folder.path / "b.sim"), str(folder.path / "own.sim")]  # told once each


@in_loop
async def test_the_files_of_adapters_are_no_models(folder):
    folder.write("talk.sim")
    folder.write("talk.yaml", "loras: [{id: tuned, file: tuned.rkllm}]")
    adapter = folder.write("tuned.rkllm")
    catalogue = folder.open()
    await folder.look()
    assert catalogue.names == ("talk", "talk:tuned")
    assert catalogue.settings("talk").loras[0].file == adapter


@in_loop
async def test_a_folder_that_cannot_be_read_for_a_while_takes_no_model_with_it(folder):
    folder.write("talk.sim")
    catalogue = folder.open()
    await folder.look()
    away = folder.path.rename(folder.path.with_name("away"))
    await folder.look(3)
    assert catalogue.ids == ("talk",)
    away.rename(folder.path)
    (folder.path / "talk.sim").unlink()
    await folder.look()
    assert catalogue.ids == ("demo",)


@in_loop
async def test_where_nothing_changes_nobody_is_told_anything(folder):
    folder.write("talk.sim")
    folder.write("bad.rkllm", b"")
    catalogue, heard = folder.open(), []
    await folder.look()
    catalogue.listen(heard.append)
    await folder.look(5)
    assert heard == []
    assert folder.inventory._look() is None


# settings


@in_loop
async def test_a_yaml_file_beside_it_has_the_settings_of_a_model(folder):
    folder.write("talk.sim")
    folder.write("t.jinja", "{{ messages[0].content }}!")
    folder.write("talk.yaml", "context_tokens: 512\nthinking: switch\ntemplate: t.jinja\n")
    catalogue = folder.open()
    await folder.look()
    settings = catalogue.settings("talk")
    assert (settings.context_tokens, settings.thinking) == (512, "switch")
    assert settings.template == str(folder.path / "t.jinja")
    render = folder.inventory.kits.renderers["talk"].render
    assert render([{"role": "user", "content": "hi"}]).text == "hi!"
    folder.write("t.jinja", "{{ messages[0].content }}?")
    folder.write("talk.yaml", "context_tokens: 1024\ntemplate: t.jinja\n")
    await folder.look()
    assert catalogue.settings("talk").context_tokens == 1024
    render = folder.inventory.kits.renderers["talk"].render
    assert render([{"role": "user", "content": "hi"}]).text == "hi?"


MISTAKES = {
    "a: [": ":1: not valid YAML",
    "- 1": ":1: the settings of a model must be a mapping",
    "max_tokens: 64\ncontext_tokens: few": ":2: context_tokens: ",
    "nonsense: 1": ":1: nonsense: there is no such key",
    "max_tokens: 9\nfile: /x.rkllm": ":2: file: the file beside it says that",
    "id: other": ":1: id: ",
}


@pytest.mark.parametrize("text", MISTAKES)
@in_loop
async def test_a_mistake_in_it_names_file_line_and_key_and_is_repaired_without_a_restart(folder, text):
    folder.write("talk.sim")
    sidecar = folder.write("talk.yaml", text)
    catalogue = folder.open()
    await folder.look()
    assert faults(catalogue)["talk"].startswith(f"{sidecar}{MISTAKES[text]}")
    assert folder.inventory.check("talk").code is Code.MODEL_ERROR
    sidecar.write_text("max_tokens: 64")
    await folder.look()
    assert (faults(catalogue), catalogue.settings("talk").max_tokens) == ({}, 64)


@in_loop
async def test_only_one_model_is_pinned(folder):
    for name in ("a", "b"):
        folder.write(f"{name}.sim")
        folder.write(f"{name}.yaml", "pinned: true")
    catalogue = folder.open()
    await folder.look()
    assert faults(catalogue).keys() == {"b"}
    assert "the model a is pinned already" in faults(catalogue)["b"]


@in_loop
async def test_a_template_that_cannot_be_used_is_the_fault_of_its_model_alone(folder):
    folder.write("good.sim")
    folder.write("talk.sim")
    folder.write("talk.yaml", "template: t.jinja")
    folder.write("t.jinja", "{% if %}")
    catalogue = folder.open()
    await folder.look()
    assert faults(catalogue).keys() == {"talk"}
    assert "template" in faults(catalogue)["talk"]
    folder.write("t.jinja", "{{ messages }} and more")
    await folder.look()
    assert faults(catalogue) == {}
    heard = []
    catalogue.listen(heard.append)
    folder.write("t.jinja", "{{ messages }} and even more")
    await folder.look()
    assert [change.changed for change in heard] == [{"talk"}], "its prompts are others now"


def test_a_template_of_the_configuration_that_cannot_be_used_refuses_the_start(folder):
    with pytest.raises(ConfigError, match="models: own: template"):
        folder.open({"id": "own", "file": "/m/own.sim", "template": "/none.jinja"})


# faults


@in_loop
async def test_a_broken_file_is_listed_with_its_fault_behind_the_others_and_a_good_one_has_none(folder):
    broken = folder.write("a.rkllm", b"GGUF" + b"x" * 100)
    folder.write("talk.sim")
    catalogue = folder.open()
    await folder.look()
    assert catalogue.ids == ("talk", "a")
    assert faults(catalogue) == {"a": f"{broken} is a GGUF model for llama.cpp"}
    assert folder.inventory.check("a").hint
    folder.write("a.rkllm", SIM)
    assert folder.inventory.check("a") is None, "who loads it now looks itself"
    await folder.look()
    assert (catalogue.ids, faults(catalogue)) == (("a", "talk"), {})


@in_loop
async def test_a_model_that_is_too_small_or_for_another_chip_is_not_loaded_unless_it_is_configured(folder):
    root = folder.path.parent / "root"
    (root / "proc" / "device-tree").mkdir(parents=True)
    (root / "proc" / "device-tree" / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    small = folder.write("small.rkllm", RKLLM_MAGIC + b"x" * 100)
    other = folder.write("qwen-rk3576.rkllm", SIM)
    own = folder.write("own.rkllm", RKLLM_MAGIC + b"x" * 100).rename(folder.path.parent / "own.rkllm")
    catalogue = folder.open(
        {"id": "own", "file": own}, sysfs_root=root, runtime={"library": "/usr/lib/librkllmrt.so"}
    )
    await folder.look()
    assert faults(catalogue) == {
        "small": f"{small} is only 0.0 MB, less than any language model",
        "qwen-rk3576": f"{other} is for rk3576 by its name, this board is an rk3588",
    }


@in_loop
async def test_a_configured_file_that_is_missing_has_a_fault_as_long_as_it_is(folder):
    file = folder.path.parent / "own.sim"
    catalogue = folder.open({"id": "own", "file": file}, {"id": "b", "file": folder.write("x.txt")})
    assert faults(catalogue) == {}, "a disk may be mounted a moment later"
    await folder.look()
    assert faults(catalogue)["own"] == f"{file} does not exist"
    assert catalogue.default == "own"
    file.write_text(SIM)
    await folder.look()
    assert "own" not in faults(catalogue)


def test_an_empty_folder_on_a_board_is_told_and_never_answered_by_the_simulator(folder):
    catalogue = folder.open(runtime={"library": "/usr/lib/librkllmrt.so"})
    assert faults(catalogue) == {"demo": f"the folder {folder.path} holds no model yet"}
    assert folder.inventory.check("demo").code is Code.MODEL_ERROR
    assert faults(folder.open(runtime={"simulator": True})) == {}


def test_a_folder_that_is_not_there_is_no_error_of_the_start(folder):
    config = folder.config(models_folder=folder.path / "none")
    assert open_inventory(config).catalogue.ids == ("demo",)


@in_loop
async def test_a_changed_configuration_changes_the_models(folder):
    file = folder.write("own.txt")
    catalogue = folder.open({"id": "own", "file": file})
    folder.inventory.apply(folder.config({"id": "own", "file": file}, {"id": "new", "file": file}))
    await folder.look(1)
    assert catalogue.ids == ("own", "new")
    assert set(folder.inventory.kits.renderers) == {"own", "new"}
    folder.inventory.apply(folder.config({"id": "new", "file": file, "max_tokens": 9}))
    await folder.look(1)
    assert (catalogue.ids, catalogue.settings("new").max_tokens) == (("new",), 9)
    assert set(folder.inventory.kits.renderers) == {"new"}


def test_names_that_cannot_be_ids_are_left_out_with_the_reason(folder):
    folder.write("my model (1).sim")
    listing = read_listing(folder.config())
    assert listing.entries == ()
    ((file, why),) = listing.left_out.items()
    assert (file.name, "its name cannot be that of a model" in why) == ("my model (1).sim", True)


def test_an_inventory_that_has_not_looked_lists_the_demonstration_model(folder):
    assert Inventory(folder.config()).catalogue.ids == ("demo",)
