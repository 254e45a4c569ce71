"""The marks of tool calls in an answer: what begins one, what ends it, and what may still become one.

Pure. What is recognised is the same for every family: a model that was tuned further writes another family's
form, and a small one mixes them. `dialects` says what each family is asked to write.
"""

import re
from collections.abc import Mapping
from enum import Enum, auto

from rkllm_mqtt.content.offer import Offer, without_prefix
from rkllm_mqtt.content.reading import ARGUMENT_KEYS, LIST_KEYS, NAME_KEYS, SEPARATOR

OPENINGS: Mapping[str, str] = {
    "<tool_call>": "</tool_call>",  # Qwen, Hermes
    "<|tool_call|>": "<|/tool_call|>",  # Phi-4
    "<start_function_call>": "<end_function_call>",  # FunctionGemma
    "<｜tool▁call▁begin｜>": "<｜tool▁call▁end｜>",  # DeepSeek
    "<function=": "</function>",  # Qwen3-Coder within <tool_call>, Llama 3.1 by itself
    "<|python_tag|>": "",  # Llama 3: to the end of the message
    "[TOOL_CALLS]": "",  # Mistral: likewise
}
"""Marks that begin a call anywhere, and what ends it; empty is the end of the answer or the next mark."""

RESULTS = (
    "<tool_response>",
    "<|tool_response|>",
    "<start_function_response>",
    "[TOOL_RESULTS]",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁output▁begin｜>",
)
"""A model that writes one of these plays the tool's part: its answer was over before."""

AROUND = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
"""Marks around several calls, each of which has its own."""

STRAY = (*filter(None, OPENINGS.values()), *AROUND, SEPARATOR, "[ARGS]", "[CALL_ID]", "</tool_response>")
"""Marks that mean nothing without what comes before them."""

MARKS = (*OPENINGS, *RESULTS, *STRAY)

any_mark = re.compile("|".join(map(re.escape, sorted(MARKS, key=len, reverse=True))))
"""Finds the first mark of a text."""

_BEGINNINGS = frozenset(mark[:length] for mark in MARKS for length in range(len(mark) + 1))

_LONGEST_HEAD = 300
_LANGUAGES = ("tool_code", "tool_call", "tool_calls", "json", "")
_FENCE_HEAD = re.compile(r"```[ \t]*([\w+-]*)[ \t]*(\r?\n)?")
_TYPE_HEAD = re.compile(r"""["']?type["']?\s*:\s*["'](\w*)""")
_TYPE_BEGUN = re.compile(r"""["']?type["']?\s*:?\s*["']?\Z""")
_PYTHON_HEAD = re.compile(r"([A-Za-z_][\w.\-]*)(\(?)")


class Likeness(Enum):
    """Whether a text that has begun so is a call."""

    NO = auto()
    OPEN = auto()
    """More of it will tell."""
    YES = auto()
    """It names an offered tool, or only a call begins so."""


def mark_at(text: str, at: int) -> str | None:
    """Return the mark at a place, an empty string where one may have begun, None where there is none."""
    found = any_mark.match(text, at)
    if found:
        return found[0]
    rest = text[at : at + 32]
    if at + len(rest) == len(text) and rest in _BEGINNINGS:
        return ""
    return None


def cut_mark_at_end(text: str, *, complete: bool) -> str:
    """Return a text that has ended without the beginning of a mark at its end.

    A single character stays where the model ended the text itself: nobody writes half a mark, but many a `<`.
    """
    for length in range(min(len(text), 32), 1 if complete else 0, -1):
        if text[-length:] in _BEGINNINGS:
            return text[:-length]
    return text


def without_marks(text: str) -> str:
    """Return a text that was no call after all, without the marks in it."""
    previous = None
    while previous != text:  # what is left of two marks may be one
        previous, text = text, any_mark.sub("", text)
    return cut_mark_at_end(text, complete=True)


def fence_head(text: str, offer: Offer) -> tuple[Likeness, int]:
    """Return whether a text that begins with ``` fences a call, and where its inside begins."""
    found = _FENCE_HEAD.match(text)
    if found is None:  # not yet three of them
        return (Likeness.OPEN if "```".startswith(text) else Likeness.NO), 0
    language, line_end = found[1].lower(), found[2]
    if not line_end:
        begun = found.end() == len(text) and any(name.startswith(language) for name in _LANGUAGES)
        return (Likeness.OPEN if begun else Likeness.NO), 0
    if language not in _LANGUAGES:
        return Likeness.NO, 0
    if language.startswith("tool_"):
        return Likeness.YES, found.end()
    inside = text[found.end() :].lstrip()
    if not inside:
        return Likeness.OPEN, 0
    if inside[0] not in "{[":
        return Likeness.NO, 0
    return bare_head(inside, offer), found.end()


def bare_head(text: str, offer: Offer) -> Likeness:
    """Return whether a text that begins with { or [ is a call without any mark."""
    rest = text.lstrip()
    if rest.startswith("["):
        rest = rest[1:].lstrip()
        if rest and rest[0] != "{":
            return _python_head(rest, offer)
    if not rest:
        return Likeness.OPEN
    likeness = _object_head(rest[1:].lstrip(), offer)
    return Likeness.NO if likeness is Likeness.OPEN and len(rest) > _LONGEST_HEAD else likeness


def _python_head(rest: str, offer: Offer) -> Likeness:
    found = _PYTHON_HEAD.match(rest)
    if found is None:
        return Likeness.NO
    if found[2]:
        return Likeness.YES if offer.find(found[1]) else Likeness.NO
    return Likeness.OPEN if found.end() == len(rest) and offer.may_become(found[1]) else Likeness.NO


def _object_head(rest: str, offer: Offer) -> Likeness:
    """Look at the first key of an object, and at its value where that tells more."""
    if not rest:
        return Likeness.OPEN
    quote = rest[0] if rest[0] in "\"'" else ""
    found = re.match(rf"{quote}([^{quote}]*)({quote})" if quote else r"(\w+)(?=\W)", rest)
    if found is None:
        key = rest[len(quote) :]
        known = (*NAME_KEYS, *ARGUMENT_KEYS, *LIST_KEYS, "type")
        begun = any(one.startswith(key) for one in known) or (key != "" and offer.may_become(key))
        return Likeness.OPEN if begun and (quote or key.isidentifier()) else Likeness.NO
    key = found[1]
    if key in NAME_KEYS:
        return _name_head(rest[found.end() :].lstrip(), offer)
    if key in ARGUMENT_KEYS or key in LIST_KEYS or offer.find(key):
        return Likeness.YES
    return _type_head(rest) if key == "type" else Likeness.NO


def _name_head(rest: str, offer: Offer) -> Likeness:
    value = rest[1:].lstrip() if rest.startswith(":") else rest
    if not value:
        return Likeness.OPEN
    if value[0] == "{":
        return Likeness.YES
    if value[0] not in "\"'":
        return Likeness.NO
    written, end, _ = value[1:].partition(value[0])
    if end:
        return Likeness.YES if offer.find(written) else Likeness.NO
    return Likeness.OPEN if offer.may_become(without_prefix(written)) else Likeness.NO


def _type_head(rest: str) -> Likeness:
    found = _TYPE_HEAD.match(rest)
    if found is None:
        return Likeness.OPEN if _TYPE_BEGUN.match(rest) else Likeness.NO
    if found[1] == "function":
        return Likeness.YES
    return Likeness.OPEN if found.end() == len(rest) and "function".startswith(found[1]) else Likeness.NO


class BracketSpan:
    """Finds where the bracket that a growing text begins with is closed; looks at each character once."""

    _TELLING = re.compile(r'["\'\\\[\](){}]')

    def __init__(self) -> None:
        self._at = 0
        self._depth = 0
        self._quote = ""

    def end(self, text: str) -> int | None:
        """Return the length of the bracketed text, None while it is open; each call brings more of it."""
        while found := self._TELLING.search(text, self._at):
            character, self._at = found[0], found.end()
            if character == "\\":
                self._at += 1 if self._quote else 0
            elif self._quote:
                self._quote = "" if character == self._quote else self._quote
            elif character == '"' or (character == "'" and _opens_value(text, found.start())):
                self._quote = character
            elif character in "[({":
                self._depth += 1
            elif character in "])}":
                self._depth -= 1
                if self._depth <= 0:
                    return self._at
        self._at = max(self._at, len(text))
        return None


def _opens_value(text: str, at: int) -> bool:
    """Return whether a single quote stands where a string begins; elsewhere it is an apostrophe."""
    while at > 0 and text[at - 1].isspace():
        at -= 1
    return at > 0 and text[at - 1] in "[({:,="
