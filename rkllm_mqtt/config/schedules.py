"""Settings of a recurring prompt."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Topic = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^+#$\x00]+$")]
ValueName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class ScheduleConfig(BaseModel):
    """A prompt that the daemon asks by itself: at times of a calendar, every so often, or once."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")] = Field(description="Name of the schedule.")
    cron: str | None = Field(
        None,
        max_length=100,
        description="Minute, hour, day, month and weekday as in a crontab: 0 7 * * mon-fri.",
    )
    every_s: float | None = Field(
        None, ge=1, le=31_536_000, description="Interval, seconds; counted from midnight of 1970-01-01 UTC."
    )
    at: datetime | None = Field(None, description="Once, at this date and time.")
    timezone: str | None = Field(None, description="Such as Europe/Warsaw; default: the computer's.")
    prompt: str | None = Field(
        None, max_length=16_384, description="A template: {{ name }} is a value, {{ now }} the date and time."
    )
    messages: tuple[dict[str, Any], ...] | None = Field(
        None, max_length=64, description="Instead of a prompt: messages whose contents are templates."
    )
    values: dict[ValueName, Topic] = Field(
        default_factory=dict,
        max_length=64,
        description="Names in the template, and the topic whose newest message each is, also a retained one.",
    )
    client: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        "schedule", description="The client that asks; answers go to its mailbox."
    )
    reply_topic: Topic | None = Field(None, description="Send the answer here instead of into the mailbox.")
    format: Literal["json", "text"] = Field("json", description="Answer as JSON or as bare text.")
    retain: bool = Field(
        False,
        description="Retain the answer: on reply_topic where there is one, else on the client's `last`.",
    )
    priority: Literal["interactive", "normal", "background"] = Field(
        "background", description="Class of the request."
    )
    model: str | None = Field(None, description="Model; default: the first.")
    preset: str | None = Field(None, description="Preset of sampling parameters.")
    max_tokens: int | None = Field(None, ge=1, le=65_536, description="Longest answer, tokens.")
    ttl_s: float | None = Field(
        None, gt=0, le=31_536_000, description="Deadline from its acceptance, seconds."
    )
    misfire_grace_s: float = Field(
        3_600,
        gt=0,
        le=86_400,
        description="How late it may still be asked after the daemon was off, seconds.",
    )
    coalesce: bool = Field(True, description="Of several missed times ask only for the newest.")
    jitter_s: float = Field(
        0, ge=0, le=3_600, description="Up to so many seconds later, another delay for each time."
    )
    paused: bool = Field(False, description="Ask only when an administrator says `run`.")

    @field_validator("cron")
    @classmethod
    def _cron_is_readable(cls, expression: str | None) -> str | None:
        if expression is not None:
            # Loaded here: a daemon without schedules need not spend the memory.
            from apscheduler.triggers.cron import CronTrigger

            CronTrigger.from_crontab(expression, timezone="UTC")
        return expression

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, name: str | None) -> str | None:
        if name is not None:
            from zoneinfo import ZoneInfo

            try:
                ZoneInfo(name)
            except (KeyError, ValueError, OSError) as exc:
                raise ValueError(f"there is no time zone {name!r}") from exc
        return name

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if sum(given is not None for given in (self.cron, self.every_s, self.at)) != 1:
            raise ValueError("give one of cron, every_s and at")
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if {"now"} & self.values.keys():
            raise ValueError("values: `now` is the date and time already")
        return self
