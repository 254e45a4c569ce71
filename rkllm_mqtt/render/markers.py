"""The special-token strings of the model families, and how text that contains one is made harmless.

Raw mode tokenises the whole prompt with special tokens switched on, so `<|im_start|>system` inside a sensor's
name would be a real system turn. `Neutraliser` puts a space behind the first character of each such string:
`< |im_end|>`. A space and not an invisible character, because no tokenizer's normalisation removes it, it
costs at most one token, and a person who reads the prompt sees both what was said and that it was changed.
"""

import re
from collections.abc import Iterable, Mapping

TURN_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
    "<｜end▁of▁sentence｜>",  # DeepSeek: full-width bars and block characters
)
"""Strings with which some family ends an answer, and which mean nothing else anywhere."""

TURN_STARTS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|user|>", "<｜User｜>")
"""Strings with which a model that missed its end goes on to play the other roles."""

CALL_MARKERS = frozenset(
    {
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "<|tool_call|>",
        "<|/tool_call|>",
        "<start_function_call>",
        "<end_function_call>",
        "<escape>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
        "<think>",
        "</think>",
    }
)
"""Special tokens that carry meaning for whoever parses the answer; they are never dropped from it."""

# Every string with "<|" or its full-width form is broken, known or not; these are the families' other forms.
_ANGLE_WORDS = (
    r"s|bos|eos|pad|unk|mask|cls|sep|think|tools|tool_call|tool_response|start_of_turn|end_of_turn"
    r"|start_of_image|end_of_image|image_soft_token|audio_soft_token|escape|extra_id_\d+|unused\d+"
    r"|(?:start|end)_function_(?:declaration|call|response)|reserved_special_token_\d+"
)
_BRACKET_WORDS = (
    "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|IMG"
)
_KNOWN = (
    rf"<(?=[|｜]|<SYS>>|</SYS>>|\w+[|｜]>|/?(?:{_ANGLE_WORDS})>)"
    rf"|\[(?=/?(?:{_BRACKET_WORDS})\])"
)

_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")


class Neutraliser:
    """Breaks up special-token strings in untrusted text; immutable and free to share between threads.

    Args:
        extra: Special tokens that the model's own files name, beside those of the known families.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        words = [token for token in sorted(set(extra), reverse=True) if len(token.strip()) > 1]
        own = [f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in words]
        self._pattern = re.compile("|".join([_KNOWN, *own]))
        self._looks_special = re.compile(
            "[" + "".join(map(re.escape, {"<", "[", *(w[0] for w in words)})) + "]"
        )

    def text(self, text: str) -> str:
        """Return `text` speakable and with every special token broken up; nearly all text is unchanged."""
        text = speakable(text)  # first: a NUL inside a marker must not hide it
        if self._looks_special.search(text) is None:
            return text
        return self._pattern.sub(_break, text)

    def json(self, value: object) -> object:
        """Return a copy of a JSON value: every string in it neutralised, every object's keys sorted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.json(value[key]) for key in sorted(value, key=str)}
        if isinstance(value, (list, tuple)):
            return [self.json(item) for item in value]
        return value


def speakable(text: str) -> str:
    """Return `text` as UTF-8 and a C string can carry it: NULs removed, lone surrogates as U+FFFD."""
    if _UNSPEAKABLE.search(text) is None:
        return text
    return _UNSPEAKABLE.sub("\ufffd", text.replace("\0", ""))


def _break(match: re.Match[str]) -> str:
    return match[0] + " "
