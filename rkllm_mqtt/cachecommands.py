"""What an administrator sees of prompt-cache files, and does with them: list, create by name, delete."""

import json
from collections.abc import Mapping
from typing import Any

from rkllm_mqtt.admin import Arguments, CommandRefused, text_argument
from rkllm_mqtt.caching.prefixcache import PrefixCache
from rkllm_mqtt.core.errors import RequestError
from rkllm_mqtt.intake.parsing import RequestParser
from rkllm_mqtt.registrations import Registrations

OWNER = "admin"
"""Whose registered prefixes those are that an administrator creates."""
_GIVEN = ("messages", "tools", "model")


class CacheCommands:
    """The commands `caches`, `cache_create` and `cache_delete`."""

    def __init__(self, cache: PrefixCache, registrations: Registrations, parser: RequestParser) -> None:
        """Keep the arguments.

        Args:
            cache: The files.
            registrations: A cache with a name is a registered prefix.
            parser: Checks names, messages and tools as it does a client's.
        """
        self._cache = cache
        self._registrations = registrations
        self._parser = parser

    async def list(self, _arguments: Arguments) -> Mapping[str, Any]:
        """Return all files and all registered prefixes."""
        cache = self._cache
        return {
            "files": cache.told(),
            "prefixes": [
                {"client": prefix.client, "name": prefix.name, "model": prefix.request.model}
                for prefix in self._registrations.prefixes
            ],
            "tiers": {
                name: {"mb": round(shelf.size / 1e6, 1), "budget_mb": round(shelf.budget_bytes / 1e6)}
                for name, shelf in cache.tiers.items()
            },
            "restores": cache.counts.restores,
            "saves": cache.counts.saves,
            "failures": cache.counts.failures,
            "disk_written_today_mb": round(cache.ledger.written / 1e6, 1),
        }

    async def create(self, arguments: Arguments) -> Mapping[str, Any]:
        """Register a prefix by a name; it is computed and saved as soon as the slot is idle."""
        name = text_argument(arguments, "name")
        asked = {"register": name} | {key: arguments[key] for key in _GIVEN if key in arguments}
        if not arguments.get("messages"):
            raise CommandRefused("messages are missing: the system prompt at least")
        try:
            parsed = self._parser.parse(
                json.dumps(asked).encode(), text=False, client=OWNER, capabilities=None
            )
            wish = parsed.request.prefix
            assert wish is not None
            state = await self._registrations.create(OWNER, name, parsed.request, wish.ttl_s)
        except RequestError as exc:
            raise CommandRefused(f"{exc.fault.message} {exc.fault.hint}".strip()) from exc
        return {"name": name, "state": state}

    async def delete(self, arguments: Arguments) -> Mapping[str, Any]:
        """Remove a file by its hash, or a prefix that was created by its name."""
        if "file" in arguments:
            file = text_argument(arguments, "file")
            if not self._cache.remove(file):
                raise CommandRefused("there is no such file, or it is being loaded")
            return {"file": file}
        name = text_argument(arguments, "name")
        if await self._registrations.remove(OWNER, name) == "absent":
            raise CommandRefused("there is no such cache; `caches` lists them")
        return {"name": name}
