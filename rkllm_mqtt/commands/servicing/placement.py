"""Put files in place and take them away again, exactly those: a receipt knows what was made.

Rule 1: a file that somebody has changed since is theirs: it is kept and named.
Rule 2: doing it twice is doing it once.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from rkllm_mqtt.commands.servicing.servicefiles import ServiceFile

RECEIPT = Path("/etc/rkllm-mqtt/.service.json")

Say = Callable[[str, Path], None]
"""Takes what was done, in a word, and to which path."""


class Placement:
    """Files below a root folder."""

    def __init__(self, root: Path, say: Say, *, dry_run: bool = False) -> None:
        """Keep the arguments; with `dry_run` everything is told and nothing is done."""
        self._root = root
        self._say = say
        self._dry_run = dry_run
        self.made = self._read_receipt()
        """Path to SHA-256 of what was written; `link`, or `folder`."""

    def at(self, place: Path) -> Path:
        """Return where a path of the running system is below the root."""
        return self._root / place.relative_to("/")

    def is_as_made(self, place: Path) -> bool:
        """Return whether a file is as we have written it."""
        path = self.at(place)
        return path.is_file() and _digest(path.read_bytes()) == self.made.get(str(place))

    def write(self, file: ServiceFile) -> None:
        """Write a file, unless it is there and somebody else's."""
        path, digest = self.at(file.place), _digest(file.text.encode())
        there = _digest(path.read_bytes()) if path.is_file() else None
        if there == digest and self.made.get(str(file.place)) == digest:
            self._say("unchanged", file.place)
        elif there is not None and there != self.made.get(str(file.place)):
            self._say("kept, yours", file.place)
        else:
            self._say("write" if there is None else "update", file.place)
            if not self._dry_run:
                self._make_folders(path.parent)
                # A crash must not leave half a unit; nobody may read a configuration in between.
                draft = path.with_name(path.name + ".new")
                draft.touch(file.mode)
                draft.chmod(file.mode)
                draft.write_text(file.text, "utf-8")
                draft.replace(path)
            self.made[str(file.place)] = digest

    def link(self, place: Path, target: Path) -> None:
        """Make a symbolic link."""
        path = self.at(place)
        if path.is_symlink():
            self._say("unchanged", place)
            return
        self._say("link", place)
        if not self._dry_run:
            self._make_folders(path.parent)
            path.symlink_to(target)
        self.made[str(place)] = "link"

    def remove(self, places: Iterable[Path], *, keep: Iterable[Path] = ()) -> None:
        """Remove what was made at these places and is unchanged; files in `keep` stay in any case."""
        for place in places:
            path, made = self.at(place), self.made.get(str(place))
            if made is None or made == "folder":
                continue
            if place in keep:
                self._say("kept", place)
                continue
            if path.is_symlink() if made == "link" else self.is_as_made(place):
                self._say("remove", place)
                if not self._dry_run:
                    path.unlink()
            elif path.exists():
                self._say("kept, yours", place)
            del self.made[str(place)]

    def purge(self, folder: Path) -> None:
        """Remove a folder with everything in it."""
        path = self.at(folder)
        if path.is_dir():
            self._say("purge", folder)
            if not self._dry_run:
                shutil.rmtree(path)

    def close(self) -> None:
        """Keep the receipt; without anything made, remove it and the folders that we made and left empty."""
        if self._dry_run:
            return
        receipt = self.at(RECEIPT)
        if any(kind != "folder" for kind in self.made.values()):
            self._make_folders(receipt.parent)
            receipt.write_text(json.dumps(self.made, indent=2, sort_keys=True) + "\n", "utf-8")
            receipt.chmod(0o644)
            return
        receipt.unlink(missing_ok=True)
        for place in sorted((place for place, kind in self.made.items() if kind == "folder"), reverse=True):
            path = self.at(Path(place))
            if path.is_dir() and not os.listdir(path):  # noqa: PTH208 - the emptiness alone is asked
                path.rmdir()

    def _make_folders(self, folder: Path) -> None:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=0o755)
            if self._root in one.parents:
                self.made["/" + str(one.relative_to(self._root))] = "folder"

    def _read_receipt(self) -> dict[str, str]:
        try:
            receipt = json.loads(self.at(RECEIPT).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(place): str(kind) for place, kind in receipt.items()} if isinstance(receipt, dict) else {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
