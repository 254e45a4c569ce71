"""Decide what may run together in a batch, and whether batches are worth it.

Pure. A step of a batch makes a token for each column and takes longer than a step of a single run; the gain
is how many tokens a full batch makes in the time in which a single run makes one.
"""

import json
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Literal

from msgspec import Struct, field

from rkllm_mqtt.core.chat import ChatRequest

Off = Literal["", "crash", "gain"]

WORTH = 1.2
"""A batch that gains less is not worth the wait for others, nor its memory."""
_KEPT = 16
_SURE = 4
"""Columns that must have been measured before batches are judged."""
_LEAST_STEPS = 8
_LEAST_MS = 1.0
"""A model this fast is not what batches are for, and most of its step is our own time."""


def may_share(a: ChatRequest, b: ChatRequest) -> bool:
    """Return whether two requests can be columns of one batch: one model, adapter and sampling."""
    return a.model == b.model and a.lora == b.lora and dict(a.sampling) == dict(b.sampling)


def step_ms(tokens: int, generate_ms: float | None) -> float | None:
    """Return the time of a step of a run that made so many tokens; None where that was not measured.

    Args:
        tokens: The first one included.
        generate_ms: From the first token to the end.
    """
    if generate_ms is None or tokens <= _LEAST_STEPS:
        return None
    each = generate_ms / (tokens - 1)
    return each if each >= _LEAST_MS else None


class BatchRecord(Struct):
    """What is known of the batches of one model with one runtime."""

    version: str | None = None
    """Of the runtime; None before it was ever loaded."""
    off: Off = ""
    """Why prompts run one by one."""
    why: str = ""
    single_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Steps of single runs."""
    batch_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Steps of batches, one for each column that was long enough."""
    measuring: bool = False
    """The next prompts run one by one, to learn how long a single step takes."""

    def columns(self, wanted: int) -> int:
        """Return how many columns to load a model with for which `wanted` are configured."""
        return 1 if self.off or self.measuring else wanted

    @property
    def needs_single(self) -> bool:
        """Return whether batches were measured, and there is nothing to hold them against."""
        return bool(self.batch_ms) and not self.single_ms and not self.off

    @property
    def well_measured(self) -> bool:
        """Return whether more measurements of batches would tell nothing new."""
        return len(self.batch_ms) == _KEPT

    def gain(self, columns: int) -> float | None:
        """Return how many times faster a full batch makes tokens than single runs; None: nobody knows."""
        if len(self.batch_ms) < _SURE or not self.single_ms:
            return None
        return columns * median(self.single_ms) / median(self.batch_ms)

    def judge(self, columns: int) -> None:
        """Switch batches off that gain too little."""
        gain = self.gain(columns)
        if gain is not None and gain < WORTH and not self.off:
            self.off = "gain"
            self.why = f"{columns} at once are {gain:.2f} times as fast as one by one"

    def lose(self, reason: str) -> None:
        """Switch batches off: the library was lost in one."""
        self.off, self.why, self.measuring = "crash", reason, False

    def try_again(self) -> None:
        """Forget why batches are off, and how fast they were."""
        self.off, self.why = "", ""
        self.batch_ms.clear()

    def to_json(self) -> str:
        """Return what is to be kept over a restart."""
        singles: Sequence[float] = [round(ms, 3) for ms in self.single_ms]
        return json.dumps({"version": self.version, "off": self.off, "why": self.why, "single_ms": singles})

    @classmethod
    def from_json(cls, text: str) -> "BatchRecord":
        """Return the record that `to_json` wrote; an empty one for anything else."""
        try:
            kept = json.loads(text)
            singles = deque([float(ms) for ms in kept["single_ms"] if ms > 0], maxlen=_KEPT)
            off: Off = "crash" if kept["off"] == "crash" else "gain" if kept["off"] == "gain" else ""
            return cls(kept["version"], off, str(kept["why"]), singles)
        except (ValueError, KeyError, TypeError):
            return cls()
