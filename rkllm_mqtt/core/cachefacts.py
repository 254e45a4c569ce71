"""What a runtime on this board does with its KV cache and its prompt-cache files, as a probe has learned it.

Pure. No document says these things, and releases differ. None is unprobed, and unprobed is pessimistic: the
properties answer as if the library did what costs us most.
"""

from collections.abc import Mapping
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import asdict

_SLOW_S_PER_MB = 1 / 40
"""Of a file nobody has timed: an SD card."""


class CacheFacts(Struct, frozen=True):
    """Of one model with one runtime, with `keep_history` 0."""

    reuses_finished: bool | None = None
    """A prompt that begins like the one before is not computed again as far as they are the same."""
    reuses_aborted: bool | None = None
    """So it is when the run before was aborted."""
    holds_generated: bool | None = None
    """The answer of the run before can be matched too, not its prompt only."""
    load_replaces: bool | None = None
    """Loading a prompt-cache file drops what was in the KV cache."""
    loaded_stays: bool | None = None
    """A loaded file is still matched after a run of another prompt."""
    aborted_saves: bool | None = None
    """A run that is aborted writes the prompt-cache file it was asked for all the same."""
    granularity: int | None = None
    """Tokens: a match is rounded down to a multiple of it; at least 1."""
    load_s_per_mb: float | None = None
    save_s_per_mb: float | None = None
    bytes_per_token: int | None = None
    """Of a prompt-cache file."""

    @property
    def can_reuse(self) -> bool:
        """Return whether a common beginning is known to be reused."""
        return self.reuses_finished is True

    @property
    def can_restore(self) -> bool:
        """Return whether a prompt-cache file is known to help, and what one costs."""
        return self.can_reuse and self.load_s_per_mb is not None and self.bytes_per_token is not None

    @property
    def is_probed(self) -> bool:
        """Return whether a probe has asked everything that it can ask without files."""
        return None not in (self.reuses_finished, self.reuses_aborted, self.holds_generated)

    def load_s(self, tokens: int) -> float:
        """Return how long restoring so many tokens takes, seconds; at a slow disk's pace where unknown."""
        return self._file_mb(tokens) * (self.load_s_per_mb or _SLOW_S_PER_MB)

    def save_s(self, tokens: int) -> float:
        """Return how long saving so many tokens takes, seconds."""
        return self._file_mb(tokens) * (self.save_s_per_mb or _SLOW_S_PER_MB)

    def matched(self, tokens: int) -> int:
        """Return how many of `tokens` in common the runtime will not compute again."""
        if not self.can_reuse:
            return 0
        return tokens - tokens % (self.granularity or 1)

    def to_json(self) -> dict[str, Any]:
        """Return what the journal keeps."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Take what the journal kept; what is not of its kind is unprobed."""
        known: dict[str, Any] = {}
        for name in cls.__struct_fields__:
            value = kept.get(name)
            wanted: type | tuple[type, ...] = bool
            if name.endswith("_per_mb"):
                wanted = (int, float)
            elif name in ("granularity", "bytes_per_token"):
                wanted = int
            if isinstance(value, wanted) and (wanted is bool) == isinstance(value, bool):
                known[name] = value
        return cls(**known)

    def _file_mb(self, tokens: int) -> float:
        return tokens * (self.bytes_per_token or 0) / 1e6
