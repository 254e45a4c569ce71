"""The tools of a request and what it says about their use, checked field by field."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rkllm_mqtt.content.schema import depth_of
from rkllm_mqtt.core.errors import Code, RequestError

MAX_TOOLS = 128
_DEEPEST = 32

ToolName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"\S")]


class ToolFunction(BaseModel):
    """What a tool is called and what it takes."""

    # Members that we do not know are shown to the model as they are.
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """One tool in the shape of the OpenAI API."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    type: Literal["function"] = "function"
    function: ToolFunction


class Wish(NamedTuple):
    """Which tools may be called, and which must be."""

    tools: tuple[Mapping[str, Any], ...] = ()
    choice: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    """The one tool that must be called."""


def wish_of(tools: Sequence[Tool], choice: object) -> Wish:
    """Return what a request wants done with its tools.

    Args:
        tools: Of the request; without any, nothing can be chosen.
        choice: `none`, `auto`, `required`, the object that names a tool, or None.

    Raises:
        RequestError: Two tools have one name, a schema is too deep, or the choice is none of these.
    """
    if not tools:
        return Wish()
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise _refusal("tools: two tools have the same name", "Give each tool a name of its own.")
    plain = tuple(
        {"type": "function", "function": tool.function.model_dump(exclude_none=True)} for tool in tools
    )
    if depth_of(plain) > _DEEPEST:
        raise _refusal(f"tools: nested deeper than {_DEEPEST} levels", "Flatten the parameters.")
    match choice:
        case None | "auto":
            return Wish(plain)
        case "none":
            return Wish(plain, "none")
        case "required":
            return Wish(plain, "required")
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        raise _refusal(
            "tool_choice: it is neither none, auto or required, nor names a tool of this request",
            'Send "required", or {"type": "function", "function": {"name": ...}} with the name of a tool.',
        )
    return Wish(plain, "required", name)


def _refusal(message: str, hint: str) -> RequestError:
    return RequestError(Code.INVALID_REQUEST, message, hint)
