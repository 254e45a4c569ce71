"""The tree of errors; the class says whose turn it is.

RkllmMqttError
├── ConfigError        the operator must act; names file, line and key; exit status 78
├── RequestError       the sender's fault; becomes an error answer with a stable code
└── SlotError          the NPU's fault
    ├── ModelUnavailable   the model cannot be loaded: `model_error` with a hint
    └── SlotLost           the worker is gone in the middle of a run; the job may run again

The journal's errors live beside it (`store.errors`): only the daemon's edges see them.
"""

from enum import StrEnum

from msgspec import Struct


class Code(StrEnum):
    """The closed list of error codes of protocol 1.0."""

    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    UNKNOWN_MODEL = "unknown_model"
    QUEUE_FULL = "queue_full"
    CLIENT_LIMIT = "client_limit"
    RATE_LIMITED = "rate_limited"
    ID_CONFLICT = "id_conflict"
    EXPIRED = "expired"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting_down"
    REPLY_TOPIC_DENIED = "reply_topic_denied"
    CONTEXT_OVERFLOW = "context_overflow"
    INVALID_OUTPUT = "invalid_output"
    MODEL_ERROR = "model_error"
    SLOT_FAILED = "slot_failed"
    INTERNAL = "internal"


RETRYABLE = frozenset(
    {
        Code.QUEUE_FULL,
        Code.CLIENT_LIMIT,
        Code.RATE_LIMITED,
        Code.TIMEOUT,
        Code.PAUSED,
        Code.SHUTTING_DOWN,
        Code.MODEL_ERROR,
        Code.SLOT_FAILED,
        Code.INTERNAL,
    }
)
"""Codes where the same request may succeed later."""


class Fault(Struct, frozen=True):
    """An error as it goes on the wire."""

    code: Code
    message: str
    hint: str = ""
    retry_after_s: float | None = None
    eta_s: float | None = None
    """When the answer would begin; None where that is not the reason."""

    @property
    def retryable(self) -> bool:
        """Return whether the same request may succeed later."""
        return self.code in RETRYABLE


class RkllmMqttError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(RkllmMqttError):
    """The configuration cannot be used; the message names file, line and key."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RequestError(RkllmMqttError):
    """A request cannot be taken; `fault` is what its sender is told."""

    def __init__(
        self, code: Code, message: str, hint: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.fault = Fault(code, message, hint, retry_after_s)


class SlotError(RkllmMqttError):
    """The slot cannot do what it was asked."""


class ModelUnavailable(SlotError):
    """The model cannot be loaded now."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SlotLost(SlotError):
    """The worker process ended, or was ended because it hung."""

    def __init__(self, reason: str, *, deliberate: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.deliberate = deliberate
        """We replaced the worker ourselves: no fault of the job that was in it."""
