"""Raise and clear the repair issues of an entry: protocol, models that are gone, prompts too long."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from homeassistant.config_entries import ConfigEntry, ConfigSubentry
from homeassistant.const import CONF_MODEL
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir

from .budget import QUESTION_TOKENS, context_tokens, prompt_tokens, reply_tokens
from .const import DOMAIN, ISSUE_CONTEXT, ISSUE_MODEL, ISSUE_PROTOCOL, PROTOCOL_MAJOR
from .messages import estimate_tokens
from .protocol import Info

if TYPE_CHECKING:
    from .entity import RkllmConfigEntry


def _issue_id(kind: str, entry: ConfigEntry, subentry: ConfigSubentry | None = None) -> str:
    return "/".join((kind, entry.entry_id, subentry.subentry_id if subentry else ""))


@callback
def async_clear_issues(hass: HomeAssistant, entry: ConfigEntry, *, all_of_them: bool) -> None:
    """Clear the issues of subentries that are gone, or all of an entry."""
    for domain, issue_id in list(ir.async_get(hass).issues):
        if domain != DOMAIN:
            continue
        _, entry_id, subentry_id = issue_id.split("/")
        gone = subentry_id and subentry_id not in entry.subentries
        if entry_id == entry.entry_id and (all_of_them or gone):
            ir.async_delete_issue(hass, DOMAIN, issue_id)


@callback
def async_check_protocol(hass: HomeAssistant, entry: ConfigEntry, info: Info) -> dict[str, str] | None:
    """Return what to say about a daemon of another protocol; None when it speaks ours."""
    issue_id = _issue_id(ISSUE_PROTOCOL, entry)
    if info.major == PROTOCOL_MAJOR:
        ir.async_delete_issue(hass, DOMAIN, issue_id)
        return None
    placeholders = {"title": entry.title, "theirs": info.schema, "ours": f"{PROTOCOL_MAJOR}.x"}
    ir.async_create_issue(
        hass,
        DOMAIN,
        issue_id,
        is_fixable=False,
        severity=ir.IssueSeverity.ERROR,
        translation_key=ISSUE_PROTOCOL,
        translation_placeholders=placeholders,
    )
    return placeholders


@callback
def async_check_models(hass: HomeAssistant, entry: ConfigEntry, info: Info) -> None:
    """Raise an issue for each subentry whose model is not served, and clear the others."""
    for subentry in entry.subentries.values():
        issue_id = _issue_id(ISSUE_MODEL, entry, subentry)
        model = subentry.data.get(CONF_MODEL)
        if info.model(model) is not None:
            ir.async_delete_issue(hass, DOMAIN, issue_id)
            continue
        ir.async_create_issue(
            hass,
            DOMAIN,
            issue_id,
            data={"entry_id": entry.entry_id, "subentry_id": subentry.subentry_id},
            is_fixable=True,
            severity=ir.IssueSeverity.ERROR,
            translation_key=ISSUE_MODEL,
            translation_placeholders={"agent": subentry.title, "model": str(model)},
        )


@callback
def async_check_context(
    hass: HomeAssistant,
    entry: RkllmConfigEntry,
    subentry: ConfigSubentry,
    system: str,
    tools: list[dict[str, Any]],
    *,
    overflow: bool = False,
) -> None:
    """Raise or clear the issue of a prompt whose constant part leaves no room for a question.

    Args:
        hass: Home Assistant.
        entry: The daemon.
        subentry: The agent.
        system: Its system prompt.
        tools: Its tools, as they are sent.
        overflow: The daemon has refused the prompt: raised whatever we estimate.
    """
    info, data = entry.runtime_data.info, subentry.data
    tokens = prompt_tokens(system, tools)
    issue_id = _issue_id(ISSUE_CONTEXT, entry, subentry)
    if tokens + QUESTION_TOKENS <= reply_tokens(info, data) and not overflow:
        ir.async_delete_issue(hass, DOMAIN, issue_id)
        return
    ir.async_create_issue(
        hass,
        DOMAIN,
        issue_id,
        is_fixable=False,
        severity=ir.IssueSeverity.WARNING,
        translation_key=ISSUE_CONTEXT,
        translation_placeholders={
            "agent": subentry.title,
            "prompt_tokens": str(tokens),
            "context_tokens": str(context_tokens(info, data)),
            "tools": str(len(tools)),
            "tool_tokens": str(estimate_tokens(tools)),
            "largest": ", ".join(_largest(tools)),
        },
    )


def _largest(tools: list[dict[str, Any]]) -> list[str]:
    def size(tool: Mapping[str, Any]) -> int:
        return estimate_tokens(tool)

    return [f"{tool['function']['name']} ({size(tool)})" for tool in sorted(tools, key=size)[:-6:-1]]
