"""Carry out an administrator's commands and answer each with its transaction."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.core.topics import Topics
from rkllm_mqtt.logs import get_logger, set_level
from rkllm_mqtt.mqtt.messages import Outbound

log = get_logger(__name__)

_MAX_BYTES = 16_384
_LEVELS = ("debug", "info", "warning", "error")

Arguments = Mapping[str, Any]
Command = Callable[[Arguments], Awaitable[Mapping[str, Any]]]


class CommandRefused(Exception):
    """The command cannot be carried out; the message is for the administrator."""


class Admin(Struct, frozen=True):
    """The commands that this daemon has."""

    topics: Topics
    commands: Mapping[str, Command]
    publish: Callable[[Outbound], object]

    async def take(self, name: str, payload: bytes) -> None:
        """Carry out one command and publish its response; nothing a sender writes raises."""
        arguments: Arguments = {}
        try:
            arguments = _arguments(payload)
            command = self.commands.get(name)
            if command is None:
                raise CommandRefused(
                    f"there is no command {name[:64]!r}; there are: {', '.join(self.commands)}"
                )
            data = await command(arguments)
            response = {"status": "ok", "data": data, "error": None}
        except CommandRefused as exc:
            response = {"status": "error", "data": {}, "error": str(exc)}
        except Exception:
            log.exception("admin_failed", command=name)
            response = {"status": "error", "data": {}, "error": "the command failed; the log has the reason"}
        transaction = arguments.get("transaction")
        topic = self.topics.admin("response", name if name in self.commands else "unknown")
        self.publish(Outbound(topic, encode({**response, "transaction": transaction}), qos=1))
        log.info("admin_command", command=name[:64], status=response["status"])


def _arguments(payload: bytes) -> Arguments:
    if len(payload) > _MAX_BYTES:
        raise CommandRefused(f"the command has more than {_MAX_BYTES} bytes")
    if not payload.strip():
        return {}
    try:
        arguments = json.loads(payload, parse_constant=_no_constant)
        encode({"": arguments})  # a lone surrogate, or a number beyond the largest, could not be echoed
    except (ValueError, RecursionError) as exc:
        raise CommandRefused("the command is not valid JSON") from exc
    if not isinstance(arguments, dict):
        raise CommandRefused("the command is not a JSON object")
    return arguments


def _no_constant(name: str) -> None:
    raise ValueError(name)


def text_argument(arguments: Arguments, name: str) -> str:
    """Return a text argument.

    Raises:
        CommandRefused: It is missing or no text.
    """
    value = arguments.get(name)
    if not isinstance(value, str):
        raise CommandRefused(f"{name} is missing or not a text")
    return value


async def log_level(arguments: Arguments) -> Mapping[str, Any]:
    """Change what is logged; never shows the content of prompts."""
    level = text_argument(arguments, "level")
    if level not in _LEVELS:
        raise CommandRefused(f"level must be one of {', '.join(_LEVELS)}")
    set_level(level)
    return {"level": level}
