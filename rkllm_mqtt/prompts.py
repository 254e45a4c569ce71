"""Make the prompts of jobs, fit for the window of their model; ahead, where a template file makes them.

Rule: our own templates are rendered at once, template files off the event loop.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from msgspec.structs import replace

from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.readouts import embedding_of, readout_of
from rkllm_mqtt.render.beginning import beginning_of
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.fence import FencedRenderer
from rkllm_mqtt.render.renderer import Rendered, Renderer
from rkllm_mqtt.windows import Prompt, Windows

_KEPT = 4
"""Prompts made ahead: the next job's, and those of jobs that another one has overtaken."""

Question = Mapping[str, Any]
"""The arguments of `Renderer.render`, complete: they may be used in another thread."""


class Prompts:
    """Makes the prompts of jobs.

    Args:
        renderers: By model id.
        windows: Make them fit.
    """

    def __init__(self, renderers: Mapping[str, Renderer | FencedRenderer], windows: Windows) -> None:
        self._renderers = renderers
        self._windows = windows
        self._ahead: dict[Job, tuple[FencedRenderer, asyncio.Future[Prompt]]] = {}
        """And what makes them: a model's renderer changes with its settings."""
        self._thread: ThreadPoolExecutor | None = None

    def ready(self, job: Job, question: Callable[[Job], Question], wake: Callable[[], None]) -> bool:
        """Return whether `make` has this job's prompt at once; if not, begin it, and call `wake` then."""
        renderer = self._renderers.get(job.request.model)
        if not isinstance(renderer, FencedRenderer):
            return True
        maker, prompt = self._ahead.get(job, (None, None))
        if prompt is None or maker is not renderer:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "template")
            work = partial(self._fitted, job.request, question(job))
            prompt = asyncio.get_running_loop().run_in_executor(self._thread, work)
            self._ahead[job] = renderer, prompt
            prompt.add_done_callback(lambda made: made.cancelled() or made.exception() or None)
            prompt.add_done_callback(lambda _: wake())
            ended = [old for old, (_, made) in self._ahead.items() if made.done()]
            for old in ended[: max(0, len(self._ahead) - _KEPT)]:
                del self._ahead[old]
        return prompt.done()

    def make(self, job: Job, question: Callable[[Job], Question]) -> Prompt:
        """Return the prompt of a job; one that is not ready is made now.

        Raises:
            RenderError: The conversation cannot be rendered for this model, or is too long for it.
        """
        maker, ahead = self._ahead.pop(job, (None, None))
        of_now = maker is self._renderers.get(job.request.model)
        if ahead is not None and of_now and ahead.done() and not ahead.cancelled():
            return ahead.result()
        return self._fitted(job.request, question(job))

    def _fitted(self, request: ChatRequest, asked: Question) -> Prompt:
        if request.task == "embed":
            return self._embedding(request)
        renderer, messages = self._renderers.get(request.model), asked["messages"]
        if renderer is None:  # its last run may still go on
            raise RenderError(f"the model {request.model!r} was removed", "Ask for another one.")
        written = {id(messages[place]): text for place, text in asked["replays"].items()}

        def render(part: Sequence[Mapping[str, Any]]) -> Rendered:
            # Where old turns are left out, the others stand in other places.
            places = enumerate(map(id, part))
            replays = {place: written[message] for place, message in places if message in written}
            return renderer.render(**{**asked, "messages": part, "replays": replays})

        if request.prefix is not None:
            render = partial(beginning_of, render)
        prompt = self._windows.fitted(request.model, messages, request.max_tokens, render)
        if request.task == "chat":
            return prompt
        tokens_behind = partial(self._windows.tokens_behind, request.model)
        return replace(prompt, readout=readout_of(request, prompt.rendered, renderer.render, tokens_behind))

    def _embedding(self, request: ChatRequest) -> Prompt:
        order = embedding_of(request)
        tokens = self._windows.checked(request.model, order.texts)
        rendered = Rendered(max(order.texts, key=len), "raw", (), (), opens_thinking=False, opens_turn=False)
        return Prompt(rendered, tokens, 1, readout=order)

    def close(self) -> None:
        """End the processes that render; call it when nothing more is to be rendered."""
        for renderer in self._renderers.values():
            if isinstance(renderer, FencedRenderer):
                renderer.close()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
