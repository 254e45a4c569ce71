"""A day of a home: who asks what, and when. Always the same day.

In the morning and in the evening somebody talks with the house, a question and one more behind it; every
minute three sensors fire, as automations on the minute do; every hour what happened is summed up.
"""

import random
from dataclasses import dataclass
from typing import Literal

from bench.models import Question, count, say

Who = Literal["voice", "sensor", "summary"]

VOICE_TOKENS = 12
SENSOR_TOKENS = 3
SUMMARY = count(30)
HOURS = (7, 18)
"""Those that are replayed: in the others nobody speaks, and sensors and summaries go on as in these."""
_TALKS_AN_HOUR = 10
_NEXT_QUESTION_S = 9.0
LISTENS_S = 2.0
"""From the wake word to the recognised question."""
_ROOMS = ("kitchen", "hall", "bath", "attic", "cellar", "garage", "porch", "study")

SYSTEM: dict[Who, str] = {
    "voice": "You are the voice of this house. Devices: "
    + "; ".join(f"light {n} in the {_ROOMS[n % 8]}, dimmable, off" for n in range(80))
    + ".",
    "sensor": "You watch the sensors of this house. Say in three words what a reading means.",
    "summary": "You sum up what happened in this house.",
}
"""What each of them begins with; the first has about 1,200 tokens."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the day."""

    at_s: float
    """Seconds since midnight."""
    who: Who
    question: Question
    is_heard_before: bool = False
    """A satellite hears its wake word LISTENS_S before, and can tell."""


def day(hours: tuple[int, ...] = HOURS) -> list[Arrival]:
    """Return the requests of these hours, in their order."""
    dice = random.Random(7)
    arrivals: list[Arrival] = []
    for hour in hours:
        begins_s = hour * 3600.0
        for _ in range(_TALKS_AN_HOUR):
            at_s = begins_s + dice.uniform(0, 3600 - _NEXT_QUESTION_S)
            for turn in range(2):
                number = dice.randrange(10**VOICE_TOKENS)
                asked = say(number, VOICE_TOKENS)
                arrivals.append(Arrival(at_s + turn * _NEXT_QUESTION_S, "voice", asked, turn == 0))
        for minute in range(60):
            for sensor in range(3):
                reading = f"{_ROOMS[dice.randrange(8)]} {dice.randrange(40)} degrees at {hour}:{minute:02}. "
                arrivals.append(
                    Arrival(begins_s + 60 * minute + 0.2 * sensor, "sensor", _behind(reading, dice))
                )
        arrivals.append(Arrival(begins_s + 5, "summary", _summary(hour, dice)))
    return sorted(arrivals, key=lambda one: one.at_s)


def _behind(reading: str, dice: random.Random) -> Question:
    asked = say(dice.randrange(10**SENSOR_TOKENS), SENSOR_TOKENS)
    return Question(reading + asked.prompt, asked.answer, asked.tokens)


def _summary(hour: int, dice: random.Random) -> Question:
    readings = " ".join(f"{_ROOMS[dice.randrange(8)]} {dice.randrange(40)}," for _ in range(400))
    return Question(f"Since {hour}: {readings} {SUMMARY.prompt}", SUMMARY.answer, SUMMARY.tokens)
