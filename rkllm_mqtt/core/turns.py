"""A conversation in turns: what can be left out of it when it does not fit, and what cannot.

Pure. A turn begins with a user's message and ends before the next one: its answer, the tools that were called
and what they said belong to it, and none of them makes sense without the others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

Message = Mapping[str, Any]


class Fitted(Struct, frozen=True):
    """A conversation that fits."""

    messages: tuple[Message, ...]
    left_out: int = 0
    """Messages that were left out, the oldest."""


def split_turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Return the system messages in front, and the turns in order; the last one is the question."""
    head: list[Message] = []
    turns: list[list[Message]] = []
    for message in messages:
        if not turns and message["role"] == "system":
            head.append(message)
        elif message["role"] == "user" and not (turns and turns[-1][-1]["role"] == "user"):
            turns.append([message])
        elif turns:
            turns[-1].append(message)
        else:  # a conversation that begins with an answer
            turns.append([message])
    return head, turns


def fit(messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]) -> Fitted | None:
    """Return the conversation with as many of its newest turns as fit; None when not even the last one does.

    Args:
        messages: System messages in front, the question at the end.
        fits: Whether a part of it does; if it does, so does every shorter one. Asked a few times only.
    """
    if fits(messages):
        return Fitted(tuple(messages))
    head, turns = split_turns(messages)
    few, many = 1, len(turns) - 1  # the whole does not fit
    best: tuple[Message, ...] | None = None
    while few <= many:
        kept = (few + many + 1) // 2
        shorter = (*head, *(message for turn in turns[-kept:] for message in turn))
        if fits(shorter):
            best, few = shorter, kept + 1
        else:
            many = kept - 1
    return None if best is None else Fitted(best, len(messages) - len(best))
