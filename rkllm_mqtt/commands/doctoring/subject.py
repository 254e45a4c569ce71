"""What is examined: a configuration and the computer it is meant for."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from rkllm_mqtt.config import Config, ModelConfig
from rkllm_mqtt.config.folder import read_listing
from rkllm_mqtt.core.errors import Fault
from rkllm_mqtt.host.modelfile import ModelFile, inspect_model
from rkllm_mqtt.host.npu import BoardReadings, read_board
from rkllm_mqtt.runtime.order import find_library


class Subject(Struct, frozen=True):
    """Read once, before the checks begin."""

    config: Config
    root: Path
    """Where /sys, /proc, /dev, /etc and /usr are found: / but in tests and rescue systems."""
    library: Path | None
    """What the daemon would load; None is the simulator."""
    simulated: bool
    demo: bool
    """The demo that runs now is examined: its journal is its own."""
    board: BoardReadings
    models: tuple[tuple[ModelConfig, ModelFile], ...]
    """Of the configuration and of its folder."""
    faults: Mapping[str, Fault] = field(default_factory=dict)
    """By model: what is wrong with its settings."""
    left_out: Mapping[Path, str] = field(default_factory=dict)
    """Files of the folder that are no models, and why."""

    @property
    def rockchip(self) -> bool:
        """Say whether this is a board whose NPU could be used."""
        return self.board.platform is not None


def examine(config: Config, root: Path | None = None, *, demo: bool = False) -> Subject:
    """Return the subject of a configuration; `root` counts before the configured one."""
    root = root or config.sysfs_root
    listing = read_listing(config)
    models = [entry.settings for entry in listing.entries if entry.settings is not None]
    library = find_library(config, models)
    return Subject(
        config=config,
        root=root,
        library=library,
        simulated=library is None or _is_simulator(library),
        demo=demo,
        board=read_board(root),
        models=tuple((model, inspect_model(model.file)) for model in models),
        faults={entry.id: entry.fault for entry in listing.entries if entry.fault is not None},
        left_out=listing.left_out,
    )


def _is_simulator(library: Path) -> bool:
    from rkllmrt.simulator import is_simulator

    try:
        return is_simulator(library)
    except OSError:  # the check of the library says what is wrong with it
        return False
