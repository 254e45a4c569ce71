"""Device nodes and whether they may be opened."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkllm_mqtt.host.devices import find_devices

TREES = Path(__file__).parent / "trees"
NOBODY = 65534


@pytest.fixture
def open_board() -> Iterator[Path]:
    """A tree that every user can enter (pytest's own folders are private)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(TREES / "rk3588-bsp61", Path(folder) / "board"))


def test_the_npu_is_told_from_the_graphics_processor_by_its_driver() -> None:
    devices = find_devices(TREES / "rk3588-bsp61")
    assert [(node.path, node.driver) for node in devices.npu] == [("/dev/dri/renderD129", "RKNPU")]
    assert [(node.path, node.driver) for node in devices.other_render] == [("/dev/dri/renderD128", "mali")]
    assert [node.path for node in devices.dma_heaps] == ["/dev/dma_heap/cma", "/dev/dma_heap/system"]
    assert devices.mainline == ()


def test_the_node_of_an_older_kernel_is_found(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/rknpu").touch()
    assert [(node.path, node.usable) for node in find_devices(tmp_path).npu] == [("/dev/rknpu", True)]


def test_a_driver_without_node_is_listed_as_unusable(open_board: Path) -> None:
    (open_board / "dev/dri/renderD129").unlink()
    node = find_devices(open_board).npu[0]
    assert (node.usable, node.owner) == (False, "not in /dev")


def test_a_node_of_another_group_is_not_usable(open_board: Path) -> None:
    node = open_board / "dev/dri/renderD129"
    node.chmod(0o060)
    if os.geteuid() != 0:
        assert find_devices(open_board).npu[0].usable is False
        return
    os.seteuid(NOBODY)
    try:
        found = find_devices(open_board).npu[0]
    finally:
        os.seteuid(0)
    # The group class applies to the groups of this process: only a node of a foreign group is closed.
    os.chown(node, 0, NOBODY)
    os.seteuid(NOBODY)
    try:
        closed = find_devices(open_board).npu[0]
    finally:
        os.seteuid(0)
    assert closed.usable is False
    assert closed.owner.endswith(" 0060")
    assert closed.group
    assert found.path == closed.path
