"""Find the beginning that all prompts of a conversation's next questions have in common, as text.

Rule: it ends where a message begins, since tokens never join over a special token there.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from .renderer import Rendered

Messages = Sequence[Mapping[str, object]]

_QUESTIONS = ("0", "x")
"""Two questions that differ in their first token."""


def beginning_of(render: Callable[[Messages], Rendered], messages: Messages) -> Rendered:
    """Return the prompt of the messages up to where the next question would begin.

    A conversation that ends with a question, or with results of tools, is asked as it is: its whole prompt is
    returned.

    Args:
        render: Makes the prompt of a conversation.
        messages: What comes before the question; empty: what the template itself puts there.

    Raises:
        RenderError: The template refuses this conversation.
    """
    if messages and messages[-1].get("role") in ("user", "tool"):
        return render(messages)
    first, second = (render([*messages, _question(text)]) for text in _QUESTIONS)
    common = _common(first.text, second.text)
    borders = (first.text.rfind(special, 0, common) for special in (*first.specials, *first.stops) if special)
    border = max(borders, default=-1)
    cut = border if border >= 0 and _is_header(first.text[border:common], render) else common
    return replace(first, text=first.text[:cut], opens_thinking=False, begun="")


def _is_header(text: str, render: Callable[[Messages], Rendered]) -> bool:
    """Return whether a text is what comes before any question, not a part of this conversation.

    Where a template has no message of its own for the system prompt, that is in the question's message.
    """
    first, second = (render([_question(question)]).text for question in _QUESTIONS)
    return first[: _common(first, second)].endswith(text)


def _question(text: str) -> Mapping[str, object]:
    return {"role": "user", "content": text}


def _common(a: str, b: str) -> int:
    return next((at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), len(a))
