"""Share one Rockchip NPU slot over MQTT; start reading with ARCHITECTURE.md."""

__version__ = "0.1.0"
