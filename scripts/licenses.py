"""Write LICENSES.md: what the project depends on, what for, and under which licence; `make licenses`.

The licences are those that the installed packages name in their metadata.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILE = ROOT / "LICENSES.md"

USED_FOR: Mapping[str, str] = {
    "amqtt": "the broker of `demo` where no mosquitto is installed",
    "apscheduler": "the calendar of recurring prompts",
    "codespell": "spelling",
    "hypothesis": "property tests",
    "import-linter": "the arrows between modules",
    "jinja2": "chat templates, in its sandbox",
    "json-repair": "mending a model's broken JSON",
    "jsonschema": "`response_format` and the arguments of tools",
    "msgspec": "plain values: quick to import and to make",
    "mypy": "types",
    "numpy": "hidden states and logits as arrays",
    "paho-mqtt": "MQTT 5 and 3.1.1",
    "pydantic": "checking configuration and requests",
    "pytest": "tests",
    "pytest-xdist": "tests side by side",
    "pyyaml": "reading the configuration",
    "rich": "drawing in the terminal",
    "ruff": "format and lint",
    "tokenizers": "counting the tokens of prompts exactly",
    "types-jsonschema": "types",
    "types-pyyaml": "types",
    "tzdata": "time zones where the system has none",
    "tzlocal": "the system's time zone",
}
"""Direct dependencies by normalised name; a test wants each of pyproject.toml here."""

_CLASSIFIED: Mapping[str, str] = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_OUTSIDE = """\
## Beside Python

Nothing of this is part of the project or of its packages.

| what | used for | licence |
|---|---|---|
| librkllmrt.so | the runtime on the NPU; its user installs it | Rockchip's own, proprietary |
| mosquitto | the broker of tests and `demo`, if installed | EPL-2.0 or BSD-3-Clause |
| SQLite | the journal, as a part of Python | public domain |
| atheris | `make fuzz`, in an environment of its own | Apache-2.0 |
"""


def main() -> None:
    """Write the file anew."""
    FILE.write_text(build(), encoding="utf-8")


def build() -> str:
    """Return the text of LICENSES.md."""
    groups = declared()
    parts = [
        "# Dependencies and their licences\n\nThe project itself: Apache-2.0, see LICENSE. "
        "Written by `make licenses`; a test compares it with pyproject.toml.\n"
    ]
    for group, names in groups.items():
        parts.append(f"## {title(group)}\n\n{_table(names)}")
    direct = {name for names in groups.values() for name in names}
    brought = sorted(closure(name for group in groups if group != "dev" for name in groups[group]) - direct)
    rows = "".join(f"| {name} | {license_of(name)} |\n" for name in brought)
    parts.append(f"## What these bring along\n\n| package | licence |\n|---|---|\n{rows}")
    return "\n".join([*parts, _OUTSIDE])


def declared() -> dict[str, list[str]]:
    """Return the direct dependencies of pyproject.toml by extra, sorted; `""` is the daemon."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {group: sorted(map(_name, wanted)) for group, wanted in groups.items()}


def title(group: str) -> str:
    """Return the heading of an extra; `""` is the daemon."""
    return {"": "The daemon", "dev": "Development"}.get(group, f"Extra `{group}`")


def closure(names: Iterable[str]) -> set[str]:
    """Return packages and all that they need here."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform
        found.add(name)
        todo += [_name(requirement) for requirement in wanted if ";" not in requirement]
    return found


def license_of(name: str) -> str:
    """Return the licence that an installed package names."""
    about = metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    kinds = [
        line.rsplit(" :: ", 1)[1]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: OSI Approved :: ")
    ]
    if kinds:
        return " or ".join(_CLASSIFIED.get(kind, kind) for kind in kinds)
    return (about.get("License") or "not named").splitlines()[0]


def _table(names: Iterable[str]) -> str:
    rows = "".join(f"| {name} | {USED_FOR[name]} | {license_of(name)} |\n" for name in names)
    return f"| package | used for | licence |\n|---|---|---|\n{rows}"


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


if __name__ == "__main__":
    main()
