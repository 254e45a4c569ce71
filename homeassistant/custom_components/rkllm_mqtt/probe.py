"""Listen for the daemons of a broker, for the flows."""

import asyncio

from homeassistant.components import mqtt
from homeassistant.core import HomeAssistant, callback

from .const import DEFAULT_CLIENT
from .protocol import Info, is_client, parse_info

LISTEN_S = 2.0


async def async_find(hass: HomeAssistant, topic_filter: str) -> list[Info]:
    """Return the daemons whose retained `info` is on a filter, heard within two seconds.

    A filter without wildcard returns as soon as there is one.
    """
    found: dict[str, Info] = {}
    heard = asyncio.Event()

    @callback
    def take(message: mqtt.ReceiveMessage) -> None:
        info = parse_info(message.payload)
        if info is not None and message.topic == f"{info.base}/{info.node}/info":
            found[info.uid] = info
            if "+" not in topic_filter:
                heard.set()

    unsubscribe = await mqtt.async_subscribe(hass, topic_filter, take, 0)
    try:
        async with asyncio.timeout(LISTEN_S):
            await heard.wait()
    except TimeoutError:
        pass
    finally:
        unsubscribe()
    return sorted(found.values(), key=lambda info: info.node)


def default_client(hass: HomeAssistant) -> str:
    """Return the client name to propose: our user name at the broker, as its ACL binds them."""
    for entry in hass.config_entries.async_entries(mqtt.DOMAIN):
        name = entry.data.get("username")
        if isinstance(name, str) and is_client(name):
            return name
    return DEFAULT_CLIENT
