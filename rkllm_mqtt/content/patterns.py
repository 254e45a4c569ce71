"""Say of a regular expression whether it can be run on text that nobody has chosen with care.

Pure. Python's engine tries every way in which a text can be divided among nested repetitions: `(a+)+` on
thirty letters takes minutes. Such a pattern is refused; what else can be slow is bounded by the clock of
whoever runs it.
"""

import re

MAX_PATTERN_CHARS = 256

_ENDLESS = re.compile(r"[*+]|\{\d*,\d*\}")
_COUNTED = re.compile(r"\{(\d+)\}")
_MANY = 16
"""A counted repetition beyond this is as bad as an endless one within another."""


def why_refused(pattern: str) -> str | None:
    """Return what is wrong with a pattern in words that follow its name; None when it can be run."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return f"is longer than {MAX_PATTERN_CHARS} characters"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as exc:
        return f"is no regular expression: {exc}"
    if re.search(r"\\[1-9]|\(\?P=", pattern):
        return "refers back to what it has matched"
    return "repeats a repetition" if _repeats_repetition(pattern) else None


def _repeats_repetition(pattern: str) -> bool:
    """Return whether a repeated group holds a repetition or a choice: a text may fit it in many ways."""
    open_groups = [False]
    closed = False  # whether the atom before is a group that holds a repetition or a choice
    at = 0
    while at < len(pattern):
        character = pattern[at]
        repeated = _ENDLESS.match(pattern, at) or _counted(pattern, at)
        if repeated:
            if closed:
                return True
            open_groups[-1] = True
            at = repeated.end()
            continue
        closed = False
        if character == "\\":
            at += 1
        elif character == "[":
            at = _end_of_class(pattern, at)
        elif character == "(":
            open_groups.append(False)
        elif character == "|":
            open_groups[-1] = True
        elif character == ")" and len(open_groups) > 1:
            closed = open_groups.pop()
            open_groups[-1] |= closed
        at += 1
    return False


def _counted(pattern: str, at: int) -> re.Match[str] | None:
    found = _COUNTED.match(pattern, at)
    return found if found and int(found[1]) > _MANY else None


def _end_of_class(pattern: str, at: int) -> int:
    """Return the place of the bracket that closes a character class."""
    at += 1
    if pattern[at : at + 1] == "^":
        at += 1
    first = at
    while at < len(pattern) and (pattern[at] != "]" or at == first):
        at += 2 if pattern[at] == "\\" else 1
    return at
