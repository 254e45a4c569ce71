"""The models folder: which of its files are models, by which names, and which are left out and why."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from pydantic import ValidationError

from rkllm_mqtt.config.catalogue import DEMO, Catalogue, Entry
from rkllm_mqtt.config.loading import load_model
from rkllm_mqtt.config.models import ModelConfig
from rkllm_mqtt.config.settings import Config
from rkllm_mqtt.core.errors import Code, ConfigError, Fault

SUFFIXES = (".rkllm", ".sim")
"""Of model files, the one that counts first where two files have the same name."""

Read = Mapping[Path, ModelConfig | ConfigError]
"""By model file: its settings, or why they cannot be used."""


class Listing(Struct, frozen=True):
    """The models of a configuration and its folder."""

    entries: tuple[Entry, ...]
    """Those of the configuration first, then the folder's by name; may be empty."""
    left_out: Mapping[Path, str] = field(default_factory=dict)
    """Files of the folder that are not listed, and why."""


def model_files(folder: Path | None) -> list[Path] | None:
    """Return the model files in a folder, sorted; None where it cannot be read."""
    if folder is None:
        return []
    try:
        with os.scandir(folder) as found:
            paths = [
                Path(entry.path) for entry in found if not entry.name.startswith(".") and entry.is_file()
            ]
    except OSError:
        return None
    models = [path for path in paths if path.suffix in SUFFIXES]
    return sorted(models, key=lambda path: (path.stem, SUFFIXES.index(path.suffix)))


def read_settings(file: Path) -> ModelConfig | ConfigError:
    """Return the settings of a model file, or why they cannot be used."""
    try:
        return load_model(file)
    except ConfigError as exc:
        return exc


def list_models(configured: Sequence[ModelConfig], read: Read) -> Listing:
    """Return the models of a configuration and of its folder as one list.

    Args:
        configured: They keep their names against files.
        read: The files of the folder in their order.
    """
    entries = [Entry(model.id, model) for model in configured]
    named = {name for model in configured for name in model.names}
    left_out: dict[Path, str] = {}
    adapters = {
        _real(lora.file)
        for model in (*configured, *read.values())
        if isinstance(model, ModelConfig)
        for lora in model.loras
    }
    in_configuration = {_real(model.file) for model in configured}
    pinned = next((model.id for model in configured if model.pinned), None)
    for file, settings in read.items():
        if _real(file) in adapters or _real(file) in in_configuration:
            continue  # it belongs to a model, or is one already
        entry = _entry(file, settings, pinned)
        if entry is None:
            left_out[file] = f"its name cannot be that of a model: {settings}"
            continue
        names = {entry.id} if entry.settings is None else set(entry.settings.names)
        if named & names:
            left_out[file] = f"another model has the name {min(named & names)!r}"
            continue
        named |= names
        entries.append(entry)
        if entry.settings is not None and entry.settings.pinned and entry.fault is None:
            pinned = entry.id
    return Listing(tuple(entries), left_out)


def read_listing(config: Config) -> Listing:
    """Return the models of a configuration and of what lies in its folder now."""
    files = model_files(config.models_folder) or []
    return list_models(config.models, {file: read_settings(file) for file in files})


def read_catalogue(config: Config) -> Catalogue:
    """Return a catalogue of what is there now and has no mistake in its settings."""
    entries = [entry for entry in read_listing(config).entries if entry.fault is None]
    return Catalogue(entries or [Entry(DEMO, None)])


def stand_in(config: Config, *, native: bool) -> Entry:
    """Return what stands in a list without models: the demonstration model of the simulator.

    Args:
        config: Names the folder.
        native: A model would be run by the NPU's library: it must not look as if there were one.
    """
    folder = config.models_folder
    if folder is None or not native:
        return Entry(DEMO, None)
    state = "holds no model yet" if folder.is_dir() else "cannot be read"
    hint = "Put a converted .rkllm file there; the daemon notices it."
    return Entry(DEMO, None, Fault(Code.MODEL_ERROR, f"the folder {folder} {state}", hint))


def _entry(file: Path, settings: ModelConfig | ConfigError, pinned: str | None) -> Entry | None:
    """Return the entry of a file; None when its name cannot be an id."""
    if isinstance(settings, ModelConfig):
        if settings.pinned and pinned is not None:
            said = f"{file.with_suffix('.yaml')}: pinned: the model {pinned} is pinned already"
            return Entry(settings.id, settings, _fault(said, "Only one can be: one is loaded at a time."))
        return Entry(settings.id, settings)
    try:
        plain = ModelConfig(id=file.stem, file=file)
    except ValidationError:
        return None
    return Entry(plain.id, plain, _fault(str(settings), settings.hint))


def _fault(message: str, hint: str) -> Fault:
    return Fault(Code.MODEL_ERROR, message, hint)


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
