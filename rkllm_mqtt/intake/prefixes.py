"""Requests that ask for no answer: register the beginning of prompts, forget it, make it ready."""

import re
from collections.abc import Mapping
from typing import Any

from rkllm_mqtt.config import LimitsConfig
from rkllm_mqtt.core.chat import PrefixWish
from rkllm_mqtt.core.errors import Code, RequestError
from rkllm_mqtt.intake.wire import WireRequest, plain_messages

_VERBS = {"register": "register_as", "unregister": "unregister", "warm": "warm"}
"""What is asked by the names of the protocol, and our fields."""
_COMMON = frozenset({*_VERBS.values(), "messages", "tools", "model", "id", "reply_qos", "ttl_s"})
_OF_WARM = frozenset({"hold_s", "priority"})
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def prefix_wish(wire: WireRequest, limits: LimitsConfig, hold_max_s: float) -> PrefixWish | None:
    """Return what a request asks of a prefix; None for one that asks for an answer.

    Args:
        wire: As it was sent.
        limits: Of the daemon.
        hold_max_s: Longest hold that may be had, seconds; a longer wish is cut.

    Raises:
        RequestError: It asks for two things at once, or for nothing that could be done.
    """
    given = {
        verb: value for verb, field in _VERBS.items() if (value := getattr(wire, field)) not in (None, False)
    }
    if not given:
        return None
    (verb, value), *others = given.items()
    if others:
        raise _invalid(f"{verb} and {others[0][0]} are both given", "Send two requests.")
    if wire.prompt is not None:
        raise _invalid(f"{verb}: a prompt has no beginning of its own", "Give `messages`.")
    name = None if value is True else value
    if name is not None and not _NAME.fullmatch(name):
        raise _invalid(f"{verb}: not a valid name", "Use 1 to 64 of A-Z a-z 0-9 . _ -.")
    if verb == "warm":
        if (name is None) == (not wire.messages):
            hint = 'Send {"warm": NAME}, or {"warm": true} with `messages` and `tools`.'
            raise _invalid("warm: it needs the name of a registered prefix, or messages", hint)
        return PrefixWish("warm", name, min(wire.hold_s or 0.0, hold_max_s))
    if verb == "unregister" or not wire.messages:
        return PrefixWish("unregister", name)
    return PrefixWish("register", name, ttl_s=min(wire.ttl_s or limits.prefix_ttl_s, limits.prefix_ttl_s))


def beginning(wire: WireRequest) -> tuple[Mapping[str, Any], ...]:
    """Return the messages of a prefix; a system prompt alone will do.

    Raises:
        RequestError: Content that is not text.
    """
    return plain_messages(wire.messages or ())


def ineffective(wire: WireRequest, wish: PrefixWish) -> tuple[str, ...]:
    """Return the known fields that change nothing in a wish for a prefix."""
    used = _COMMON | (_OF_WARM if wish.verb == "warm" else frozenset())
    known = type(wire).model_fields
    return tuple(name for name in known if name in wire.model_fields_set and name not in used)


def _invalid(message: str, hint: str) -> RequestError:
    return RequestError(Code.INVALID_REQUEST, message, hint)
