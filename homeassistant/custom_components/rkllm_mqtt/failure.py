"""Failures of a request: each has a sentence that can be spoken, in the language of who asked."""

from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.translation import async_get_translations

from .const import DOMAIN
from .protocol import Fault

SPOKEN_CODES = frozenset(
    {
        "cancelled",
        "client_limit",
        "context_overflow",
        "expired",
        "invalid_output",
        "model_error",
        "paused",
        "queue_full",
        "rate_limited",
        "shutting_down",
        "slot_failed",
        "timeout",
        "unknown_model",
    }
)
"""Error codes of the protocol that have a sentence of their own; the others quote the daemon."""


class RkllmFailure(HomeAssistantError):
    """A request that got no answer, or only a part of one."""

    def __init__(self, key: str, **placeholders: str) -> None:
        """Keep what the sentence needs; `key` is below `exceptions` of the translations."""
        super().__init__(
            translation_domain=DOMAIN, translation_key=key, translation_placeholders=placeholders or None
        )
        self.key = key
        self.placeholders = placeholders
        self.code: str | None = None
        """The protocol's error code, when the daemon refused or failed."""


def refused(fault: Fault) -> RkllmFailure:
    """Return the failure that an error of the daemon means."""
    if fault.code in SPOKEN_CODES:
        failure = RkllmFailure(fault.code)
    else:
        failure = RkllmFailure("refused", code=fault.code, message=fault.message)
    failure.code = fault.code
    return failure


async def async_sentence(hass: HomeAssistant, failure: HomeAssistantError, language: str) -> str:
    """Return what to say about a failure, in a language; in English where it is not translated."""
    if not isinstance(failure, RkllmFailure):
        return str(failure)
    texts = await async_get_translations(hass, language, "exceptions", {DOMAIN})
    text = texts.get(f"component.{DOMAIN}.exceptions.{failure.key}.message")
    return text.format(**failure.placeholders) if text else str(failure)


async def async_queue_place(hass: HomeAssistant, position: int, language: str) -> str:
    """Return what to show to who waits at a place in the queue, from 1."""
    texts = await async_get_translations(hass, language, "common", {DOMAIN})
    text = texts.get(f"component.{DOMAIN}.common.queue_place", "{position}")
    return text.format(position=position)
