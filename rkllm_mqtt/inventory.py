"""Look at the model files of configuration and folder, and keep the catalogue true to what is there.

Rule 1: what is there counts when two looks agree on it: a copy in progress is no model, nor a rename a loss.
Rule 2: a model that cannot be loaded, or whose prompts cannot be made, is listed with its fault.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping, Set
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.config import Config, ConfigError, ModelConfig
from rkllm_mqtt.config.catalogue import Catalogue, Entry
from rkllm_mqtt.config.folder import Listing, list_models, model_files, read_settings, stand_in
from rkllm_mqtt.core.errors import Code, Fault
from rkllm_mqtt.host.devicetree import read_platform
from rkllm_mqtt.host.modelfile import ModelFile, file_fault, inspect_model
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.renderers import Kit, Kits, open_kit
from rkllm_mqtt.runtime.order import find_library

log = get_logger(__name__)

LOOK_S = 1.0
"""Between two looks."""
_SETTLED_S = 5.0
"""At the start there is no look before: what was written to so long ago is whole."""
_START_S = 1.0
"""At the start a second look at what was written to lately comes so much later."""

_WINDOW = re.compile(r"max_context_limit\[(\d+)\]")
"""In what the library says when it is asked for a window that a model does not have."""

Stamp = tuple[tuple[int, int, int, int], ...]
_ANY = ModelConfig(id="any", file=Path("any.rkllm"))


class _Counted(Struct, frozen=True):
    """A model file as it counts."""

    stamp: Stamp
    settings: ModelConfig | ConfigError | None
    """Those of a file in the folder; None for one that stands in the configuration."""
    file: ModelFile


class _Findings(Struct, frozen=True):
    """What a look has found."""

    entries: tuple[Entry, ...]
    kits: Mapping[str, Kit]
    """New ones."""
    left_out: Mapping[Path, str]


class Inventory:
    """The models of one daemon; `open_inventory` makes one that has looked."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._platform = read_platform(config.sysfs_root)
        self._before: Mapping[Path, Stamp] = {}
        self._seen: tuple[object, ...] = ()
        """Beside the model files, all that decides what is listed."""
        self._counted: dict[Path, _Counted] = {}
        self._made: dict[str, tuple[ModelConfig | None, Stamp, Fault | None]] = {}
        """Of each kit: the settings and the files, and why there is none."""
        self._own_faults: dict[str, Fault] = {}
        """Of settings, whatever the model's file is."""
        self._left_out: Mapping[Path, str] = {}
        self._windows: dict[Path, int] = {}
        """Of files that were converted for less than we ask for unless somebody says so, tokens."""
        self._asked = asyncio.Event()
        self.catalogue = Catalogue([stand_in(config, native=False)])
        self.kits = Kits(self.catalogue)

    def apply(self, config: Config) -> None:
        """Take over a changed configuration, soon."""
        self._config = config
        self._asked.set()

    def begin(self) -> None:
        """Look for the first time, before anybody listens.

        Raises:
            ConfigError: The template or the tokenizer of a configured model cannot be used.
        """
        found = self._look(first=True)
        if any(file not in self._counted for file in model_files(self._config.models_folder) or ()):
            # Copied a moment ago, then the daemon was restarted: jobs of such a model are not to be lost.
            time.sleep(_START_S)
            found = self._look() or found
        for model in self._config.models:
            if (fault := self._own_faults.get(model.id)) is not None:
                raise ConfigError(fault.message, fault.hint)
        if found is not None:
            self._take(found)
        self.catalogue.listen(self.kits.models_changed)

    async def run(self) -> None:
        """Look again and again; cancelled by the daemon's task group."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._asked.wait()
            self._asked.clear()
            await self.look()

    async def look(self) -> None:
        """Look once, and put down what counts by now."""
        found = await asyncio.to_thread(self._look)
        if found is not None:
            self._take(found)

    def fit_window(self, model_id: str, complaint: str) -> None:
        """Hear why a model was not loaded: a window that nobody has set becomes what it was converted for."""
        settings, limit = self.catalogue.settings(model_id), _WINDOW.search(complaint)
        if settings is None or limit is None or "context_tokens" in settings.model_fields_set:
            return
        if self._windows.get(settings.file) != int(limit[1]):
            log.info("window_fitted", model=model_id, context_tokens=int(limit[1]))
            self._windows[settings.file] = int(limit[1])
            self._asked.set()

    def check(self, model_id: str) -> Fault | None:
        """Look at a model that is to be loaded now; return why it cannot be. Called in any thread."""
        if model_id not in self.catalogue:
            return Fault(Code.MODEL_ERROR, f"the model {model_id!r} was removed")
        settings = self.catalogue.settings(model_id)
        if settings is None:
            return self.catalogue.fault(model_id)
        return self._own_faults.get(model_id) or self._file_fault(settings, inspect_model(settings.file))

    # a look, in a thread of its own

    def _look(self, *, first: bool = False) -> _Findings | None:
        """Return what there is now; None: what there was at the look before."""
        config = self._config
        in_folder = model_files(config.models_folder)
        if in_folder is None:  # a disk that is away for a moment takes no model with it
            in_folder = [file for file, counted in self._counted.items() if counted.settings is not None]
            now = {file: self._counted[file].stamp for file in in_folder}
        else:
            now = {file: _stamp(file, file.with_suffix(".yaml")) for file in in_folder}
        now |= {model.file: _stamp(model.file) for model in config.models if model.file not in now}
        has_changed = self._count(now, frozenset(in_folder), first=first)
        library = find_library(config, (_ANY,))
        windows = dict(self._windows)
        seen = (config.models, config.models_folder, library, self._kit_stamps(), windows)
        if not has_changed and seen == self._seen:
            return None
        self._seen = seen
        read = {
            file: counted.settings
            for file in sorted(self._counted, key=_name)
            if (counted := self._counted[file]).settings is not None and file.parent == config.models_folder
        }
        return self._findings(config, _fitted(list_models(config.models, read), windows))

    def _count(self, now: Mapping[Path, Stamp], in_folder: Set[Path], *, first: bool) -> bool:
        """Let count what two looks agree on; return whether that is something new."""
        has_changed = False
        for file in now.keys() | self._counted.keys():
            stamp, counted = now.get(file, ()), self._counted.get(file)
            if counted is not None and counted.stamp == stamp and file in now:
                continue
            is_settled = _is_old(stamp) if first else stamp == self._before.get(file, ())
            if is_settled and file in now:
                settings = read_settings(file) if file in in_folder else None
                if counted is not None:
                    self._windows.pop(file, None)
                self._counted[file] = _Counted(stamp, settings, inspect_model(file))
                has_changed = True
            elif is_settled and counted is not None:
                del self._counted[file]
                has_changed = True
        self._before = now
        return has_changed

    def _kit_stamps(self) -> dict[str, Stamp]:
        return {model_id: _stamp(*_files_of(model)) for model_id, (model, _, _) in self._made.items()}

    def _findings(self, config: Config, listing: Listing) -> _Findings:
        own_faults = {entry.id: entry.fault for entry in listing.entries if entry.fault}
        entries = listing.entries or (stand_in(config, native=find_library(config, (_ANY,)) is not None),)
        kits: dict[str, Kit] = {}
        for entry in entries:
            if entry.fault is None or entry.settings is None:
                fault = self._make_kit(entry, kits)
                if fault is not None:
                    own_faults[entry.id] = fault
        self._own_faults = own_faults
        judged = [replace(entry, fault=entry.fault or self._fault(entry)) for entry in entries]
        # A broken file must not become the default because of its name; a configured model stays what it is.
        count = len(config.models)
        ordered = (*judged[:count], *sorted(judged[count:], key=lambda entry: entry.fault is not None))
        return _Findings(ordered, kits, listing.left_out)

    def _make_kit(self, entry: Entry, kits: dict[str, Kit]) -> Fault | None:
        """Open a kit where there is none for these settings; what fails is a fault of the model."""
        model = entry.settings
        stamp = _stamp(*_files_of(model))
        known, known_stamp, fault = self._made.get(entry.id, (None, None, None))
        if known != model or known_stamp != stamp:
            fault = None
            try:
                kits[entry.id] = open_kit(model, self._config.limits.template_s)
            except ConfigError as exc:
                fault = Fault(Code.MODEL_ERROR, str(exc), exc.hint)
            self._made[entry.id] = model, stamp, fault
        return fault

    def _fault(self, entry: Entry) -> Fault | None:
        own = self._own_faults.get(entry.id)
        if own is not None or entry.settings is None:
            return own
        counted = self._counted.get(entry.settings.file)
        return None if counted is None else self._file_fault(entry.settings, counted.file)

    def _file_fault(self, settings: ModelConfig, file: ModelFile) -> Fault | None:
        configured = any(model.id == settings.id for model in self._config.models)
        native = find_library(self._config, (*self.catalogue.models, settings)) is not None
        return file_fault(file, native=native, board=self._platform, trusted=configured)

    # what comes of it, on the event loop

    def _take(self, found: _Findings) -> None:
        for model_id, kit in found.kits.items():
            self.kits.put(model_id, kit)
        for file, why in found.left_out.items():
            if self._left_out.get(file) != why:
                log.warning("model_left_out", file=str(file), reason=why)
        self._left_out = found.left_out
        before = {entry.id: entry.fault for entry in self.catalogue.entries}
        for entry in found.entries:
            if entry.fault is not None and entry.fault != before.get(entry.id):
                log.warning("model_faulty", model=entry.id, reason=entry.fault.message, hint=entry.fault.hint)
        listed = {entry.id for entry in found.entries}
        for model_id in self._made.keys() - listed:
            del self._made[model_id]
        if listed != before.keys():
            log.info("models_listed", models=",".join(sorted(listed)))
        self.catalogue.put(found.entries, found.kits.keys())


def open_inventory(config: Config) -> Inventory:
    """Return an inventory that has looked.

    Raises:
        ConfigError: The template or the tokenizer of a configured model cannot be used.
    """
    inventory = Inventory(config)
    inventory.begin()
    return inventory


def _fitted(listing: Listing, windows: Mapping[Path, int]) -> Listing:
    """Return a listing whose models have the windows that the library has told."""
    entries = tuple(
        replace(
            entry, settings=entry.settings.model_copy(update={"context_tokens": windows[entry.settings.file]})
        )
        if entry.settings is not None
        and entry.settings.file in windows
        and "context_tokens" not in entry.settings.model_fields_set
        else entry
        for entry in listing.entries
    )
    return replace(listing, entries=entries)


def _files_of(model: ModelConfig | None) -> list[Path]:
    """Return the files that a model's prompts are made with; our own templates have no suffix."""
    if model is None:
        return []
    template = Path(model.template)
    return [*([template] if template.suffix else []), *([model.tokenizer] if model.tokenizer else [])]


def _name(file: Path) -> tuple[str, str]:
    return file.stem, file.suffix


def _stamp(*files: Path) -> Stamp:
    """Return what changes when somebody writes to one of these files; empty when the first is not there."""
    stamps = []
    for file in files:
        try:
            status = file.stat()
            stamps.append((status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))
        except OSError:
            if not stamps:
                return ()
            stamps.append((0, 0, 0, 0))
    return tuple(stamps)


def _is_old(stamp: Stamp) -> bool:
    """Return whether nobody has written to these files lately; a clock that was set says nothing."""
    now = time.time()
    return bool(stamp) and not any(
        0 <= now - max(changed, renamed) / 1e9 < _SETTLED_S for changed, renamed, _, _ in stamp
    )
