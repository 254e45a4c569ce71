"""Device nodes through which a process reaches the NPU, and whether this user may open them."""

import grp
import os
import pwd
import stat
from pathlib import Path

from msgspec import Struct

from rkllm_mqtt.host.kernelfile import names_in, read_text


class DeviceNode(Struct, frozen=True):
    """One node under /dev."""

    path: str
    """As a program on the board names it, such as `/dev/dri/renderD129`."""
    driver: str | None
    """Kernel driver behind it: `RKNPU`, `rocket`, ...; None when sysfs does not tell."""
    usable: bool
    """This user may open it for reading and writing."""
    owner: str
    """`user:group mode`, such as `root:render 0660`, for the advice."""
    group: str
    """The node's group, joining which gives access as a rule."""


class NpuDevices(Struct, frozen=True):
    """Every node that matters to the NPU; empty tuples on a machine without one."""

    npu: tuple[DeviceNode, ...]
    """Render nodes of the RKNPU driver, and `/dev/rknpu` of older kernels: what the runtime opens."""
    mainline: tuple[DeviceNode, ...]
    """`/dev/accel/accel*` of the mainline driver `rocket`, which the runtime cannot use."""
    dma_heaps: tuple[DeviceNode, ...]
    """`/dev/dma_heap/*`: memory shared with the NPU."""
    other_render: tuple[DeviceNode, ...]
    """Render nodes of other drivers (GPU, video), to tell "no NPU" from "no DRM"."""


def find_devices(root: Path = Path("/")) -> NpuDevices:
    """Look at /dev and /sys/class under `root`; whatever is absent is an empty tuple."""
    render = [
        _node(root, f"dev/dri/{name}", _driver(root / "sys/class/drm" / name))
        for name in names_in(root / "sys/class/drm")
        if name.startswith("render")
    ]
    accel = [
        _node(root, f"dev/accel/{name}", _driver(root / "sys/class/accel" / name))
        for name in names_in(root / "sys/class/accel")
        if name.startswith("accel")
    ]
    heaps = [_node(root, f"dev/dma_heap/{name}", None) for name in names_in(root / "dev/dma_heap")]
    old = [_node(root, "dev/rknpu", "RKNPU")] if (root / "dev/rknpu").exists() else []
    return NpuDevices(
        npu=tuple(node for node in render if _is_rknpu(node)) + tuple(old),
        mainline=tuple(node for node in accel if (node.driver or "").lower() == "rocket"),
        dma_heaps=tuple(heaps),
        other_render=tuple(node for node in render if not _is_rknpu(node)),
    )


def _is_rknpu(node: DeviceNode) -> bool:
    return (node.driver or "").upper() == "RKNPU"


def _driver(sysfs: Path) -> str | None:
    lines = (read_text(sysfs / "device/uevent") or "").splitlines()
    return next((line.removeprefix("DRIVER=") for line in lines if line.startswith("DRIVER=")), None)


def _node(root: Path, name: str, driver: str | None) -> DeviceNode:
    path = root / name
    try:
        status = path.stat()
    except OSError:
        return DeviceNode(f"/{name}", driver, usable=False, owner="not in /dev", group="")
    user, group = _user_name(status.st_uid), _group_name(status.st_gid)
    return DeviceNode(
        path=f"/{name}",
        driver=driver,
        # The kernel's own answer instead of mode bits: desktop systems give access by ACL.
        usable=os.access(path, os.R_OK | os.W_OK, effective_ids=True),
        owner=f"{user}:{group} {stat.S_IMODE(status.st_mode):04o}",
        group=group,
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
