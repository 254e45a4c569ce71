"""An event loop whose clock jumps to the next timer instead of waiting for it.

Threads are waited for only when there is no timer: what they do is out of step with the clock.
"""

import asyncio
import functools
import inspect
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

_PATIENCE_S = 20.0


class _Selector(selectors.DefaultSelector):
    """Never waits; the time that it did not wait is added to the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, else move the clock on."""
        ready = super().select(0)
        if not ready and timeout is None:
            ready = super().select(_PATIENCE_S)
            assert ready, "the test waits for something that will never happen"
        elif not ready:
            self.now += max(0.0, timeout or 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at second 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual clock, seconds."""
        return self._virtual.now


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test in a loop with a virtual clock."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    assert inspect.iscoroutinefunction(test)
    return run
