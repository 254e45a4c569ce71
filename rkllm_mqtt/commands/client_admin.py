"""Admin commands of a daemon, as the commands of a person send them."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from rkllm_mqtt.commands.client_address import BrokerAddress
from rkllm_mqtt.commands.client_connection import Connection, Message, members_of
from rkllm_mqtt.commands.failure import CommandFailed
from rkllm_mqtt.commands.terminal import harmless
from rkllm_mqtt.core.topics import Topics

ADMIN_TIMEOUT_S = 3.0


def ask_admin(
    address: BrokerAddress, connection: Connection, node: str, command: str, members: Mapping[str, Any]
) -> dict[str, Any]:
    """Send an admin command and return the response.

    Raises:
        CommandFailed: Admin commands are off, nobody answers, or the daemon refuses.
    """
    topics = Topics(address.base, node)
    response, transaction = topics.admin("response", command), secrets.token_hex(6)
    connection.subscribe([response])
    body = json.dumps({"transaction": transaction, **members}).encode()
    connection.publish(topics.admin("request", command), body, content_type="application/json")

    def ours(message: Message) -> dict[str, Any] | None:
        found = members_of(message.payload)
        return found if message.topic == response and found.get("transaction") == transaction else None

    answer = wait_for(connection, ours, ADMIN_TIMEOUT_S)
    if answer is None:
        raise CommandFailed(
            f"{node} does not answer admin commands: they are switched off unless configured.",
            "Set `admin.enabled: true` in the daemon's configuration and restart it.",
        )
    if answer.get("status") != "ok":
        raise CommandFailed(f"{node} refuses: {harmless(str(answer.get('error') or 'no reason given'))}")
    return answer


def wait_for(
    connection: Connection, wanted: Callable[[Message], dict[str, Any] | None], timeout_s: float
) -> dict[str, Any] | None:
    """Return what `wanted` makes of a message that comes in time; None when none does."""
    end = time.monotonic() + timeout_s
    while (left_s := end - time.monotonic()) > 0:
        for message in connection.pump(left_s):
            found = wanted(message)
            if found is not None:
                return found
    return None
