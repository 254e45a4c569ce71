"""Take a changed configuration file into use at SIGHUP, and say which of its keys need a restart."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from rkllm_mqtt.config import Config, ConfigError
from rkllm_mqtt.config.changes import take_over
from rkllm_mqtt.core.health import Reason
from rkllm_mqtt.logs import get_logger, set_level
from rkllm_mqtt.supervision import Supervision

log = get_logger(__name__)


class Changeable(Protocol):
    """A part that can change while it runs."""

    def apply(self, config: Config) -> None:
        """Take over a changed configuration."""


class Reload:
    """Reads the file again whenever it is asked to; a file with a mistake changes nothing."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config] | None,
        parts: Sequence[Changeable],
        supervision: Supervision,
        on_change: Callable[[Config], None],
    ) -> None:
        """Keep the arguments.

        Args:
            config: In force.
            read: Reads the file again, raising ConfigError; None when there is nothing to read.
            parts: Those that can change.
            supervision: Is told of the beginning and the end.
            on_change: Called with a configuration that all parts have taken over.
        """
        self._config = config
        self._read = read
        self._parts = parts
        self._on_change = on_change
        self._supervision = supervision
        self._asked = asyncio.Event()
        self.reasons: list[Reason] = []
        """What of the file is not in force, for `health`."""

    def ask(self) -> None:
        """Read the file again soon; several wishes at once are one."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it was asked for; cancelled by the daemon's task group."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._supervision.reloading()
            try:
                await self._reload()
            finally:
                self._supervision.reloaded()

    async def _reload(self) -> None:
        if self._read is None:
            return
        try:
            new = await asyncio.to_thread(self._read)
        except ConfigError as exc:
            log.error("config_refused", reason=str(exc), hint=exc.hint)
            said = f"the configuration file was not taken over: {exc}"
            self.reasons = [Reason("config_invalid", said, exc.hint)]
            return
        self._config, taken, left = take_over(self._config, new)
        if taken:
            self._apply(taken)
        log.info("config_reloaded", changed=",".join(taken) or "nothing")
        self.reasons = []
        if left:
            log.warning("config_needs_restart", keys=",".join(left))
            said = f"changed in the file, not yet in force: {', '.join(left)}"
            self.reasons = [Reason("restart_needed", said, "Restart the daemon when it suits you.")]

    def _apply(self, taken: Sequence[str]) -> None:
        if "log.level" in taken:  # else an administrator's own level stays
            set_level(self._config.log.level)
        for part in self._parts:
            part.apply(self._config)
        self._on_change(self._config)
