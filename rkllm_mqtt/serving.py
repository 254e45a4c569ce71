"""Serve: open the journal, run a daemon on it, close it whatever happens."""

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rkllm_mqtt.app import Daemon
from rkllm_mqtt.config import Config
from rkllm_mqtt.discovery import MAILBOXES_KEY, noted_mailboxes
from rkllm_mqtt.host.servicemanager import ServiceManager
from rkllm_mqtt.store.conversations import ConversationLimits
from rkllm_mqtt.store.journal import Journal

_BLOCKING_CALLS = 3
"""At a time: a broker that is slow to shake hands, a look at the models, one at the file of a load."""


async def serve(config: Config, read: Callable[[], Config] | None = None) -> bool:
    """Run a daemon until it is told to stop; return whether it is to be started again.

    Args:
        config: Of the daemon.
        read: Reads the configuration again at SIGHUP.

    Raises:
        ConfigError: The configuration cannot be used.
        StoreError: The journal cannot be opened.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_BLOCKING_CALLS, "blocking"))
    limits = config.limits
    journal = await Journal.open(
        config.journal.path,
        ballast_mb=config.journal.ballast_mb,
        redelivery_window_s=limits.redelivery_window_s,
        conversations=ConversationLimits(
            limits.conversations,
            limits.conversation_turns,
            limits.conversation_bytes,
            limits.conversation_ttl_s,
        ),
    )
    try:
        for key, value in (
            ("uid", uuid.uuid4().hex),
            ("client_id", f"rkllm-mqtt-{config.node}-{uuid.uuid4().hex[:12]}"),
        ):
            if key not in journal.meta:
                await journal.set_meta(key, value)
        await journal.set_meta(MAILBOXES_KEY, noted_mailboxes(config, journal.meta))
        daemon = Daemon(config, journal, ServiceManager.from_environ(), read)
        await daemon.run()
        return daemon.restart_wanted
    finally:
        await journal.close()
