"""The promise of LICENSES.md: every direct dependency with its purpose and the licence that it has."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("licenses", ROOT / "scripts" / "licenses.py")
licenses = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licenses)

TEXT = (ROOT / "LICENSES.md").read_text("utf-8")
KINDS = re.compile(r"MIT|BSD|Apache|EPL|MPL|ISC|PSF|Zlib|A?GPL|GNU (?:Affero )?General Public|not named")
UNFIT = {"GPL", "AGPL", "GNU General Public", "GNU Affero General Public", "not named"}


def listed(section):
    body = TEXT.split(f"## {section}\n")[1].split("\n## ")[0]
    return {
        row[0]: row[-1] for row in re.findall(r"^\| ([a-z0-9-]+) \|(?: [^|]+ \|)? ([^|]+) \|$", body, re.M)
    }


def test_the_list_and_pyproject_name_the_same_packages():
    for group, names in licenses.declared().items():
        assert set(listed(licenses.title(group))) - {"package"} == set(names), "run `make licenses`"


def test_each_licence_is_of_the_kind_that_the_installed_package_names():
    for group, names in licenses.declared().items():
        for name in names:
            told, named = listed(licenses.title(group))[name], licenses.license_of(name)
            assert set(KINDS.findall(told)) == set(KINDS.findall(named)) != set(), (name, told, named)
            assert f"| {name} | {licenses.USED_FOR[name]} |" in TEXT


def test_no_package_of_the_daemon_has_a_licence_that_does_not_fit_ours():
    daemon = listed("The daemon") | listed("What these bring along")
    assert len(daemon) > 10
    assert {name: kind for name, kind in daemon.items() if UNFIT & set(KINDS.findall(kind))} == {}
