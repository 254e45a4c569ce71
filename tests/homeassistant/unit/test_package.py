"""The integration's files agree with each other and with its code, as Home Assistant's own check wants it."""

import json
import re
import tomllib
from pathlib import Path

import custom_components.rkllm_mqtt as package
import pytest
import yaml
from awesomeversion import AwesomeVersion

FOLDER = Path(package.__file__).parent
CODE = {path.name: path.read_text() for path in FOLDER.glob("*.py")}
LANGUAGES = ("de", "en", "pl", "zh-Hans")
RULES = """action-setup appropriate-polling brands common-modules config-flow config-flow-test-coverage
dependency-transparency docs-actions docs-conditions docs-triggers docs-high-level-description
docs-installation-instructions docs-removal-instructions entity-event-setup entity-unique-id
has-entity-name runtime-data test-before-configure test-before-setup unique-config-entry
action-exceptions config-entry-unloading docs-configuration-parameters docs-installation-parameters
entity-unavailable integration-owner log-when-unavailable parallel-updates reauthentication-flow
test-coverage devices diagnostics discovery discovery-update-info docs-data-update docs-examples
docs-known-limitations docs-supported-devices docs-supported-functions docs-troubleshooting
docs-use-cases dynamic-devices entity-category entity-device-class entity-disabled-by-default
entity-translations exception-translations icon-translations reconfiguration-flow repair-issues
stale-devices async-dependency inject-websession strict-typing""".split()  # noqa: SIM905 - 52 names are easier to read so


def texts(language):
    return json.loads((FOLDER / "translations" / f"{language}.json").read_text())


def flat(node, path=()):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, key))
        else:
            yield (*path, key), value


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text_with_the_same_placeholders(language):
    english, other = dict(flat(texts("en"))), dict(flat(texts(language)))
    assert list(other) == list(english)
    for path, text in english.items():
        assert sorted(re.findall(r"{\w+}", other[path])) == sorted(re.findall(r"{\w+}", text)), path
        assert other[path].strip() == other[path] != ""


def test_every_failure_has_a_sentence():
    said = set(re.findall(r'RkllmFailure\(\s*"(\w+)"', "".join(CODE.values())))
    said |= set(re.findall(r'_fail_all\("(\w+)"\)', CODE["client.py"]))
    said |= set(re.findall(r'translation_key="(\w+)"', "".join(CODE.values())))
    said |= {"offline", "disconnected", "refused"}
    from custom_components.rkllm_mqtt.failure import SPOKEN_CODES

    said |= SPOKEN_CODES
    assert said | {"protocol_mismatch"} == set(texts("en")["exceptions"])


def test_every_issue_has_a_text():
    keys = re.findall(r'ISSUE_\w+: Final = "(\w+)"', CODE["const.py"])
    assert set(keys) == set(texts("en")["issues"])


def test_every_step_abort_and_error_of_the_flows_has_a_text():
    english = texts("en")
    flow, both = CODE["config_flow.py"], english["config"]
    assert set(re.findall(r'step_id="(\w+)"', flow)) == set(both["step"])
    errors = set(re.findall(r'CONF_\w+\] = "(\w+)"|CONF_\w+: "([a-z_]+)"}', flow))
    assert {one or two for one, two in errors} == set(both["error"])
    aborts = set(re.findall(r'reason="(\w+)"', flow))
    ours = {"already_configured", "already_in_progress", "reconfigure_successful"}
    assert aborts | ours == set(both["abort"])
    sub, code = english["config_subentries"]["conversation"], CODE["subentry_flow.py"]
    errors = set(re.findall(r'errors\[CONF_\w+\] = "(\w+)"|CONF_MODEL: "(\w+)"', code))
    assert {one or two for one, two in errors} == set(sub["error"])
    for kind in english["config_subentries"].values():
        for step in kind["step"].values():
            assert set(step["data"]) == set(step["data_description"])


def test_the_manifest_is_as_home_assistant_wants_it():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    keys = list(manifest)
    assert keys[:2] == ["domain", "name"]
    assert keys[2:] == sorted(keys[2:])
    assert manifest["domain"] == FOLDER.name
    assert AwesomeVersion(manifest["version"]).valid
    assert manifest["requirements"] == []
    assert manifest["mqtt"] == ["rkllm/+/info"]
    assert manifest["quality_scale"] == "platinum"


def test_the_manifest_names_the_repository_and_its_owner():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())["project"]
    repository = project["urls"]["Repository"]
    assert manifest["documentation"].startswith(f"{repository}/")
    assert manifest["issue_tracker"] == f"{repository}/issues"
    assert manifest["codeowners"] == [f"@{repository.split('/')[3]}"]


def test_the_version_is_the_daemons():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    pyproject = (FOLDER.parents[2] / "pyproject.toml").read_text()
    assert f'version = "{manifest["version"]}"' in pyproject


def test_every_rule_of_the_quality_scale_is_done_or_exempt_with_a_reason():
    rules = yaml.safe_load((FOLDER / "quality_scale.yaml").read_text())["rules"]
    assert list(rules) == RULES
    for rule, state in rules.items():
        if state != "done":
            assert state["status"] in ("done", "exempt"), rule
            assert len(state["comment"]) > 20, rule


def test_the_brand_images_have_the_sizes_that_are_wanted():
    sizes = {"icon.png": (256, 256), "icon@2x.png": (512, 512), "logo.png": None, "logo@2x.png": None}
    for name, size in sizes.items():
        data = (FOLDER / "brand" / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n")
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        if size:
            assert (width, height) == size
        else:
            assert width >= height >= 128
        assert len(data) < 60_000


def test_icons_name_entities_that_there_are():
    icons = json.loads((FOLDER / "icons.json").read_text())
    for domain, names in icons["entity"].items():
        for name in names:
            assert f'_attr_translation_key = "{name}"' in CODE[f"{domain}.py"]
