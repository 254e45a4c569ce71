"""The prompt-cache files of one tier: in memory or on the disk, within a budget, the least used go first.

Rule 1: a file is there when its note is there, written aside and renamed; what has no note is removed.
    Nothing is synced: what a power cut has cut short has not the size that its note tells, and goes too.
Rule 2: names are hashes. The folder is ours alone: its files hold what people said, as keys and values.
Rule 3: while a file is being loaded a mark lies beside it; one that is found with its mark killed us.
"""

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from rkllm_mqtt.caching.tracker import Restorable
from rkllm_mqtt.core.prefix import Chain
from rkllm_mqtt.logs import get_logger

log = get_logger(__name__)

_MOST_FILES = 64
"""What is known of a file takes some 20 kB of our memory, and each prompt is compared with all."""
_FILE, _NOTE, _MARK, _PART = ".kv", ".json", ".loading", ".part"
MB = 1_000_000


class CacheFile(Struct, eq=False):
    """A prompt-cache file."""

    path: Path
    held: Restorable
    size: int
    """Bytes."""
    owner: str
    """The client whose prompt it was; empty for what several have in common."""
    used_at: float
    """Unix seconds."""
    loads: int = 0
    in_use: int = 0
    """Runs in the worker that load it."""

    @property
    def mb(self) -> float:
        """Return its size in megabytes."""
        return self.size / MB


class Shelf:
    """The files of one tier."""

    def __init__(self, tier: str, folder: Path, budget_bytes: int) -> None:
        """Keep the arguments; nothing is read before `open`.

        Args:
            tier: `memory` or `disk`.
            folder: Made if absent; nothing else may be in it.
            budget_bytes: Of all files together.
        """
        self.tier = tier
        self.folder = folder
        self.budget_bytes = budget_bytes
        self._files: dict[str, CacheFile] = {}

    def __iter__(self) -> Iterator[CacheFile]:
        return iter(self._files.values())

    def __len__(self) -> int:
        return len(self._files)

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self)

    def open(self) -> None:
        """Take up the files that an earlier process left, and remove what is not whole.

        Raises:
            OSError: The folder cannot be read, or belongs to somebody else.
        """
        if not os.path.lexists(self.folder):
            return
        self.prepare()
        for path in sorted(self.folder.iterdir()):
            if path.suffix == _NOTE:
                self._take_up(path)
        kept = {file.path for file in self} | {file.path.with_suffix(_NOTE) for file in self}
        for path in self.folder.iterdir():
            if path not in kept:
                _remove(path)

    def prepare(self) -> None:
        """Make the folder, and make it ours alone.

        Raises:
            OSError: It cannot be made, or belongs to somebody else.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(f"{self.folder} is not a folder of ours")
        self.folder.chmod(0o700)

    def clear(self) -> None:
        """Remove all files, and the folder."""
        for file in list(self):
            self.remove(file)
        with suppress(OSError):
            self.folder.rmdir()

    def path_of(self, chain: Chain) -> Path:
        """Return where the file of a beginning is."""
        return self.folder / f"{chain.fingerprint}-{chain.name}{_FILE}"

    def find(self, chain: Chain) -> CacheFile | None:
        """Return the file of just this beginning."""
        return self._files.get(self.path_of(chain).name)

    def best(self, prompt: Chain) -> tuple[CacheFile, int] | None:
        """Return the smallest file that holds most of a prompt's beginning, and how many characters."""
        shared = ((file, prompt.shared(file.held.chain)) for file in self)
        return max(
            (found for found in shared if found[1]),
            key=lambda found: (found[1], -found[0].size),
            default=None,
        )

    def add(self, chain: Chain, size: int, tokens: int | None, owner: str) -> CacheFile | None:
        """Take a file that was just written; None when the note of it cannot be.

        Raises nothing: without a note the file is removed.
        """
        file = CacheFile(self.path_of(chain), Restorable(chain, tokens), size, owner, time.time())
        note = {"chain": chain.to_json(), "bytes": size, "tokens": tokens, "owner": owner}
        aside = file.path.with_suffix(_PART)
        try:
            aside.write_text(json.dumps(note))
            aside.replace(file.path.with_suffix(_NOTE))
        except OSError as exc:
            log.warning("prompt_cache_not_kept", reason=str(exc))
            self.remove(file)
            return None
        self._files[file.path.name] = file
        return file

    def remove(self, file: CacheFile) -> None:
        """Remove a file; one that is gone already is no error."""
        self._files.pop(file.path.name, None)
        for suffix in (_NOTE, _FILE, _MARK):  # the note first: what is cut short here is removed at the start
            _remove(file.path.with_suffix(suffix))

    def make_room(self, size: int) -> bool:
        """Remove what was not used for longest until a file of so many bytes fits; False: it cannot."""
        if size > self.budget_bytes:
            return False
        idle = sorted((file for file in self if not file.in_use), key=lambda file: file.used_at)
        while self.size + size > self.budget_bytes or len(self) >= _MOST_FILES:
            if not idle:
                return False
            self.remove(idle.pop(0))
        return True

    def begin_load(self, file: CacheFile) -> None:
        """Remember that a file is about to be loaded."""
        file.in_use += 1
        file.used_at = time.time()
        with suppress(OSError):
            file.path.with_suffix(_MARK).touch(mode=0o600)

    def end_load(self, file: CacheFile) -> None:
        """The load is over, or was never begun."""
        file.in_use -= 1
        if not file.in_use:
            _remove(file.path.with_suffix(_MARK))

    def _take_up(self, note: Path) -> None:
        """Take up a file by its note, if both are whole and no load of it has ended a process."""
        path = note.with_suffix(_FILE)
        try:
            kept = json.loads(note.read_text())
            chain, size = Chain.from_json(kept["chain"]), int(kept["bytes"])
            tokens = None if kept["tokens"] is None else int(kept["tokens"])
            status = path.lstat()
        except (OSError, ValueError, KeyError, TypeError):
            return
        if not stat.S_ISREG(status.st_mode) or status.st_size != size or path != self.path_of(chain):
            return
        if path.with_suffix(_MARK).exists():
            log.warning("prompt_cache_killed_us", file=path.name)
            return
        owner = str(kept.get("owner", ""))
        self._files[path.name] = CacheFile(path, Restorable(chain, tokens), size, owner, status.st_mtime)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
