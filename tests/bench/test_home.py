"""The day of a home is always the same, in order, and has what the row says of it."""

from collections import Counter

from bench import models
from bench.home import HOURS, SYSTEM, day


def test_a_day_is_always_the_same_and_in_order():
    arrivals = day()
    assert arrivals == day()
    assert arrivals == sorted(arrivals, key=lambda one: one.at_s)
    assert {int(one.at_s // 3600) for one in arrivals} == set(HOURS)


def test_an_hour_has_talks_of_two_questions_sensors_each_minute_and_a_summary():
    assert Counter(one.who for one in day((7,))) == {"voice": 20, "sensor": 180, "summary": 1}
    voice = [one for one in day((7,)) if one.who == "voice"]
    assert len({one.question.prompt for one in voice}) == 20
    assert len(SYSTEM["voice"]) > 3000


def test_the_library_of_a_home_reuses_or_not(tmp_path):
    assert "reuse: yes" in models.home(tmp_path, reuse=True).read_text()
    assert "reuse: no" in models.home(tmp_path, reuse=False).read_text()
