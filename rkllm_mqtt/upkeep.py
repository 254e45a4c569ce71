"""Forget finished jobs when their ids need not be known any more."""

import asyncio
from collections.abc import Awaitable, Callable

from rkllm_mqtt.config import Config
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)

_SLICE = 500


class Upkeep:
    """Purges the journal, a slice at a time so that no commit is long."""

    def __init__(
        self,
        journal: Journal,
        retention_s: float,
        expire: Callable[[], Awaitable[None]] | None = None,
        *,
        every_s: float = 60.0,
    ) -> None:
        """Keep the arguments; `expire` forgets what others keep in the journal and nobody needs any more."""
        self._journal = journal
        self._retention_s = retention_s
        self._expire = expire
        self._every_s = every_s
        self._oldest: float | None = None

    @property
    def frees_in_s(self) -> float:
        """Return the seconds until jobs are removed next, at the latest, as far as is known."""
        if self._oldest is None:
            return self._retention_s
        return max(0.0, self._oldest + self._retention_s - self._journal.now()) + self._every_s

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""
        self._retention_s = config.limits.id_retention_s

    async def run(self) -> None:
        """Purge every `every_s`; cancelled by the daemon's task group."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.purge()
            except StoreError as exc:
                log.warning("purge_failed", reason=str(exc))

    async def purge(self) -> None:
        """Forget what is due, and note when the next will be.

        Raises:
            StoreError: The journal cannot be written.
        """
        while await self._journal.purge(self._journal.now() - self._retention_s, _SLICE) >= _SLICE:
            pass
        await self._journal.expire_conversations()
        if self._expire is not None:
            await self._expire()
        self._oldest = await self._journal.oldest()
