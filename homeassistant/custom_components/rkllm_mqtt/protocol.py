"""Read the messages of protocol 1.0: what cannot be read is None, and unknown members are ignored.

Pure: bytes in, values out. `tests/wire` of the daemon's repository holds one message of each kind.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_INFO_BYTES = 65_536
_CLIENT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TARGET = re.compile(r"[A-Za-z0-9._-]{1,64}/[a-z0-9][a-z0-9_-]{0,31}")


class Kind(StrEnum):
    """The topics of a mailbox that answers come on."""

    REPLY = "reply"
    DELTA = "delta"
    EVENT = "event"


def is_client(name: str) -> bool:
    """Return whether `name` can be the client level of a topic."""
    return _CLIENT.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the daemon serves."""

    id: str
    context_tokens: int
    loaded: bool
    capabilities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Info:
    """The static facts of a daemon."""

    schema: str
    """Version of the protocol, `major.minor`."""
    uid: str
    node: str
    base: str
    version: str
    boot_id: str
    platform: str | None
    driver: str | None
    runtime: str | None
    simulated: bool
    models: tuple[Model, ...]
    features: frozenset[str]

    @property
    def major(self) -> str:
        """Return the protocol's major version."""
        return self.schema.split(".", 1)[0]

    @property
    def default_model(self) -> Model | None:
        """Return the model that answers requests which name none."""
        return self.models[0] if self.models else None

    def model(self, model_id: str | None) -> Model | None:
        """Return a model by its id; the default one for None, None when it is not served."""
        if model_id is None:
            return self.default_model
        return next((model for model in self.models if model.id == model_id), None)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer."""

    attempt: int
    seq: int
    text: str
    thinking: str


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to a request on its way."""

    type: str
    attempt: int
    from_seq: int
    position: int | None
    eta_s: float | None
    phase: str | None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request failed."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Final:
    """The one outcome of a request."""

    text: str
    thinking: str
    tool_calls: tuple[Mapping[str, Any], ...]
    finish_reason: str
    attempt: int
    truncated: bool
    usage: Mapping[str, int]
    timing: Mapping[str, float]
    error: Fault | None
    members: Mapping[str, Any]
    """All of it, for what only some requests have."""


def parse_info(payload: str | bytes | bytearray) -> Info | None:
    """Return the facts of a retained `info` message of any protocol version; None when it is none."""
    if len(payload) > MAX_INFO_BYTES:
        return None
    members = _object(payload)
    try:
        runtime = _mapping(members.get("runtime"))
        info = Info(
            schema=str(members["schema"]),
            uid=_text(members["uid"]),
            node=_text(members["node"]),
            base=_text(members["base"]),
            version=str(members.get("version", "")),
            boot_id=str(members.get("boot_id", "")),
            platform=runtime.get("platform"),
            driver=runtime.get("driver"),
            runtime=runtime.get("version"),
            simulated=bool(runtime.get("simulated")),
            # One with a fault answers nobody: it is as if it were not there.
            models=tuple(
                _model(each) for each in members.get("models", ()) if not _mapping(each).get("fault")
            ),
            features=frozenset(str(each) for each in members.get("features", ())),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return info if _TARGET.fullmatch(f"{info.base}/{info.node}") else None


def parse_delta(payload: str | bytes | bytearray) -> Delta | None:
    """Return a delta."""
    members = _object(payload)
    try:
        return Delta(
            attempt=int(members["attempt"]),
            seq=int(members["seq"]),
            text=str(members.get("text", "")),
            thinking=str(members.get("thinking", "")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def parse_event(payload: str | bytes | bytearray) -> Event | None:
    """Return an event."""
    members = _object(payload)
    position, eta_s = members.get("position"), members.get("eta_s")
    try:
        return Event(
            type=_text(members["type"]),
            attempt=int(members.get("attempt", 0)),
            from_seq=int(members.get("from_seq", 0)),
            position=None if position is None else int(position),
            eta_s=None if eta_s is None else float(eta_s),
            phase=members.get("phase"),
        )
    except (KeyError, TypeError, ValueError):
        return None


def parse_final(payload: str | bytes | bytearray) -> Final | None:
    """Return a final answer or error."""
    members = _object(payload)
    try:
        error = members.get("error")
        return Final(
            text=_text(members["text"]),
            thinking=str(members.get("thinking", "")),
            tool_calls=tuple(_mapping(call) for call in members.get("tool_calls") or ()),
            finish_reason=str(members.get("finish_reason", "")),
            attempt=int(members.get("attempt", 0)),
            truncated=bool(members.get("truncated")),
            usage=_mapping(members.get("usage")),
            timing=_mapping(members.get("timing")),
            error=_fault(_mapping(error)) if error is not None or members["status"] != "ok" else None,
            members=members,
        )
    except (KeyError, TypeError, ValueError):
        return None


def parse_running(payload: str | bytes | bytearray) -> bool | None:
    """Return whether a `queue` message says that something runs; None when it cannot be read."""
    running = _object(payload).get("running")
    return bool(running) if isinstance(running, list) else None


def _object(payload: str | bytes | bytearray) -> Mapping[str, Any]:
    try:
        members = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(type(value))
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value


def _model(members: Any) -> Model:
    return Model(
        id=_text(members["id"]),
        context_tokens=int(members.get("context_tokens") or 0),
        loaded=bool(members.get("loaded")),
        capabilities=frozenset(str(each) for each in members.get("capabilities", ())),
    )


def _fault(members: Mapping[str, Any]) -> Fault:
    return Fault(
        code=str(members.get("code", "internal")),
        message=str(members.get("message", "")),
        hint=str(members.get("hint") or ""),
    )
