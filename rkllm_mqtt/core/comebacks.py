"""Which beginnings of prompts come again: conversations that go on, and what several prompts begin with.

Pure, bounded: it knows hashes and counts, no texts.
"""

from collections import OrderedDict, deque
from typing import Any

from msgspec import Struct, field

from rkllm_mqtt.core.prefix import Chain

_STATES = 8
"""Conversations of a client that are remembered."""


class _Client(Struct):
    asked: int = 0
    """Prompts after its first."""
    returned: int = 0
    """Of them, those that went on from an earlier one."""
    states: "deque[tuple[int, str]]" = field(default_factory=lambda: deque(maxlen=_STATES))
    """Of what runs have left: the end and the digest of what the next prompt begins with."""


class Comebacks:
    """What has been seen of the prompts so far."""

    def __init__(self, clients: int = 1000, beginnings: int = 8192) -> None:
        """Bound what is remembered; who was not seen for longest is forgotten."""
        self._most_clients = clients
        self._most_beginnings = beginnings
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._branches: OrderedDict[str, int] = OrderedDict()

    def asked(self, client: str, prompt: Chain) -> None:
        """Take a prompt that goes into the slot."""
        known = self._clients.get(client)
        returns = False
        if known is not None and known.states:
            known.asked += 1
            returns = any(prompt.digest_at.get(end) == digest for end, digest in known.states)
            known.returned += returns
        shared = self._shared(prompt)
        if shared and not returns:
            branch = prompt.digest_at[shared]
            self._branches[branch] = self._branches.get(branch, 0) + 1
            self._branches.move_to_end(branch)
        for digest in prompt.digests:
            self._seen[digest] = None
            self._seen.move_to_end(digest)
        _bound(self._seen, self._most_beginnings)
        _bound(self._branches, self._most_beginnings // 8)

    def left(self, client: str, state: Chain, prompt_chars: int) -> None:
        """Take what a run has left, prompt and answer: a prompt of this client may go on from there."""
        known = self._clients.setdefault(client, _Client())
        self._clients.move_to_end(client)
        # Up to the mark that announces the answer: behind it there is no cut in the next prompt.
        asked = max((end for end in state.ends if end < prompt_chars), default=prompt_chars)
        before = next((each for each in known.states if state.digest_at.get(each[0]) == each[1]), None)
        if before is not None:
            known.states.remove(before)
        known.states.append((asked, state.digest_at.get(asked, "")))
        _bound(self._clients, self._most_clients)

    def chance(self, client: str) -> float:
        """Return how likely a client comes back to where it was, 0 to 1; half for one that is not known."""
        known = self._clients.get(client, _Client())
        return (known.returned + 1) / (known.asked + 2)

    def branches(self, chain: Chain) -> list[tuple[int, float]]:
        """Return where prompts that begin so have parted, characters, and how likely another one does."""
        counts = [self._branches.get(digest, 0) for digest in chain.digests]
        return [(end, 1 - 0.5**count) for end, count in zip(chain.ends, counts, strict=True) if count]

    def _shared(self, prompt: Chain) -> int:
        """Return how many characters of the beginning have been seen before."""
        low, high = 0, len(prompt.digests)
        while low < high:
            middle = (low + high) // 2
            if prompt.digests[middle] in self._seen:
                low = middle + 1
            else:
                high = middle
        return prompt.ends[low - 1] if low else 0


def _bound(remembered: "OrderedDict[str, Any]", most: int) -> None:
    while len(remembered) > most:
        remembered.popitem(last=False)
