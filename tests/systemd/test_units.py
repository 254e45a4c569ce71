"""The promise of `systemd/`: supervised, restarted for ever, shut in, and still able to reach the NPU.

systemd's own tools judge, too, where they are installed (Debian: `apt install systemd`).
"""

import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "systemd"


def parsed(name):
    """Return the assignments of a unit: each key with its values in order; continued lines are joined."""
    text = (FOLDER / name).read_text().replace("\\\n", " ")
    values = defaultdict(list)
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith(("#", ";")):
            values[key].append(value)
    return values


@pytest.fixture(scope="module")
def unit():
    return parsed("rkllm-mqtt.service")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "60"),
        ("Restart", "always"),
        ("RestartPreventExitStatus", "78"),
        ("StartLimitIntervalSec", "0"),
        ("OOMPolicy", "continue"),
        ("KillMode", "mixed"),
        ("LimitNOFILE", "102400"),
        ("LimitCORE", "0"),
        ("User", "rkllm-mqtt"),
        ("StateDirectory", "rkllm-mqtt"),
        ("StateDirectoryMode", "0700"),
        ("UMask", "0077"),
        ("CapabilityBoundingSet", ""),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectKernelTunables", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("SystemCallArchitectures", "native"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
    ],
)
def test_the_daemon_is_supervised_and_shut_in(unit, key, value):
    assert unit[key] == [value]


def test_system_calls_are_those_of_a_service_without_privileges(unit):
    assert unit["SystemCallFilter"] == ["@system-service", "~@privileged"]


def test_the_npu_is_reached_on_every_kernel(unit):
    assert set(unit["DeviceAllow"]) >= {"char-drm rw", "char-dma_heap rw", "/dev/rknpu rw"}
    assert unit["DevicePolicy"] == ["closed"]
    assert not unit.keys() & {"PrivateDevices", "PrivateUsers", "MemoryDenyWriteExecute", "ProcSubset"}
    # The groups come with the user; a group that a board does not have would keep the unit from starting.
    assert "SupplementaryGroups" not in unit
    users = (FOLDER / "rkllm-mqtt.sysusers").read_text()
    assert "m rkllm-mqtt render\n" in users
    assert "m rkllm-mqtt video\n" in users


@pytest.mark.parametrize("name", ["rkllm-mqtt.service", "rkllm-mqtt-clocks.service"])
def test_systemd_counts_a_small_exposure_and_finds_no_mistake(name, tmp_path):
    if not shutil.which("systemd-analyze"):
        return  # the tests above hold what it would count
    runnable = tmp_path / name
    runnable.write_text((FOLDER / name).read_text().replace("/opt/rkllm-mqtt/bin/rkllm-mqtt", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", runnable], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    if name == "rkllm-mqtt.service":
        judged = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=16", runnable],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert judged.returncode == 0, judged.stdout[-300:]


def test_the_users_and_folders_are_as_systemd_reads_them(tmp_path):
    users, folders = FOLDER / "rkllm-mqtt.sysusers", FOLDER / "rkllm-mqtt.tmpfiles"
    for line in folders.read_text().splitlines():
        if not line.startswith("#"):
            kind, path, mode, *owner = line.split()
            assert kind in ("d", "z")
            assert path.startswith(("/etc/rkllm-mqtt", "/var/lib/rkllm-mqtt"))
            assert not int(mode, 8) & 0o002
            assert len(owner) == 2
    if shutil.which("systemd-sysusers") and os.geteuid() == 0:
        (tmp_path / "etc").mkdir()
        conf = tmp_path / "rkllm-mqtt.conf"
        conf.write_text(users.read_text())
        subprocess.run(["systemd-sysusers", f"--root={tmp_path}", conf], check=True, capture_output=True)
        assert "rkllm-mqtt:" in (tmp_path / "etc/passwd").read_text()
        groups = (tmp_path / "etc/group").read_text()
        assert [line for line in groups.splitlines() if line.startswith("render:") and "rkllm-mqtt" in line]


# the clocks


@pytest.fixture
def board(tmp_path):
    """A /sys with the governors of a board."""
    governors = {
        "class/devfreq/fdab0000.npu/governor": "rknpu_ondemand",
        "class/devfreq/dmc/governor": "dmc_ondemand",
        "devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
        "devices/system/cpu/cpufreq/policy4/scaling_governor": "ondemand",
    }
    for name, governor in governors.items():
        file = tmp_path / "sys" / name
        file.parent.mkdir(parents=True)
        file.write_text(governor + "\n")
    (tmp_path / "run").mkdir()
    return tmp_path, governors


def act(board, key):
    """Carry out a command of the unit as systemd would: its quoting, `$$` and `%%` undone."""
    (line,) = parsed("rkllm-mqtt-clocks.service")[key]
    program, options, script = line.split(" ", 2)
    script = script.strip().strip("'").replace("$$", "$").replace("%%", "%")
    environment = {**os.environ, "SYS": str(board / "sys"), "RUNTIME_DIRECTORY": str(board / "run")}
    done = subprocess.run(
        [program, options, script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_clocks_are_fixed_and_given_back(board):
    root, governors = board

    def now():
        return {name: (root / "sys" / name).read_text().strip() for name in governors}

    act(root, "ExecStart")
    assert set(now().values()) == {"performance"}
    act(root, "ExecStop")
    assert now() == governors


def test_a_board_without_some_of_the_clocks_is_no_error(board):
    root, _ = board
    shutil.rmtree(root / "sys/class/devfreq/dmc")
    act(root, "ExecStart")
    assert (root / "sys/class/devfreq/fdab0000.npu/governor").read_text() == "performance\n"
    act(root, "ExecStop")
    assert (root / "sys/class/devfreq/fdab0000.npu/governor").read_text() == "rknpu_ondemand\n"
