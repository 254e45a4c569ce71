"""Have the prompts of the next jobs made ahead, where a template file makes them in a process of its own.

Rule: our own templates are rendered at once, template files off the event loop.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.render.fence import FencedRenderer
from rkllm_mqtt.render.renderer import Rendered, Renderer

_KEPT = 4
"""Prompts made ahead: the next job's, and those of jobs that another one has overtaken."""

Question = Mapping[str, Any]
"""The arguments of `Renderer.render`, complete: they may be used in another thread."""


class Prompts:
    """Makes the prompts of jobs.

    Args:
        renderers: By model id.
    """

    def __init__(self, renderers: Mapping[str, Renderer | FencedRenderer]) -> None:
        self._renderers = renderers
        self._ahead: dict[Job, asyncio.Future[Rendered]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def ready(self, job: Job, question: Callable[[Job], Question], wake: Callable[[], None]) -> bool:
        """Return whether `make` has this job's prompt at once; if not, begin it, and call `wake` then."""
        renderer = self._renderers[job.request.model]
        if not isinstance(renderer, FencedRenderer):
            return True
        prompt = self._ahead.get(job)
        if prompt is None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "template")
            work = partial(renderer.render, **question(job))
            prompt = self._ahead[job] = asyncio.get_running_loop().run_in_executor(self._thread, work)
            prompt.add_done_callback(lambda made: made.cancelled() or made.exception() or None)
            prompt.add_done_callback(lambda _: wake())
            ended = [old for old, made in self._ahead.items() if made.done()]
            for old in ended[: max(0, len(self._ahead) - _KEPT)]:
                del self._ahead[old]
        return prompt.done()

    def make(self, job: Job, question: Callable[[Job], Question]) -> Rendered:
        """Return the prompt of a job; one that is not ready is made now.

        Raises:
            RenderError: The conversation cannot be rendered for this model.
        """
        ahead = self._ahead.pop(job, None)
        if ahead is not None and ahead.done() and not ahead.cancelled():
            return ahead.result()
        return self._renderers[job.request.model].render(**question(job))

    def close(self) -> None:
        """End the processes that render; call it when nothing more is to be rendered."""
        for renderer in self._renderers.values():
            if isinstance(renderer, FencedRenderer):
                renderer.close()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
