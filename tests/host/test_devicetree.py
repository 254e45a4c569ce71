"""Platform names from the device tree."""

import pytest

from rkllm_mqtt.host.devicetree import parse_platform


@pytest.mark.parametrize(
    ("compatible", "platform"),
    [
        (["radxa,rock-5b", "rockchip,rk3588", ""], "rk3588"),
        (["radxa,rock-5a", "rockchip,rk3588s", ""], "rk3588"),
        (["radxa,e52c", "rockchip,rk3582", "rockchip,rk3588s"], "rk3588"),
        (["rockchip,rk3588s-orangepi-5", "rockchip,rk3588"], "rk3588"),
        (["armsom,sige5", "rockchip,rk3576"], "rk3576"),
        (["rockchip,rk3562-evb", "rockchip,rk3562"], "rk3562"),
        (["rockchip,rv1126b-evb", "rockchip,rv1126b"], "rv1126b"),
        (["raspberrypi,5-model-b", "brcm,bcm2712"], None),
        ([], None),
    ],
)
def test_the_most_general_chip_names_the_platform(compatible: list[str], platform: str | None) -> None:
    assert parse_platform(compatible) == platform
