"""Why a prompt could not be made, and whose turn it is."""

from typing import Literal

RenderFault = Literal["invalid_request", "unsupported", "too_large", "context_overflow", "model_error"]
"""No such conversation can be rendered; not by this template; too long; too many tokens; a wrong template."""


class RenderError(Exception):
    """A template cannot be read, or a conversation cannot be rendered with it.

    Attributes:
        message: What is wrong, with the template's name and, where there is one, the line.
        hint: What the operator or the sender can do.
        code: One of the protocol's error codes.
    """

    def __init__(self, message: str, hint: str, code: RenderFault = "model_error") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code: RenderFault = code
