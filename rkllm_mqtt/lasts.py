"""Keep the newest answer of a client as a retained message, for devices that sleep, and clear it in time."""

import asyncio
from collections.abc import Callable

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.chat import Address
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.mqtt.messages import Outbound
from rkllm_mqtt.store.errors import StoreError
from rkllm_mqtt.store.journal import Journal

log = get_logger(__name__)


class LastAnswers:
    """The retained topics `last`; a bounded number of clients, the oldest gives way."""

    def __init__(
        self,
        journal: Journal,
        publish: Callable[[Outbound], object],
        *,
        base: str,
        ttl_s: float,
        clients: int,
    ) -> None:
        """Keep the arguments; `ttl_s` in seconds, `clients` at most."""
        self._journal = journal
        self._publish = publish
        self._base = base
        self._ttl_s = ttl_s
        self._clients = clients
        self._expiry: dict[tuple[str, str], float] = {}
        self._changed = asyncio.Event()

    def apply(self, config: Config) -> None:
        """Take over a changed configuration: a new time for what comes now, a new bound for all."""
        self._ttl_s, self._clients = config.limits.last_ttl_s, config.limits.last_clients
        while len(self._expiry) > self._clients:
            self._clear(next(iter(self._expiry)))

    async def recover(self) -> None:
        """Learn which topics an earlier process has left retained."""
        for last in sorted(await self._journal.lasts(), key=lambda last: last.expires_at):
            self._expiry[last.target, last.client] = last.expires_at
        self._changed.set()

    def keep(self, address: Address, outcome: bytes) -> None:
        """Publish an outcome on the client's `last`."""
        if not self._clients:
            return
        key = (address.mailbox.target, address.mailbox.client)
        self._expiry.pop(key, None)  # the newest goes to the end
        if len(self._expiry) >= self._clients:
            self._clear(next(iter(self._expiry)))
        expires_at = self._journal.now() + self._ttl_s
        self._expiry[key] = expires_at
        self._note(self._journal.set_last(*key, expires_at))
        self._publish(Outbound(address.last, outcome, qos=1, retain=True))
        self._changed.set()

    async def run(self) -> None:
        """Clear each topic when its time is over; cancelled by the daemon's task group."""
        while True:
            self._changed.clear()
            now = self._journal.now()
            for key in [key for key, expires_at in self._expiry.items() if expires_at <= now]:
                self._clear(key)
            pause = min((expires_at - now for expires_at in self._expiry.values()), default=None)
            try:
                async with asyncio.timeout(None if pause is None else max(0.05, pause)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _clear(self, key: tuple[str, str]) -> None:
        del self._expiry[key]
        self._publish(Outbound(Mailbox(self._base, *key).topic("last"), b"", qos=1, retain=True))
        self._note(self._journal.clear_last(*key))

    def _note(self, written: "asyncio.Future[None]") -> None:
        written.add_done_callback(_log_failure)


def _log_failure(written: "asyncio.Future[None]") -> None:
    if not written.cancelled() and isinstance(written.exception(), StoreError):
        log.warning("last_not_noted", reason=str(written.exception()))
