"""Turn a schedule and what is known now into the request that is asked."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, Undefined

from rkllm_mqtt.config import ConfigError
from rkllm_mqtt.config.schedules import ScheduleConfig
from rkllm_mqtt.render.environment import TemplateSandbox

UNKNOWN = "unknown"
"""What stands in a prompt for a value that nobody has published."""
_MAX_CHARS = 262_144


class _Unknown(Undefined):
    def __str__(self) -> str:
        return UNKNOWN


class Question:
    """The templates of one schedule, compiled once.

    Raises:
        ConfigError: A template has a syntax error.
    """

    def __init__(self, schedule: ScheduleConfig) -> None:
        self._schedule = schedule
        self._sandbox = TemplateSandbox({}, _MAX_CHARS)
        self._sandbox.undefined = _Unknown
        self._sandbox.filters["from_json"] = _from_json
        messages = schedule.messages or ({"role": "user", "content": schedule.prompt or ""},)
        try:
            self._templates = [
                self._sandbox.from_string(str(message.get("content") or "")) for message in messages
            ]
        except TemplateError as exc:
            raise ConfigError(
                f"schedules: {schedule.id}: the template cannot be read: {exc}", "Write values as {{ name }}."
            ) from exc

    def payload(self, values: Mapping[str, str | None], now: datetime) -> bytes:
        """Return the request as JSON; what a sender of a value wrote is text in it, and nothing else.

        Raises:
            ValueError: The template fails with these values.
        """
        schedule = self._schedule
        known: dict[str, Any] = {name: text for name, text in values.items() if text is not None}
        try:
            texts = [template.render(**known, now=now) for template in self._templates]
        except Exception as exc:  # a template is a program: it can fail in any way
            raise ValueError(f"the template of schedule {schedule.id} failed: {exc}") from exc
        request: dict[str, Any] = {"priority": schedule.priority}
        if schedule.messages is None:
            request["prompt"] = texts[0]
        else:
            request["messages"] = [
                {**message, "content": text} for message, text in zip(schedule.messages, texts, strict=True)
            ]
        for name in ("model", "preset", "max_tokens", "ttl_s"):
            if (value := getattr(schedule, name)) is not None:
                request[name] = value
        if schedule.retain and schedule.reply_topic is None:
            request["retain"] = True
        return json.dumps(request, ensure_ascii=False).encode("utf-8", "replace")


def _from_json(text: object) -> Any:
    try:
        return json.loads(str(text))
    except ValueError:
        return {}
