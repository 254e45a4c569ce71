"""The jinja2 sandbox in which chat templates run, with the conventions of Hugging Face's templates.

Rule 1: nothing volatile goes in. The clock stands still: a prompt's bytes depend on the conversation only.
Rule 2: a template can neither reach Python nor the file system, and what it can spend is bounded.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateNotFound, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.loaders import FunctionLoader
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

FIXED_DATE = datetime(2024, 7, 26, tzinfo=UTC)
"""What `strftime_now` shows; Llama's published templates fall back to the same day where there is no clock.
The real date would change the prompt's first tokens at midnight and cost every prefix cache: it belongs into
a message."""


class RaisedByTemplate(TemplateError):
    """The template called `raise_exception`: it does not accept this conversation."""


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """An environment for the templates of one renderer.

    Args:
        sources: Template texts by name; a template may include the others, and nothing else.
        max_chars: No string grows beyond this by repetition.
    """

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, sources: Mapping[str, str], max_chars: int) -> None:
        self._sources = sources
        self._max_chars = max_chars
        super().__init__(
            loader=FunctionLoader(self._find),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            autoescape=False,
            auto_reload=False,
            extensions=[loopcontrols, GenerationBlock],
        )
        self.filters["tojson"] = to_json
        self.globals.update(raise_exception=_raise_exception, strftime_now=FIXED_DATE.strftime)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiply, unless the result would be a string or a number too large to be a part of a prompt."""
        if operator == "**" or (isinstance(left, int) and isinstance(right, int)):
            if max(abs(left), abs(right)) > 1_000_000_000 or (operator == "**" and abs(right) > 64):
                raise SecurityError(f"the numbers in an {operator!r} are too large")
        else:
            for text, count in ((left, right), (right, left)):
                if (
                    isinstance(count, int)
                    and hasattr(text, "__len__")
                    and len(text) * count > self._max_chars
                ):
                    raise SecurityError("a repetition makes the text too long")
        return super().call_binop(context, operator, left, right)

    def _find(self, name: str) -> tuple[str, str, Callable[[], bool]]:
        if name not in self._sources:
            raise TemplateNotFound(name)
        # The name serves as the file name: it appears in the traceback, which is where the line is found.
        return self._sources[name], name, lambda: True


class GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks text for training; in a prompt it is its content."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the content of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON text for a prompt: compact, characters as they are, no HTML escapes.

    The order of keys is the value's: what reaches a template is in canonical order already.

    Raises:
        ValueError: NaN or infinity, which JSON has not.
    """
    if separators is None:
        separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        allow_nan=False,
    )


def _raise_exception(message: object) -> NoReturn:
    raise RaisedByTemplate(str(message))
