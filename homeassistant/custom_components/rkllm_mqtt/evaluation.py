"""Put Home Assistant's questions with probabilities to a model, as options of one token each.

The answers that a person gave names stand beside letters or numbers: these are short, all alike, and known to
every model. What is known of the home comes first, so that all questions of a task begin in the same way.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .failure import RkllmFailure
from .protocol import Final
from .tools import canonical

_SYSTEM = "You judge what you are told about a home. Answer with nothing but one of the given answers."


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the model gets it."""

    messages: list[dict[str, str]]
    options: list[str]
    """Of the model's answer, in the order of what they stand for."""


def put_question(question: Mapping[str, Any], state: Any) -> Asked:
    """Return how to ask a question of Home Assistant: `noul` (yes or no), `choice` or `score`."""
    match question["type"]:
        case "choice":
            criteria = [f"{name}: {what}" for name, what in question["criteria"].items()]
            options = _labels(len(criteria))
            answers = "Answers:\n" + _listed(options, criteria)
        case "score":
            options = [str(number + 1) for number in range(len(question["criteria"]))]
            answers = "Levels, from the lowest to the highest:\n" + _listed(options, question["criteria"])
        case _:
            options = ["Yes", "No"]
            answers = "Answers: Yes or No"
    known = state if isinstance(state, str) else canonical(state)
    text = f"{known}\n\n{question['instructions']}\n{answers}\nAnswer only with {_either(options)}."
    return Asked([{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}], options)


def read_shares(final: Final, options: Sequence[str]) -> list[float]:
    """Return the probability of each option.

    Raises:
        RkllmFailure: The daemon has weighed something else.
    """
    try:
        weighed = {each["option"]: float(each["probability"]) for each in final.members["evaluation"]}
        return [weighed[option] for option in options]
    except (KeyError, TypeError, ValueError) as err:
        raise RkllmFailure("unreadable") from err


def expected_level(shares: Sequence[float]) -> float:
    """Return the mean level, from 0."""
    return sum(level * share for level, share in enumerate(shares))


def _labels(count: int) -> list[str]:
    if count <= len(string.ascii_uppercase):
        return list(string.ascii_uppercase[:count])
    return [str(number + 1) for number in range(count)]


def _listed(options: Sequence[str], criteria: Sequence[str]) -> str:
    return "\n".join(f"{option}: {what}" for option, what in zip(options, criteria, strict=True))


def _either(options: Sequence[str]) -> str:
    return f"{options[0]} or {options[1]}" if len(options) == 2 else f"{options[0]} to {options[-1]}"
