"""Group pieces of text into deltas: numbered without gaps, at most one in so many seconds.

Pure: the time comes in with each piece, and `due_at` says when to ask again.
"""

from msgspec import Struct, field


class Piece(Struct, frozen=True):
    """One delta to publish."""

    seq: int
    kind: str
    """`text` or `thinking`."""
    text: str


class Coalescer(Struct):
    """Collects the pieces of one attempt."""

    interval_s: float
    """Least time between two deltas; 0 lets every piece pass."""
    next_seq: int = 0
    _kind: str = "text"
    _held: list[str] = field(default_factory=list)
    _sent_at: float = float("-inf")

    def feed(self, kind: str, text: str, now: float) -> list[Piece]:
        """Take a piece and return the deltas to publish now; usually none or one.

        A change between text and thinking ends a delta, because one delta holds one kind.
        """
        ready: list[Piece] = []
        if self._held and kind != self._kind:
            ready.append(self._take(now))
        self._kind = kind
        self._held.append(text)
        if now - self._sent_at >= self.interval_s:
            ready.append(self._take(now))
        return ready

    @property
    def due_at(self) -> float | None:
        """Return when the held text must go out; None when nothing is held."""
        return self._sent_at + self.interval_s if self._held else None

    def flush(self, now: float) -> list[Piece]:
        """Return what is still held."""
        return [self._take(now)] if self._held else []

    def _take(self, now: float) -> Piece:
        piece = Piece(self.next_seq, self._kind, "".join(self._held))
        self._held.clear()
        self.next_seq += 1
        self._sent_at = now
        return piece
