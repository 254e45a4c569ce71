"""Checks of the board: driver, device nodes, clocks, temperature."""

import os
from collections.abc import Sequence

from rkllm_mqtt.commands.doctoring.finding import Finding, Group
from rkllm_mqtt.commands.doctoring.subject import Subject
from rkllm_mqtt.host.clocks import Clock
from rkllm_mqtt.host.devices import DeviceNode
from rkllm_mqtt.host.npu import BoardReadings
from rkllm_mqtt.host.rknpu import parse_version

GROUP = Group("Board")
WANTED_DRIVER = (0, 9, 8)
"""What Rockchip's document asks for."""
OLDEST_DRIVER = (0, 9, 7)
"""Below this the runtime only warns, and then computes garbage or fails (`matmul(w8a8) run failed`)."""
HOT_CELSIUS = 80.0
"""The vendor's kernels begin to slow the chip down at 75 to 85 °C."""
NEAR = 0.97
"""A clock within 3 % of its maximum counts as being there."""

_VENDOR_KERNEL = "Boot the vendor's kernel (5.10 or 6.1) with rknpu driver 0.9.8 or newer."


def check_board(subject: Subject) -> list[Finding]:
    """Return the findings about the board; one line where the simulator needs none."""
    board = subject.board
    if not subject.rockchip:
        sentence = "This is no Rockchip board (no such name in its device tree)."
        if subject.simulated:
            return [GROUP.skip("board", f"{sentence} The simulator needs none.")]
        advice = "Run the daemon on an RK3588 or RK3576, or set `runtime.simulator: true`."
        return [GROUP.fail("board", sentence, advice)]
    return [
        GROUP.ok("board", f"{board.board_name or 'unnamed'}, {board.platform}"),
        driver(board),
        *devices(board),
        *clocks(board),
        temperature(board),
    ]


def driver(board: BoardReadings) -> Finding:
    """Check which NPU driver the kernel has."""
    if board.driver_version is None:
        if board.devices.mainline and not board.devices.npu:
            sentence = "The kernel has the mainline driver rocket, which the runtime cannot use."
            return GROUP.fail("NPU driver", sentence, _VENDOR_KERNEL)
        if not board.devices.npu and board.npu_clock is None:
            return GROUP.fail("NPU driver", "No rknpu driver is loaded.", _VENDOR_KERNEL)
        advice = "Read it as root: `sudo cat /sys/kernel/debug/rknpu/version` (0.9.8 is asked for)."
        return GROUP.skip("NPU driver", "rknpu is loaded; its version is for root only.", advice)
    version = parse_version(board.driver_version) or ()
    named = f"rknpu {board.driver_version}"
    if version < OLDEST_DRIVER:
        sentence = f"{named} is too old: models load, then fail or answer garbage."
        return GROUP.fail("NPU driver", sentence, f"{_VENDOR_KERNEL} The runtime asks for 0.9.7 at least.")
    if version < WANTED_DRIVER:
        return GROUP.warn("NPU driver", f"{named}; Rockchip asks for 0.9.8.", _VENDOR_KERNEL)
    return GROUP.ok("NPU driver", named)


def devices(board: BoardReadings) -> list[Finding]:
    """Check that this user may open the NPU, and the memory heaps where those are needed."""
    nodes = board.devices.npu
    if not nodes:
        others = ", ".join(node.path for node in board.devices.other_render + board.devices.mainline)
        sentence = (
            f"There is no device node of the NPU ({others} belong to others)."
            if others
            else ("There is no device node of the NPU.")
        )
        advice = f"{_VENDOR_KERNEL} In a container, pass /dev/dri on."
        return [GROUP.fail("NPU device", sentence, advice)]
    found = [_node("NPU device", nodes)]
    closed = [node.path for node in board.devices.dma_heaps if not node.usable]
    if closed and any(node.path == "/dev/rknpu" for node in nodes):
        advice = 'Add a udev rule: SUBSYSTEM=="dma_heap", GROUP="video", MODE="0660".'
        found.append(GROUP.warn("memory heaps", f"{', '.join(closed)}: closed to {_user()}.", advice))
    return found


def _node(check: str, nodes: tuple[DeviceNode, ...]) -> Finding:
    usable = [node for node in nodes if node.usable]
    if usable:
        return GROUP.ok(check, f"{usable[0].path} ({usable[0].owner}), open to {_user()}")
    node = nodes[0]
    if not node.group:
        return GROUP.fail(check, f"{node.path} is not there.", "In a container, pass /dev/dri on.")
    group = node.group if node.group != "root" else "render"
    advice = f"Put the daemon's user into the group: `sudo usermod -aG {group} USER`, then log in again."
    if node.group == "root":
        advice = f'Add a udev rule: KERNEL=="render*", GROUP="render", MODE="0660". {advice}'
    return GROUP.fail(check, f"{node.path} ({node.owner}) is closed to {_user()}.", advice)


def clocks(board: BoardReadings) -> list[Finding]:
    """Check that nothing holds the clocks down: Rockchip's figures are with all of them at their maximum."""
    found = []
    if board.npu_clock is None:
        found.append(GROUP.skip("NPU clock", "The kernel does not tell it."))
    else:
        found.append(_clocks("NPU clock", (board.npu_clock,), "/sys/class/devfreq/*.npu/governor"))
    if board.cpu_clocks:
        path = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        found.append(_clocks("CPU clocks", board.cpu_clocks, path))
    if board.ddr_clock is not None:
        found.append(_clocks("memory clock", (board.ddr_clock,), "/sys/class/devfreq/dmc/governor"))
    return found


def _clocks(check: str, clocks: Sequence[Clock], path: str) -> Finding:
    state = ", ".join(_state(clock, named=len(clocks) > 1) for clock in clocks)
    advice = f"For full speed: `echo performance | sudo tee {path}`; it lasts until the next boot."
    limited = [clock for clock in clocks if _below(clock.limit_mhz, clock)]
    if limited:
        return GROUP.warn(
            check,
            f"{state}; limited to {limited[0].limit_mhz} MHz.",
            f"Look for a lowered max_freq. {advice}",
        )
    if all(_at_full_speed(clock) for clock in clocks):
        return GROUP.ok(check, state)
    return GROUP.warn(check, f"{state}.", advice)


def _state(clock: Clock, *, named: bool) -> str:
    now = "?" if clock.current_mhz is None else str(clock.current_mhz)
    name = f"{clock.name} " if named else ""
    return f"{name}{now} of {clock.maximum_mhz or '?'} MHz ({clock.governor or 'no governor'})"


def _at_full_speed(clock: Clock) -> bool:
    if clock.governor == "performance":
        return True
    return clock.governor == "userspace" and not _below(clock.current_mhz, clock)


def _below(mhz: int | None, clock: Clock) -> bool:
    return bool(mhz and clock.maximum_mhz and mhz < clock.maximum_mhz * NEAR)


def temperature(board: BoardReadings) -> Finding:
    """Check that the chip is not about to slow itself down."""
    celsius = board.npu_celsius if board.npu_celsius is not None else board.soc_celsius
    if celsius is None:
        return GROUP.skip("temperature", "The kernel does not tell it.")
    if celsius >= HOT_CELSIUS:
        advice = "Give the board a heat sink and moving air; a hot chip slows itself down."
        return GROUP.warn("temperature", f"The NPU has {celsius:.0f} °C.", advice)
    return GROUP.ok("temperature", f"{celsius:.0f} °C")


def _user() -> str:
    import getpass

    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.geteuid())
    return name if os.geteuid() else "root (the daemon's own user may differ)"
