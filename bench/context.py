"""What every row needs: a folder on a real disk, the library, and stages to start services on."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.broker import Broker
from bench.models import Writer
from bench.service import Stage


@dataclass(slots=True)
class Context:
    """The frame of one bench run."""

    folder: Path
    """On the disk that is measured: the journals are here."""
    notes: Path
    """In memory where the system has such a folder: a log that waits for the disk slows what it tells of."""
    library: Path
    quick: bool
    """Few rounds: shows that a row works, not what it is worth."""
    _stages: int = field(default=0, init=False)

    def rounds(self, usual: int) -> int:
        """Return how often to repeat something."""
        return max(2, usual // 10) if self.quick else usual

    @asynccontextmanager
    async def stage(self, model: Writer, environ: Mapping[str, str] | None = None) -> AsyncIterator[Stage]:
        """Start a broker in a folder of its own, with the model that `model` writes there."""
        self._stages += 1
        folder = self.folder / f"stage-{self._stages}"
        notes = self.notes / folder.name
        folder.mkdir()
        notes.mkdir(exist_ok=True)
        broker = Broker(notes)
        try:
            await broker.start()
            stage = Stage(folder, notes, broker.port, self.library, model(folder), environ or {})
            try:
                yield stage
            except Exception as exc:
                exc.add_note(stage.last_words())
                raise
            finally:
                stage.stop()
        finally:
            broker.stop()
