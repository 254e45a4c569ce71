"""Decide what a probe asks of a runtime next, with which prompts, and what the answers mean.

Pure. How many tokens of a prompt were computed tells a reused beginning from a computed one. The prompts are
single letters with blanks between them, a token each in nearly every vocabulary, so that positions are known;
two prompts part in the middle of the older one, where no token can merge over its end.
"""

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any

from msgspec import Struct

from rkllm_mqtt.core.cachefacts import CacheFacts

LENGTH = 128
"""Letters of a prompt: half a second on an RK3588 with 1.5 billion parameters."""
PARTINGS = (113, 90, 67, 48, 31)
"""Letters that two prompts have in common, from the longest on; the remainders of the usual blocks differ."""
_FEW = 24
"""Made in the answer whose tokens are to be matched, half of them are."""
_MOST_MADE = 128
_CLEAR_MS = 50.0
_SAME, _FASTER = 0.8, 0.5
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"

GIVEN_UP = 2
"""Beginnings without an end after which a step is left alone."""

STEPS = ("reuse", "aborted", "generated", "files")
"""In this order; each is a few runs, and may be interrupted and begun anew."""
_NEED_REUSE = ("generated", "files")
_OF_FILES: Mapping[str, Any] = dict.fromkeys(("load_s_per_mb", "save_s_per_mb", "bytes_per_token"))


class Computed(Struct, frozen=True):
    """What one run told."""

    tokens: int | None
    """Of its prompt, those that were computed; None where the runtime does not tell."""
    ms: float
    """To its first token."""
    finished: bool = True
    """It was not aborted."""


def next_step(facts: CacheFacts, done: Sequence[str], begun: Mapping[str, int]) -> str | None:
    """Return the step to run next; None when there is nothing more to learn.

    Args:
        facts: What is known.
        done: Steps that have ended.
        begun: How often each began and did not end: one that fails twice is left alone.
    """
    for step in STEPS:
        if step in done or begun.get(step, 0) >= GIVEN_UP:
            continue
        if step not in _NEED_REUSE or facts.can_reuse:
            return step
    return None


def without(step: str) -> Mapping[str, Any]:
    """Return the facts that must not be believed when a step has failed."""
    return _OF_FILES if step == "files" else {}


def failed(begun: Mapping[str, int]) -> tuple[str, ...]:
    """Return the steps that are left alone since the library failed in them."""
    return tuple(step for step in STEPS if begun.get(step, 0) >= GIVEN_UP)


def letters(seed: int, changed: int | None = None, count: int = LENGTH) -> str:
    """Return a prompt; with another seed it has another beginning.

    Args:
        seed: Any number.
        changed: The letter at this place, from 0, is another one, and all others are the same.
        count: Letters.
    """
    state, text = seed * 2654435761 % 2**32, []
    for place in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        letter = (state >> 16) + (place == changed)
        text.append(f" {_ALPHABET[letter % len(_ALPHABET)]}")
    return "".join(text)


def is_reused(whole: Computed, again: Computed) -> bool | None:
    """Return whether the second of two prompts that begin alike was computed on what the first left.

    Where the runtime tells no tokens, the times decide if they are long enough; None: nobody can tell.
    """
    if whole.tokens is not None and again.tokens is not None:
        return again.tokens * 4 < whole.tokens * 3 if whole.tokens * 4 >= LENGTH else None
    if whole.ms < _CLEAR_MS:
        return None
    share = again.ms / whole.ms
    return True if share < _FASTER else False if share > _SAME else None


def granularity_of(matched: Sequence[int]) -> int | None:
    """Return of what the matched lengths are multiples, the largest possible: it promises least."""
    return gcd(*matched) or None


def to_make(granularity: int) -> int | None:
    """Return how many tokens an answer needs, that half of it shows whether it is matched; None: too many."""
    wanted = max(_FEW, 4 * granularity)
    return wanted if wanted <= _MOST_MADE else None


def holds_answer(prompt: int, said: int, tail: int, computed: int) -> bool:
    """Return whether a prompt that goes on from an answer was computed on that answer too.

    Args:
        prompt: Tokens of the prompt that was answered.
        said: Tokens of the answer that the new prompt repeats.
        tail: Tokens behind them that are new.
        computed: Tokens of the new prompt that were computed.
    """
    return prompt + said + tail - computed >= prompt + said / 2
