"""Make the order of a run out of a job's request: the prompt, and how its answer is to be read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rkllm_mqtt.answer import Answer
from rkllm_mqtt.config import ModelConfig
from rkllm_mqtt.content.shape import request_again, request_for
from rkllm_mqtt.core.carried import Carried
from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.replays import Replays
from rkllm_mqtt.core.thinking import ThinkingSplitter
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.prompts import Prompts
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.fence import FencedRenderer
from rkllm_mqtt.render.renderer import Rendered, Renderer
from rkllm_mqtt.runtime.order import CallOrder, LoraOrder, RunOrder, prime_order
from rkllm_mqtt.windows import Prompt, Windows

_REPLAYED_BYTES = 2 * 1024 * 1024
"""About 2,000 answers of a few sentences."""


class Orders:
    """Renders the conversations of jobs; knows the latest answers as the model wrote them.

    Args:
        renderers: By model id.
        windows: Make them fit.
        settings: Of a model, by its id: its adapters, and how long it may think.
    """

    def __init__(
        self,
        renderers: Mapping[str, Renderer | FencedRenderer],
        windows: Windows,
        settings: Callable[[str], ModelConfig | None] = lambda _model_id: None,
    ) -> None:
        self._prompts = Prompts(renderers, windows)
        self._settings = settings
        self._replays = Replays(_REPLAYED_BYTES)

    def ready(self, job: Job, wake: Callable[[], None]) -> bool:
        """Return whether `make` has this job's prompt at once; if not, begin it, and call `wake` then."""
        return self._prompts.ready(job, self._question, wake)

    def close(self) -> None:
        """End what renders; call it when nothing more is to be ordered."""
        self._prompts.close()

    def make(self, job: Job) -> tuple[Prompt, RunOrder]:
        """Return the prompt of a job and the order to run it.

        Raises:
            RenderError: The conversation cannot be rendered for this model, or is too long for it.
        """
        request, settings = job.request, self._settings(job.request.model)
        lora = self.lora_of(request.model, request.lora)
        prompt = self._prompts.make(job, self._question)
        rendered = prompt.rendered
        if request.prefix is not None:
            return prompt, prime_order(rendered.text, lora=lora)
        carried = job.carried or Carried()
        order = RunOrder(
            prompt=rendered.text + carried.behind_prompt,
            max_tokens=prompt.max_tokens,
            lora=lora,
            sampling=request.sampling,
            stops=rendered.stops,
            text_stops=request.stop,
            specials=rendered.specials,
            opens_thinking=rendered.opens_thinking,
            thinking=request.thinking and rendered.mode == "runtime",
            # The library's own template cannot be gone on with: what it makes of a prompt is its own.
            thinking_tokens=settings.thinking_tokens if settings and rendered.mode == "raw" else None,
            calls=_calls(job, _offered(request), rendered),
            carried=carried.raw,
            carried_tokens=carried.tokens,
            readout=prompt.readout,
        )
        return prompt, order

    def lora_of(self, model_id: str, name: str | None) -> LoraOrder | None:
        """Return an adapter of a model; None where none is asked for.

        Raises:
            RenderError: It has none of this name.
        """
        return None if name is None else _adapter(self._settings(model_id), name)

    def _question(self, job: Job) -> Mapping[str, Any]:
        request, messages = job.request, _messages(job)
        return {
            "messages": messages,
            "tools": _offered(request),
            "thinking": request.thinking,
            "must_call": request.tool_choice == "required",
            "tool": request.tool_name,
            "replays": self._replays.find(job.key[:2], messages),
        }

    def remember(self, job: Job, rendered: Rendered, answer: Answer, written: str | None) -> None:
        """Keep an answer as the model wrote it: its sender may send it back as a part of the conversation.

        Args:
            job: Which has ended well.
            rendered: Its prompt.
            answer: As its sender gets it.
            written: By the model, from the end of the prompt to its own end; None where that is the text.
        """
        if job.request.task != "chat":
            return
        if job.request.response_format is not None or (job.request.stop and written is not None):
            return  # only its JSON was sent; or it may go on behind the sender's own stop string
        said = answer.text
        if written is not None:
            splitter = ThinkingSplitter(rendered.opens_thinking)
            parts = splitter.feed(written) + splitter.flush()
            said = rendered.begun + "".join(text for kind, text in parts if kind == "text")
        self._replays.keep(job.key[:2], answer.text, answer.tool_calls, said)


def _adapter(model: ModelConfig | None, name: str) -> LoraOrder:
    """Return an adapter of a model.

    Raises:
        RenderError: It has none of this name.
    """
    for lora in model.loras if model is not None else ():
        if lora.id == name:
            return LoraOrder(lora.id, str(lora.file), lora.scale)
    hint = "Ask for the model alone, or configure the adapter again."
    raise RenderError(f"there is no adapter {name!r} any more", hint)


def _offered(request: ChatRequest) -> Sequence[Mapping[str, Any]]:
    return request.tools if request.tool_choice != "none" else ()


def _messages(job: Job) -> Sequence[Mapping[str, Any]]:
    """Return the conversation with what our own part of it adds: the asked shape, and a wish to correct."""
    messages, shape = _with_history(job), job.request.response_format
    if shape is None:
        return messages
    # In the last words of the user and not in the system prompt: what comes before stays as it was cached.
    place = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=None)
    if place is None:
        messages.append({"role": "user", "content": request_for(shape).strip()})
    else:
        messages[place] = {
            **messages[place],
            "content": f"{messages[place].get('content') or ''}{request_for(shape)}",
        }
    if job.correction is not None:
        answer, problem = job.correction
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": request_again(problem)})
    return messages


def _with_history(job: Job) -> list[Mapping[str, Any]]:
    """Return the messages of a request behind those of its conversation; a system prompt is the request's."""
    messages = list(job.request.messages)
    if job.history is None:
        return messages
    head = [message for message in messages if message["role"] == "system"]
    return [*head, *job.history, *(message for message in messages if message["role"] != "system")]


def _calls(job: Job, offered: Sequence[Mapping[str, Any]], rendered: Rendered) -> CallOrder | None:
    """Return how to read calls; None where the answer is text from the first to the last character.

    A conversation with calls in it leads a model to make one also where none is offered; that is no call, but
    its marks are no text either.
    """
    request = job.request
    if not offered and not any(message.get("tool_calls") for message in _with_history(job)):
        return None
    functions = [tool["function"] for tool in offered]
    if request.tool_name is not None:
        functions = [function for function in functions if function["name"] == request.tool_name]
    return CallOrder(
        tools={function["name"]: function.get("parameters") or {} for function in functions},
        begun=rendered.begun,
        only_one=request.tool_name is not None,
    )
