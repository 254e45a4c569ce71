"""The promise of `rkllm-mqtt service`: everything in place, twice is once, and away again without a trace."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rkllm_mqtt.commands.failure import CommandFailed
from rkllm_mqtt.commands.main import main
from rkllm_mqtt.commands.servicing.servicefiles import PLACES, render_unit
from rkllm_mqtt.config import Config

UNIT = "etc/systemd/system/rkllm-mqtt.service"
SHIPPED = Path(__file__).parents[2] / "systemd"


def tree(root):
    """Return every path below a folder, with the content of files and the targets of links."""
    return {
        str(path.relative_to(root)): os.readlink(path)  # noqa: PTH115 - as text
        if path.is_symlink()
        else path.read_text()
        if path.is_file()
        else None
        for path in sorted(root.rglob("*"))
    }


def service(root, *words):
    return main(["service", *words, "--root", str(root)])


@pytest.fixture
def image(tmp_path):
    """Another system: it has an /etc with files of its own."""
    root = tmp_path / "image"
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/hostname").write_text("board\n")
    return root


def test_install_puts_everything_in_place_and_the_unit_starts_this_installation(image):
    assert service(image, "install") == 0
    found = tree(image)
    assert {str(path).removeprefix("/") for path in PLACES.values()} < set(found)
    (line,) = [line for line in found[UNIT].splitlines() if line.startswith("ExecStart=")]
    program, *rest = line.removeprefix("ExecStart=").split()
    assert Path(program) == Path(sys.prefix) / "bin/rkllm-mqtt"
    assert os.access(program, os.X_OK)
    assert rest == ["run", "--config", "/etc/rkllm-mqtt/rkllm-mqtt.yaml"]
    assert found["etc/systemd/system/multi-user.target.wants/rkllm-mqtt.service"] == f"/{UNIT}"
    assert "etc/systemd/system/multi-user.target.wants/rkllm-mqtt-clocks.service" not in found
    assert main(["config", "check", "--config", str(image / "etc/rkllm-mqtt/rkllm-mqtt.yaml")]) == 0
    assert (image / "etc/rkllm-mqtt/rkllm-mqtt.yaml").stat().st_mode & 0o777 == 0o640


def test_twice_is_once(image, capsys):
    service(image, "install")
    once = tree(image)
    capsys.readouterr()
    assert service(image, "install") == 0
    assert tree(image) == once
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"unchanged"}


def test_uninstall_removes_what_install_made_and_keeps_what_is_the_owners(image):
    before = tree(image)
    service(image, "install", "--clocks")
    (image / "var/lib/rkllm-mqtt").mkdir(parents=True)
    (image / "var/lib/rkllm-mqtt/journal.db").write_text("answers")
    kept = tree(image / "etc/rkllm-mqtt")["rkllm-mqtt.yaml"]
    assert service(image, "uninstall") == 0
    left = {name: text for name, text in tree(image).items() if name not in before and text is not None}
    assert left == {"etc/rkllm-mqtt/rkllm-mqtt.yaml": kept, "var/lib/rkllm-mqtt/journal.db": "answers"}
    assert service(image, "uninstall", "--purge") == 0
    (image / "var/lib").rmdir()
    (image / "var").rmdir()
    assert tree(image) == before


def test_purge_at_once_leaves_the_system_as_it_was(image):
    before = tree(image)
    service(image, "install")
    assert service(image, "uninstall", "--purge") == 0
    assert tree(image) == before


def test_a_file_that_somebody_changed_is_theirs(image, capsys):
    service(image, "install")
    unit, config = image / UNIT, image / "etc/rkllm-mqtt/rkllm-mqtt.yaml"
    unit.write_text(unit.read_text() + "# mine\n")
    config.write_text("node: kitchen\n")
    capsys.readouterr()
    service(image, "install")
    assert capsys.readouterr().out.count("kept, yours") == 2
    assert unit.read_text().endswith("# mine\n")
    service(image, "uninstall")
    assert unit.exists()
    assert config.read_text() == "node: kitchen\n"
    assert not (image / "etc/tmpfiles.d").exists()


def test_a_newer_version_replaces_the_files_that_nobody_changed(image):
    service(image, "install")
    receipt = image / "etc/rkllm-mqtt/.service.json"
    made = json.loads(receipt.read_text())
    older = "# of an older version\n"
    (image / "etc/tmpfiles.d/rkllm-mqtt.conf").write_text(older)
    from rkllm_mqtt.commands.servicing.placement import _digest

    made["/etc/tmpfiles.d/rkllm-mqtt.conf"] = _digest(older.encode())
    receipt.write_text(json.dumps(made))
    service(image, "install")
    assert (image / "etc/tmpfiles.d/rkllm-mqtt.conf").read_text() == (
        SHIPPED / "rkllm-mqtt.tmpfiles"
    ).read_text()


@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_dry_run_tells_everything_and_does_nothing(image, capsys, action):
    if action == "uninstall":
        service(image, "install")
    before = tree(image)
    capsys.readouterr()
    assert service(image, action, "--dry-run") == 0
    assert tree(image) == before
    told = capsys.readouterr().out
    assert all(str(path) in told for path in PLACES.values())
    assert "would " in told


def test_status_tells_what_is_there(image, capsys):
    assert service(image, "status") == 3
    service(image, "install")
    (image / "etc/sysusers.d/rkllm-mqtt.conf").unlink()
    (image / UNIT).write_text("# mine\n")
    capsys.readouterr()
    assert service(image, "status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["installed"]
    assert status["files"][f"/{UNIT}"] == "changed"
    assert status["files"]["/etc/sysusers.d/rkllm-mqtt.conf"] == "missing"
    assert status["files"]["/etc/tmpfiles.d/rkllm-mqtt.conf"] == "installed"
    assert status["at_boot"] == {"rkllm-mqtt.service": True, "rkllm-mqtt-clocks.service": False}


@pytest.fixture
def ordinary_user():
    """Be nobody for a moment where the suite runs as root, who may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_an_ordinary_user_is_told_to_use_sudo(image, capsys, request):
    service(image, "status")  # everything is imported
    (image / "etc").chmod(0o555)
    (image / "etc/systemd/system").chmod(0o555)
    request.getfixturevalue("ordinary_user")
    assert service(image, "install") == 1
    said = capsys.readouterr().err
    assert "Permission denied" in said
    assert "sudo " in said


def test_a_machine_without_systemd_is_told_what_to_do_instead(capsys):
    if Path("/run/systemd/system").is_dir():
        return  # there is one: the real thing would be installed
    assert main(["service", "install"]) == 1
    said = capsys.readouterr().err
    assert "not run by systemd" in said
    assert "--root" in said


# the unit for an installation


def rendered(folders=(), **config):
    text = (SHIPPED / "rkllm-mqtt.service").read_text()
    settings = Config.model_validate({"node": "rock", **config})
    unit = render_unit(
        text,
        ("/opt/r/bin/rkllm-mqtt",),
        Path("/etc/rkllm-mqtt/rkllm-mqtt.yaml"),
        settings,
        map(Path, folders),
    )
    return [line for line in unit.splitlines() if line and not line.startswith("#")]


def test_an_installation_in_a_home_is_shown_to_the_daemon_and_the_rest_of_the_home_is_not():
    lines = rendered(["/home/pi/my venv", "/usr"], models=[{"id": "q", "file": "/home/pi/models/q.rkllm"}])
    assert "ProtectHome=tmpfs" in lines
    assert 'BindReadOnlyPaths=-"/home/pi/my venv"' in lines
    assert "BindReadOnlyPaths=-/home/pi/models/q.rkllm" in lines
    assert not [line for line in lines if line.startswith("BindReadOnlyPaths") and "/usr" in line]


def test_an_installation_outside_needs_nothing_of_a_home():
    lines = rendered(["/opt/rkllm-mqtt", "/usr"])
    assert "ProtectHome=yes" in lines
    assert not [line for line in lines if line.startswith(("Bind", "ReadWrite"))]


def test_a_journal_elsewhere_may_be_written():
    lines = rendered(journal={"path": "/mnt/ssd/rkllm/journal.db"})
    assert "ReadWritePaths=/mnt/ssd/rkllm" in lines
    assert lines.index("ReadWritePaths=/mnt/ssd/rkllm") < lines.index("[Install]")


def test_what_systemd_would_interpret_in_a_path_is_escaped():
    text = (SHIPPED / "rkllm-mqtt.service").read_text()
    unit = render_unit(text, ("/opt/100% $x/rkllm",), Path("/etc/c.yaml"), Config(node="rock"), ())
    assert 'ExecStart="/opt/100%% $$x/rkllm" run --config /etc/c.yaml\n' in unit


def test_a_file_that_the_installation_lacks_is_named(monkeypatch):
    from rkllm_mqtt.commands.servicing import servicefiles

    monkeypatch.setitem(servicefiles.PLACES, "rkllm-mqtt.nothing", Path("/etc/nothing"))
    with pytest.raises(CommandFailed, match=r"has no rkllm-mqtt\.nothing"):
        servicefiles.service_files(servicefiles.CONFIG, Config(node="rock"))


@pytest.mark.parametrize("tool", ["systemctl"])
def test_systemd_itself_finds_the_service_enabled_in_the_image(image, tool):
    service(image, "install")
    wanted = image / "etc/systemd/system/multi-user.target.wants/rkllm-mqtt.service"
    assert wanted.readlink() == Path(f"/{UNIT}")
    if shutil.which(tool):  # systemd's own word, where it is installed; the link says the same
        done = subprocess.run(
            [tool, f"--root={image}", "is-enabled", "rkllm-mqtt"], capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == "enabled"
