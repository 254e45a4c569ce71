"""What the model wrote for our latest answers, to be put into the prompt again byte for byte.

Pure. A sender gets an answer parsed and sends it back as a message. Written anew from that message, its bytes
differ from what is in the model's KV cache (the order of arguments, white space, marks), and everything
behind the first difference would be computed again.
"""

import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

Owner = tuple[str, str]
"""Target and client: nobody's answer gets into the prompt of another."""


class Replays:
    """The latest answers of all clients, the least recently used forgotten first.

    Args:
        max_bytes: Of all texts together; a small sum per entry comes on top.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._texts: OrderedDict[bytes, bytes] = OrderedDict()

    @property
    def kept_bytes(self) -> int:
        """Return the bytes of all texts."""
        return self._bytes

    def keep(self, owner: Owner, text: str, calls: Sequence[Mapping[str, Any]], written: str) -> None:
        """Keep what the model wrote.

        Args:
            owner: Who asked.
            text: Of the answer, as its sender got it.
            calls: Of the answer, in the shape of the OpenAI API.
            written: By the model, without its thoughts.
        """
        key, value = _key(owner, text, calls), written.encode("utf-8", "replace")
        self._bytes -= len(self._texts.pop(key, b""))
        self._texts[key] = value
        self._bytes += len(value)
        while self._bytes > self._max_bytes:
            _, forgotten = self._texts.popitem(last=False)
            self._bytes -= len(forgotten)

    def find(self, owner: Owner, messages: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        """Return what the model wrote, by the place of each message that is an answer of ours."""
        found: dict[int, str] = {}
        for place, message in enumerate(messages):
            if message.get("role") != "assistant" or not self._texts:
                continue
            key = _key(owner, message.get("content") or "", message.get("tool_calls") or ())
            if key in self._texts:
                self._texts.move_to_end(key)
                found[place] = self._texts[key].decode("utf-8")
        return found


def _key(owner: Owner, text: object, calls: Sequence[Mapping[str, Any]]) -> bytes:
    """Return what equal answers have in common: neither ids of calls nor the spelling of arguments."""
    said: list[object] = [_of(call) for call in calls] if isinstance(calls, (list, tuple)) else [repr(calls)]
    whole = json.dumps([owner, text if isinstance(text, str) else repr(text), said], sort_keys=True)
    return hashlib.sha256(whole.encode("ascii")).digest()


def _of(call: object) -> list[object]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return [repr(call)]
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):  # what is no JSON stays the text it is
            arguments = json.loads(arguments)
    return [function.get("name"), arguments]
