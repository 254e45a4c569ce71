"""The times of a schedule, computed by APScheduler's triggers: calendars, intervals, one date.

Only its triggers are used. Its schedulers keep no time across restarts without a database of their own, and
do not notice that the clock was set.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from rkllm_mqtt.config.schedules import ScheduleConfig

_TICK_S = 0.001
_STUCK_S = 60.0


def build_times(schedule: ScheduleConfig) -> Callable[[float], float | None]:
    """Return a function from a time to the next one after it, Unix seconds; None when there is none.

    At the end of summer time a calendar with a fixed hour counts the hour that comes twice once, as cron.
    """
    zone = zone_of(schedule)
    if schedule.at is not None:
        moment = schedule.at if schedule.at.tzinfo else schedule.at.replace(tzinfo=zone)
        once = moment.timestamp()
        return lambda after: once if once > after else None
    if schedule.every_s is not None:
        every = schedule.every_s
        return lambda after: (after // every + 1) * every
    return _calendar(schedule, zone)


def zone_of(schedule: ScheduleConfig) -> tzinfo:
    """Return the time zone that a schedule means."""
    if schedule.timezone is not None:
        return ZoneInfo(schedule.timezone)
    # Loaded here: it costs memory that a daemon without schedules need not spend.
    from tzlocal import get_localzone

    zone: tzinfo = get_localzone()
    return zone


def _calendar(schedule: ScheduleConfig, zone: tzinfo) -> Callable[[float], float | None]:
    from apscheduler.triggers.cron import CronTrigger

    trigger: Any = CronTrigger.from_crontab(schedule.cron, timezone=zone)
    hours = (schedule.cron or "").split()[1]

    def search(after: float) -> float | None:
        start = after + _TICK_S
        while True:
            found = trigger.get_next_fire_time(None, datetime.fromtimestamp(start, UTC))
            if found is None:
                return None
            if found.timestamp() > after and not (found.fold and not hours.startswith("*")):
                return float(found.timestamp())
            start = max(start, found.timestamp()) + _STUCK_S  # the hour that comes twice

    asked = math.inf
    answer: float | None = None

    def next_after(after: float) -> float | None:
        """Search only when the last answer does not hold: the service asks thrice a second."""
        nonlocal asked, answer
        if after < asked or (answer is not None and after >= answer):
            asked, answer = after, search(after)
        return answer

    return next_after
