"""Choose the beginning of prompts that is worth most to have in the KV cache when the next question comes.

Pure. There is one KV cache: what is brought in takes the place of what is there.

Rule 1: a beginning is worth its expected saving: how likely it is asked for within the hour, times the time
    that it saves until the first token. It is brought in when what is there is clearly worth less.
Rule 2: what is computed in idle time is a bounded part of the time: power and heat are not free.
Rule 3: a beginning that nobody has registered is found when several requests share it, and forgotten again.
"""

from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct, field

from rkllm_mqtt.core.prefix import Chain
from rkllm_mqtt.core.prefixes import Uses

_CLEARLY = 1.2
"""A beginning must be worth so many times what is there, or two of them would take turns for ever."""
_LEAST_S = 0.05
"""Expected saving that is worth a run."""


class Candidate(Struct, frozen=True):
    """A beginning of prompts."""

    name: str
    per_hour: float
    """Uses expected within the hour."""
    saves_s: float
    """Time to the first token that it saves when all of it is in the KV cache."""
    there_s: float
    """The same of what is there of it now."""

    @property
    def chance(self) -> float:
        """Return how likely it is asked for within the hour."""
        return min(1.0, self.per_hour)


def next_to_warm(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the beginning to bring in now; None: what is there is good enough."""
    there_s = sum(each.chance * each.there_s for each in candidates)
    best = max(candidates, key=lambda each: each.chance * each.saves_s, default=None)
    if best is None or best.saves_s - best.there_s < _LEAST_S:
        return None
    worth_s = best.chance * best.saves_s
    return best if worth_s - there_s >= _LEAST_S and worth_s >= _CLEARLY * there_s else None


class Budget(Struct):
    """Seconds of slot time that may be spent in idle time, as a bucket that fills."""

    share: float = 0.25
    most_s: float = 120.0
    left_s: float = 120.0
    _at: float | None = None

    def has(self, seconds: float, now: float) -> bool:
        """Return whether so much may be spent now; a beginning longer than all of it may when it is full."""
        if self._at is not None:
            self.left_s = min(self.most_s, self.left_s + self.share * max(0.0, now - self._at))
        self._at = now
        return self.left_s >= min(seconds, self.most_s)

    def spend(self, seconds: float) -> None:
        """Take what was used."""
        self.left_s -= seconds


class Sighted(Struct, eq=False):
    """A beginning that requests have in common."""

    client: str
    """Whose request showed it last."""
    model: str
    lora: str | None
    text: str
    chain: Chain
    uses: Uses = field(default_factory=Uses)
    count: int = 0


class Sightings(Struct):
    """The latest prompts, and what they have in common with others before them."""

    prompts: int = 8
    """Kept."""
    most: int = 8
    """Beginnings kept; the one not seen for longest goes."""
    least_chars: int = 400
    """Of a beginning: about a hundred tokens."""
    least_count: int = 3
    """Requests that share it before it is believed."""
    _prompts: OrderedDict[str, tuple[str, Chain]] = field(default_factory=OrderedDict)
    _found: OrderedDict[str, Sighted] = field(default_factory=OrderedDict)

    def see(
        self, client: str, model: str, lora: str | None, text: str, chain: Chain, *, day: int, hour: int
    ) -> None:
        """Take the prompt of a request.

        Args:
            client: Who asks.
            model: That computes it.
            lora: Its adapter.
            text: The whole prompt.
            chain: Of the text.
            day: Number of the calendar's day.
            hour: Of that day.
        """
        for other, other_chain in self._prompts.values():
            chars = chain.shared(other_chain)
            if chars < self.least_chars or chars == chain.chars or other == text:
                continue
            part = chain.cut(chars)
            if part.name not in self._found:
                self._found[part.name] = Sighted(client, model, lora, text[:chars], part, count=1)
        for sighted in [each for each in self._found.values() if each.chain.begins(chain)]:
            sighted.count += 1
            sighted.client = client
            sighted.uses.count(day, hour)
            self._found.move_to_end(sighted.chain.name)
        self._keep(text, chain)

    def common(self, model: str) -> list[Sighted]:
        """Return the beginnings that several requests for a model shared."""
        return [
            each for each in self._found.values() if each.model == model and each.count >= self.least_count
        ]

    def _keep(self, text: str, chain: Chain) -> None:
        self._prompts[chain.name] = text, chain
        self._prompts.move_to_end(chain.name)
        while len(self._prompts) > self.prompts:
            self._prompts.popitem(last=False)
        while len(self._found) > self.most:
            self._found.popitem(last=False)
