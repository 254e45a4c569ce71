"""A prompt as growing beginnings, each with a hash of all before: known again without its text.

Pure. Where a prompt is cut depends on the text before the cut only, so two prompts with the same beginning
have the same cuts in it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Self

_BLOCK_CHARS = 128
"""About 30 tokens: no message is known more finely than this."""
_MARK = re.compile(r"<\|[A-Za-z0-9_]{1,32}\|>|<(?:start|end)_of_turn>")
"""What begins or ends a message in the families of templates; tokens never join over it."""
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Chain:
    """The beginnings of one prompt, as one model with one runtime computes it."""

    fingerprint: str
    """Of all that the keys and values depend on beside the text."""
    ends: tuple[int, ...]
    """Where the beginnings end, characters, rising; the last one is the whole text."""
    digests: tuple[str, ...]
    """One for each."""
    inner: Mapping[int, str] = field(default_factory=dict, compare=False)
    """Digests of further beginnings, which are no cuts: other texts are not cut there."""

    @classmethod
    def of(cls, text: str, fingerprint: str, also: int = 0) -> Self:
        """Return the beginnings of a text, and one more that is `also` characters long."""
        cuts = _cuts(text)
        ends = sorted({*cuts, also}) if 0 < also < len(text) else cuts
        sha = blake2b(fingerprint.encode(), digest_size=_DIGEST_BYTES)
        digests: list[str] = []
        for begin, end in pairwise((0, *ends)):
            sha.update(text[begin:end].encode("utf-8", "surrogatepass"))
            digests.append(sha.copy().hexdigest())
        found = dict(zip(ends, digests, strict=True))
        inner = {} if also in cuts or also not in found else {also: found.pop(also)}
        return cls(fingerprint, tuple(found), tuple(found.values()), inner)

    @property
    def chars(self) -> int:
        """Return how long the whole text is."""
        return self.ends[-1] if self.ends else 0

    @property
    def name(self) -> str:
        """Return the hash of the whole text and all that it is computed with."""
        return self.digests[-1] if self.digests else ""

    @cached_property
    def digest_at(self) -> Mapping[int, str]:
        """Return the digests by where their beginnings end."""
        return {**self.inner, **dict(zip(self.ends, self.digests, strict=True))}

    def shared(self, other: "Chain | None") -> int:
        """Return how many characters of the beginning are known to be the same."""
        if other is None or self.fingerprint != other.fingerprint:
            return 0
        low, high = 0, len(self.ends)
        while low < high:  # what is the same at one end is the same at all before it that both have
            middle = (low + high) // 2
            if other.digest_at.get(self.ends[middle]) == self.digests[middle]:
                low = middle + 1
            else:
                high = middle
        return self.ends[low - 1] if low else 0

    def begins(self, other: "Chain") -> bool:
        """Return whether another text begins with all of this one."""
        return bool(self.ends) and self.fingerprint == other.fingerprint and other.shared(self) == self.chars

    def cut(self, chars: int) -> Self:
        """Return the chain of the longest beginning that is no longer than this."""
        count = sum(end <= chars for end in self.ends)
        return type(self)(self.fingerprint, self.ends[:count], self.digests[:count])

    def to_json(self) -> Mapping[str, Any]:
        """Return what can be kept in a file; it holds nothing of the text."""
        return {"fingerprint": self.fingerprint, "ends": self.ends, "digests": self.digests}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        ends = tuple(int(end) for end in kept["ends"])
        digests = tuple(str(digest) for digest in kept["digests"])
        if len(ends) != len(digests) or any(a >= b for a, b in pairwise((0, *ends))):
            raise ValueError("no chain of beginnings")
        return cls(str(kept["fingerprint"]), ends, digests)


def fingerprint_of(parts: Sequence[Any]) -> str:
    """Return the fingerprint of the model file, the runtime and all else that a prompt is computed with."""
    return blake2b(repr(parts).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _cuts(text: str) -> list[int]:
    """Return where the text is cut: in front of each mark, and after so many characters without one."""
    cuts: list[int] = []
    begin = 0
    for mark in (*(match.start() for match in _MARK.finditer(text)), len(text)):
        cuts.extend(range(begin + _BLOCK_CHARS, mark, _BLOCK_CHARS))
        if mark > 0:
            cuts.append(mark)
        begin = mark
    return cuts
