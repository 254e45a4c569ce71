"""Turn a conversation into the prompt text of one model, the same bytes every time.

Knows nothing of requests, jobs or the slot. `open_template` finds the template, `canonical_messages` makes
the conversation harmless and canonical, `TemplateSandbox` runs the one over the other.

Rule 1: the text depends on the arguments only: no clock, no random, no order of a sender's keys.
Rule 2: within a template nothing that a sender wrote can become a special token. Raw mode has no template.
Rule 3: one turn more leaves the earlier prompt as the beginning of the new one, in each of our own templates.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jinja2 import Template, TemplateError, TemplateSyntaxError, UndefinedError
from msgspec import Struct

from rkllm_mqtt.content.dialects import begun_call

from .conversation import (
    canonical_messages,
    canonical_tools,
    last_user_text,
    raw_text,
    replayed,
    spellings_of,
)
from .environment import RaisedByTemplate, TemplateSandbox
from .errors import RenderError
from .markers import TURN_ENDS, Neutraliser
from .offering import offer_of, with_offer, without_calls
from .template import FAMILIES, ChatTemplate, family_source, open_template

Thinking = Literal["none", "switch", "always"]
"""Whether the model thinks: never, when it is asked to (Qwen 3), or before every answer (R1, QwQ)."""

MAX_CHARS = 4_000_000
"""Longest prompt; the largest context window (16,384 tokens) holds about 80,000 characters of English."""

_TOOL_TEMPLATE = " (tools)"


class Rendered(Struct, frozen=True):
    """A prompt, and what the reader of its answer has to know."""

    text: str
    """Free of NULs and lone surrogates."""
    mode: Literal["raw", "runtime"]
    """`raw`: tokenise as is. `runtime`: the library puts its own template around it."""
    stops: tuple[str, ...]
    """Strings that end the answer: end-of-turn tokens that a runtime may print instead of obeying."""
    specials: tuple[str, ...]
    """Special tokens to be dropped from the answer; none is a stop or marks a tool call."""
    opens_thinking: bool
    """The prompt ends inside an open `<think>`."""
    begun: str = ""
    """The end of the prompt that belongs to the answer: the beginning of the call that was asked for."""
    opens_turn: bool = True
    """The prompt ends where the assistant's turn begins; without a template there are no turns."""


class Renderer:
    """Renders conversations for one model; made once, free to share between threads.

    Args:
        template: `chatml`, `llama3`, `gemma`, `phi`, `raw` (no template), `runtime` (the library's own), or
            the path of a Hugging Face template: `.jinja`, `tokenizer_config.json`, `chat_template.json`.
        thinking: How the model thinks. Only ChatML and files make a difference of it.
        system: System prompt of conversations that bring none.
        max_chars: Longest prompt, in characters.

    Raises:
        RenderError: The template does not exist, cannot be read or has a syntax error.
    """

    def __init__(
        self,
        template: str,
        *,
        thinking: Thinking = "none",
        system: str | None = None,
        max_chars: int = MAX_CHARS,
    ) -> None:
        self._thinking = thinking
        self._system = system
        self._max_chars = max_chars
        self._mode: Literal["raw", "runtime"] = "runtime" if template == "runtime" else "raw"
        # No template says whose model it is, so every family's end of turn ends an answer.
        self._chat = ChatTemplate(template, "", stops=TURN_ENDS)
        self._templates: dict[bool, Template] = {}
        if template not in ("raw", "runtime"):
            self._chat = open_template(template)
            self._templates = self._compile()
        self._clean = Neutraliser((*self._chat.stops, *self._chat.specials, *self._chat.tokens.values()))

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        thinking: bool = False,
        must_call: bool = False,
        tool: str | None = None,
        replays: Mapping[int, str] | None = None,
    ) -> Rendered:
        """Return the prompt that asks for the assistant's next message.

        Args:
            messages: As in the OpenAI chat API. `raw` takes only their contents, `runtime` only the last
                user's: history, system prompt and tools are not part of what the library is given there.
            tools: As in the OpenAI chat API; any order gives the same bytes.
            thinking: Ask a model with a switch to think.
            must_call: The answer has to be a call of a tool; a model with a switch does not think before it.
            tool: Of this one.
            replays: What this model itself wrote for messages of the assistant, by their place. It is written
                as it is, so it must never come from a sender.

        Raises:
            RenderError: The conversation has another shape, the template refuses it or fails, or the prompt
                is too long.
        """
        if tools and not self._templates:
            raise self._without_tools()
        if self._templates:
            text = self._run_template(messages, tools, thinking and not must_call, replays or {})
        elif self._mode == "runtime":
            text = last_user_text(messages, self._clean)
        else:
            text = raw_text(messages, self._system)
        if len(text) > self._max_chars:
            raise self._too_long()
        opens_thinking = bool(self._templates) and text[-64:].rstrip().endswith("<think>")
        begun = ""
        if must_call and not opens_thinking:
            begun = begun_call(self._chat.dialect, None if tool is None else self._clean.text(tool))
        return Rendered(
            text + begun,
            self._mode,
            self._chat.stops,
            self._chat.specials,
            opens_thinking,
            begun,
            bool(self._templates),
        )

    def _run_template(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]],
        thinking: bool,
        replays: Mapping[int, str],
    ) -> str:
        variables = self._variables(messages, tools, thinking, replays)
        template = self._templates[bool(tools)]
        if self._chat.label in FAMILIES:
            return self._generate(template, variables)
        if not self._chat.takes_calls:
            variables["messages"] = without_calls(variables["messages"], self._chat.dialect)
        if not tools or self._chat.takes_tools:
            return self._run_file(template, variables, replays)
        return self._offer_in_words(template, variables, replays)

    def _offer_in_words(
        self, template: Template, variables: Mapping[str, Any], replays: Mapping[int, str]
    ) -> str:
        """Return the prompt of a template that knows no tools: they are a part of the system prompt.

        Where it takes none, or leaves it out, the user says it.
        """
        offer = offer_of(variables["tools"], self._chat.dialect)
        for to_user in (False, True):
            told = with_offer(variables["messages"], offer, to_user=to_user)
            try:
                text = self._run_file(template, {**variables, "tools": None, "messages": told}, replays)
            except RenderError as exc:
                if to_user or not isinstance(exc.__cause__, RaisedByTemplate):
                    raise
            else:
                if offer in text:
                    return text
        raise self._without_tools()

    def _run_file(self, template: Template, variables: Mapping[str, Any], replays: Mapping[int, str]) -> str:
        """Return what a template of a file makes of messages, spelled as it wants them."""
        if replays:
            with contextlib.suppress(RenderError):  # where it misses the calls it gets the message as it came
                return self._generate(template, {**variables, "messages": replayed(variables["messages"])})
        first_error: RenderError | None = None
        for spelled in spellings_of(variables["messages"], self._chat.source):
            try:
                return self._generate(template, {**variables, "messages": spelled})
            except RenderError as exc:
                if not isinstance(exc.__cause__, (TypeError, UndefinedError)):  # another spelling's failures
                    raise
                first_error = first_error or exc
        assert first_error is not None
        raise first_error

    def _generate(self, template: Template, variables: Mapping[str, object]) -> str:
        pieces: list[str] = []
        length = 0
        try:
            for piece in template.generate(variables):
                pieces.append(piece)
                length += len(piece)
                if length > self._max_chars:
                    raise self._too_long()
        except RenderError:
            raise
        except RaisedByTemplate as exc:
            raise RenderError(
                f"template {self._chat.label} refuses this conversation: {exc.message}",
                "change the order or the roles of the messages, or use another template",
                "invalid_request",
            ) from exc
        except Exception as exc:  # a template is a program: it can fail in any way
            raise self._failed(exc, _line_of(exc, str(template.filename))) from exc
        return "".join(pieces)

    def _variables(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]],
        thinking: bool,
        replays: Mapping[int, str],
    ) -> dict[str, Any]:
        thinks = self._thinking == "always" or (thinking and self._thinking == "switch")
        try:
            return {
                **self._chat.tokens,
                "messages": canonical_messages(messages, self._system, self._clean, replays),
                "tools": canonical_tools(tools, self._clean) or None,
                "add_generation_prompt": True,
                "enable_thinking": thinks,
                "thinking": thinks,  # the same switch in the templates of Granite and DeepSeek
                "thinking_mode": self._thinking,
            }
        except RecursionError as exc:
            raise RenderError(
                "a tool or a tool call is nested too deeply", "flatten its arguments", "invalid_request"
            ) from exc

    def _compile(self) -> dict[bool, Template]:
        """Return the templates for a conversation without tools and with."""
        chat = self._chat
        sources = {chat.label: chat.source}
        if chat.label in FAMILIES:
            sources["calls.jinja"] = family_source("calls.jinja")
        if chat.tool_source is not None:
            sources[chat.label + _TOOL_TEMPLATE] = chat.tool_source
        sandbox = TemplateSandbox(sources, self._max_chars)
        try:
            plain = sandbox.get_template(chat.label)
            with_tools = (
                plain if chat.tool_source is None else sandbox.get_template(chat.label + _TOOL_TEMPLATE)
            )
        except TemplateSyntaxError as exc:
            raise self._failed(exc, exc.lineno) from exc
        except TemplateError as exc:
            raise self._failed(exc, None) from exc
        for template in (plain, with_tools):
            # A chain of maps, which each rendering would flatten again.
            template.globals = dict(template.globals)
        return {False: plain, True: with_tools}

    def _failed(self, exc: Exception, line: int | None) -> RenderError:
        where = f"template {self._chat.label}" + (f", line {line}" if line else "")
        hint = f"correct the template, or use one of {', '.join(FAMILIES)} or runtime instead"
        if "_token' is undefined" in str(exc):
            hint = "put the model's tokenizer_config.json beside the template: it names the special tokens"
        return RenderError(f"{where}: {type(exc).__name__}: {exc}", hint)

    def _without_tools(self) -> RenderError:
        return RenderError(
            f"the template {self._chat.label} of this model does not know tools",
            f"send the request without tools, or configure one of {', '.join(FAMILIES)} for the model",
            "unsupported",
        )

    def _too_long(self) -> RenderError:
        return RenderError(
            f"the prompt is longer than {self._max_chars} characters",
            "send fewer or shorter messages",
            "too_large",
        )


def _line_of(exc: BaseException, file_name: str) -> int | None:
    """Return the template's line: jinja2 writes it into the traceback, under the template's file name."""
    line = None
    step = exc.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file_name:
            line = step.tb_lineno
        step = step.tb_next
    return line
