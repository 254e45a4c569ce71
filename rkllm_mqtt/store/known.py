"""Which ids the journal may hold, told at once and without a look at the disk.

Rule: "no" is certain, "perhaps" is not. An id that is perhaps known waits for the journal's own word.
"""

from collections.abc import Iterable

Key = tuple[str, str, str]
"""Target, client and id."""

_BITS = 1 << 20
"""128 KiB. With 50,000 ids one new id in a hundred is perhaps known."""
CROWDED = 50_000


class KnownIds:
    """A Bloom filter: two bits for each id; one that was removed stays perhaps known."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._bits = bytearray(_BITS >> 3)
        self._added = 0
        for key in keys:
            self.add(key)

    @property
    def is_crowded(self) -> bool:
        """Return whether so many were added that a new filter, of what is there now, is worth its making."""
        return self._added >= CROWDED

    def add(self, key: Key) -> None:
        """Take note of an id."""
        number = hash(key)
        one, other = number % _BITS, (number >> 32) % _BITS
        self._bits[one >> 3] |= 1 << (one & 7)
        self._bits[other >> 3] |= 1 << (other & 7)
        self._added += 1

    def may_hold(self, key: Key) -> bool:
        """Return False when this id was never added."""
        number = hash(key)
        one, other = number % _BITS, (number >> 32) % _BITS
        bits = self._bits
        return bool(bits[one >> 3] >> (one & 7) & 1 and bits[other >> 3] >> (other & 7) & 1)
