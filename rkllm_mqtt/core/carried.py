"""What a job takes along when it leaves the slot before its answer is complete, so that the answer can go on.

Pure. The model's own text goes behind the prompt of the next run; the worker reads it again, showing nothing,
so that stop strings, thoughts, tool calls and repetitions go on where they were.
"""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict


class Carried(Struct, frozen=True):
    """An answer so far; everything that was published of it is in here, and stays valid."""

    raw: tuple[str, ...] = ()
    """The text as the model made it, marks and all, a piece for each token."""
    tokens: int = 0
    text: str = ""
    """What its sender sees of it."""
    thinking: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    deltas: int = 0
    """Deltas published; the next one's `seq`."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cached_estimated: bool = False
    queue_ms: float = 0.0
    """From acceptance to the first entry into the library."""
    ttft_ms: float | None = None
    """From acceptance to the first token; None when there is none yet."""
    prefill_ms: float | None = None
    """Up to the first token, in all runs so far."""
    generate_ms: float | None = None

    @property
    def behind_prompt(self) -> str:
        """Return what to append to the prompt.

        White space at its end is left to the model: it belongs to the next token in most vocabularies, and
        a prompt that ends with it leads to another token than the one that would have come.
        """
        return "".join(self.raw).rstrip()

    def to_json(self) -> str:
        """Return the canonical JSON of this value."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Carried":
        """Return the value that `to_json` wrote."""
        values = json.loads(text)
        values["raw"] = tuple(values["raw"])
        values["tool_calls"] = tuple(values["tool_calls"])
        return cls(**values)
