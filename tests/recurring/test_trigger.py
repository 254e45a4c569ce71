"""The promise of `recurring/trigger.py`: the times of calendars, intervals and dates, also in summer time."""

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
import tzlocal

from rkllm_mqtt.config import ScheduleConfig
from rkllm_mqtt.recurring.trigger import build_times, zone_of

WARSAW = "Europe/Warsaw"


def schedule(**when):
    return ScheduleConfig(id="s", prompt="hi", **when)


def local_times(config, start, count):
    """Return the next times in the schedule's zone, as texts."""
    next_after, moment, found = build_times(config), datetime.fromisoformat(start).timestamp(), []
    for _ in range(count):
        moment = next_after(moment)
        found.append(datetime.fromtimestamp(moment, zone_of(config)).isoformat(" ", "minutes"))
    return found


def test_a_calendar_speaks_the_local_time_of_its_zone():
    config = schedule(cron="30 7 * * mon-fri", timezone=WARSAW)
    assert local_times(config, "2026-11-20T12:00+00:00", 2) == [
        "2026-11-23 07:30+01:00",
        "2026-11-24 07:30+01:00",
    ]


def test_where_summer_time_begins_a_time_that_does_not_exist_comes_once():
    times = local_times(schedule(cron="30 2 * * *", timezone=WARSAW), "2026-03-28T12:00+00:00", 2)
    assert times == ["2026-03-29 03:30+02:00", "2026-03-30 02:30+02:00"]


def test_where_summer_time_ends_a_fixed_hour_comes_once_and_each_minute_of_both_hours_comes():
    times = local_times(schedule(cron="30 2 * * *", timezone=WARSAW), "2026-10-24T12:00+00:00", 2)
    assert times == ["2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]
    minutes = local_times(schedule(cron="*/30 * * * *", timezone=WARSAW), "2026-10-24T23:45+00:00", 6)
    assert minutes == [
        "2026-10-25 02:00+02:00",
        "2026-10-25 02:30+02:00",
        "2026-10-25 02:00+01:00",
        "2026-10-25 02:30+01:00",
        "2026-10-25 03:00+01:00",
        "2026-10-25 03:30+01:00",
    ]


@pytest.mark.parametrize("cron", ["* * * * *", "*/7 * * * *", "0 0 1 1 *", "15 14 1 * *", "0 9-17 * * sun"])
def test_the_times_of_a_calendar_rise(cron):
    next_after = build_times(schedule(cron=cron, timezone=WARSAW))
    times = [datetime(2026, 10, 24, tzinfo=UTC).timestamp()]
    for _ in range(50):
        times.append(next_after(times[-1]))
    assert all(earlier < later for earlier, later in pairwise(times))


def test_an_interval_counts_from_a_fixed_moment_so_that_a_restart_does_not_shift_it():
    next_after = build_times(schedule(every_s=90))
    assert [next_after(0), next_after(89.9), next_after(90), next_after(91)] == [90, 90, 180, 180]


@pytest.mark.parametrize("at", ["2026-12-24T18:00:00", "2026-12-24T17:00:00+00:00"])
def test_a_date_comes_once_in_its_zone(at):
    next_after = build_times(schedule(at=at, timezone=WARSAW))
    moment = datetime(2026, 12, 24, 18, tzinfo=ZoneInfo(WARSAW)).timestamp()
    assert next_after(0) == moment
    assert next_after(moment) is None


def test_a_schedule_without_a_zone_is_in_the_computers(monkeypatch, request):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    tzlocal.reload_localzone()
    request.addfinalizer(lambda: (monkeypatch.undo(), tzlocal.reload_localzone()))
    assert datetime(2026, 1, 1, tzinfo=zone_of(schedule(every_s=60))).utcoffset().total_seconds() == 9 * 3600


def test_the_same_is_told_whatever_was_asked_before():
    config = schedule(cron="*/7 2,3 * * *", timezone=WARSAW)
    asked = build_times(config)
    moment = datetime.fromisoformat("2026-10-24T23:00+00:00").timestamp()
    for seconds in (0, 1, 600, 599, 86_400, 3_600, -86_400, 419, 420, 421):
        assert asked(moment + seconds) == build_times(config)(moment + seconds)
