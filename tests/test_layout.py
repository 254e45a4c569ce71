"""The repository keeps its own promises: a test for each module, and documents that are true."""

import re
from pathlib import Path

import pytest

import rkllm_mqtt
from rkllm_mqtt.core.job import TRANSITIONS

ROOT = Path(__file__).parents[1]
PACKAGES = {"rkllm_mqtt": "", "bindings/rkllmrt": "rkllmrt"}
ELSEWHERE = {
    # Tested through what uses them, in the file named here.
    "rkllm_mqtt/__main__.py": "commands/test_main.py",
    "rkllm_mqtt/commands/client_address.py": "commands/test_client.py",
    "rkllm_mqtt/commands/client_connection.py": "commands/test_client.py",
    "rkllm_mqtt/commands/client_tls.py": "commands/test_client.py",
    "rkllm_mqtt/commands/client_admin.py": "commands/test_queue.py",
    "rkllm_mqtt/cachecommands.py": "test_commanding.py",
    "rkllm_mqtt/commands/ask_screen.py": "commands/test_ask.py",
    "rkllm_mqtt/commands/terminal.py": "commands/test_ask.py",
    "rkllm_mqtt/commands/interruption.py": "commands/test_ask.py",
    "rkllm_mqtt/commands/failure.py": "commands/test_main.py",
    "rkllm_mqtt/commands/config.py": "commands/test_main.py",
    "rkllm_mqtt/config/models.py": "config/test_settings.py",
    "rkllm_mqtt/config/folder.py": "test_inventory.py",
    "rkllm_mqtt/runtime/wedged.py": "end_to_end/test_wedged.py",
    "rkllm_mqtt/handover.py": "test_batching.py",
    "rkllm_mqtt/runtime/loading.py": "runtime/test_slot.py",
    "rkllm_mqtt/runtime/runs.py": "runtime/test_batch.py",
    "rkllm_mqtt/runtime/transcript.py": "runtime/test_generation.py",
    "rkllm_mqtt/validator.py": "test_formats.py",
    "rkllm_mqtt/content/syntax.py": "content/test_calls.py",
    "rkllm_mqtt/turn.py": "test_dispatcher.py",
    "rkllm_mqtt/intake/prefixes.py": "end_to_end/test_prefixes.py",
    "rkllm_mqtt/store/prefixes.py": "test_registrations.py",
    "rkllm_mqtt/conversations.py": "end_to_end/test_conversations.py",
    "rkllm_mqtt/stays.py": "test_dispatcher.py",
    "rkllm_mqtt/rules.py": "test_outlooks.py",
    "rkllm_mqtt/config/policy.py": "config/test_settings.py",
    "rkllm_mqtt/config/runtime.py": "config/test_settings.py",
    "rkllm_mqtt/intake/neighbours.py": "intake/test_reception.py",
    "rkllm_mqtt/parts.py": "test_app.py",
    "rkllm_mqtt/serving.py": "test_app.py",
    "rkllm_mqtt/sender.py": "test_app.py",
    "rkllm_mqtt/render/child.py": "render/test_fence.py",
    "rkllm_mqtt/router.py": "end_to_end/test_hostile.py",
}
FAMILIES = {
    # Modules that are one thing in several files, tested as one.
    "rkllm_mqtt/commands/top_": "commands/test_top.py",
    "rkllm_mqtt/commands/demo_": "commands/test_demo.py",
    "rkllm_mqtt/commands/doctoring/": "commands/test_doctor.py",
    "rkllm_mqtt/commands/servicing/": "commands/test_service.py",
    "rkllm_mqtt/host/": "host/test_npu.py",
    "bindings/rkllmrt/abi": "rkllmrt/test_abi.py",
    "bindings/rkllmrt/": "rkllmrt/test_model.py",
    "rkllm_mqtt/mqtt/": "mqtt/test_session.py",
}


def modules() -> list[str]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"]


def file_of_tests(module: str) -> Path:
    if module in ELSEWHERE:
        return ROOT / "tests" / ELSEWHERE[module]
    for package, folder in PACKAGES.items():
        if module.startswith(package + "/"):
            path = Path(folder) / Path(module).relative_to(package)
            own = ROOT / "tests" / path.with_name(f"test_{path.name}")
            if own.exists():
                return own
    family = next((test for start, test in FAMILIES.items() if module.startswith(start)), None)
    assert family, f"{module} has no test of its own"
    return ROOT / "tests" / family


def test_each_module_has_a_test_and_opens_with_a_sentence():
    assert len(modules()) > 250
    for module in modules():
        assert file_of_tests(module).exists(), module
        assert re.match(r'"""[a-zA-Z`].+[.:;]("""|\n)', (ROOT / module).read_text()), module


def test_the_states_in_the_architecture_are_those_of_the_code():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = set(re.findall(r"^(\w+) --(\w+)--> (\w+)$", text, re.M))
    assert drawn == {(state.value, event.value, after.value) for (state, event), after in TRANSITIONS.items()}


def test_every_row_of_the_failure_table_has_its_tests():
    section = re.search(r"## Failures\n(.*?)\n## ", (ROOT / "ARCHITECTURE.md").read_text(), re.S)[1]
    rows = [line for line in section.splitlines() if line.startswith("| ") and "what happens" not in line]
    named = [row.rsplit("|", 2)[1].strip() for row in rows]
    files = [ROOT / "tests" / name.strip("`") for name in named]
    assert [file for file in files if not file.is_file()] == []
    assert set((ROOT / "tests" / "failures").glob("test_*.py")) <= set(files)


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_document_names_exists(document):
    text = (ROOT / document).read_text()
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"`((?:rkllm_mqtt|bindings|tests|config|systemd)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_version_is_told_once():
    assert f'version = "{rkllm_mqtt.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_no_file_holds_two_nouns():
    for module in modules():
        assert len((ROOT / module).read_text().splitlines()) <= 420, module
    for file in sorted((ROOT / "tests").rglob("*.py")):
        assert len(file.read_text().splitlines()) <= 400, file
