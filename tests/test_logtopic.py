"""The promise of `logtopic.py`: warnings and errors as JSON, never content, never a storm, never an error."""

import asyncio
import json
import logging
import threading
import time
from pathlib import Path

import pytest

from rkllm_mqtt.core.answers import encode
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.logtopic import LogTopic

WIRE = Path(__file__).parent / "wire"
log = get_logger("rkllm_mqtt.tests")


@pytest.fixture
def published():
    """Run something while the topic is installed and everything is logged; return the messages."""
    logger = logging.getLogger("rkllm_mqtt")
    before = logger.level
    logger.setLevel(logging.DEBUG)

    def run(work):
        sent = []

        async def main():
            topic = LogTopic("rkllm/rock5/log", lambda message: sent.append(message) or True)
            topic.install(asyncio.get_running_loop())
            try:
                work()
                await asyncio.sleep(0)
            finally:
                topic.remove()
            log.error("after_removal")

        asyncio.run(main())
        return sent

    yield run
    logger.setLevel(before)


def test_a_warning_is_the_golden_message(published):
    before = int(time.time())
    (message,) = published(
        lambda: log.warning("slot_lost", job=7, attempt=1, crashes=1, reason="the worker ended by signal 6")
    )
    expected = json.loads((WIRE / "log.json").read_bytes())
    members = json.loads(message.payload)
    assert before <= members["at"] <= time.time()
    assert encode({**members, "at": expected["at"]}) == encode(expected)
    assert (message.topic, message.qos, message.retain) == ("rkllm/rock5/log", 0, False)


def test_errors_are_published_and_news_are_not(published):
    def work():
        log.debug("a")
        log.info("b")
        log.error("c")
        try:
            raise ValueError("what somebody asked")
        except ValueError:
            log.exception("d")

    messages = published(work)
    assert [json.loads(message.payload)["event"] for message in messages] == ["c", "d"]
    # A traceback may quote what it met.
    assert b"somebody" not in messages[1].payload


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7, 7),
        (0.5, 0.5),
        (True, True),
        (None, None),
        ("a b", "a b"),
        (Path("/dev/dri"), "/dev/dri"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("a\ud800b", "a?b"),
    ],
)
def test_any_fact_can_be_published(published, value, shown):
    (message,) = published(lambda: log.warning("odd", fact=value))
    assert json.loads(message.payload)["fact"] == shown


def test_a_storm_is_at_most_twenty_messages_a_second(published):
    began = int(time.monotonic())
    messages = published(lambda: [log.warning("storm", n=n) for n in range(500)])
    seconds = int(time.monotonic()) - began + 1
    assert 20 <= len(messages) <= 20 * seconds
    assert json.loads(messages[0].payload)["n"] == 0


def test_other_threads_may_log(published):
    def work():
        thread = threading.Thread(target=log.warning, args=("from_a_thread",))
        thread.start()
        thread.join()

    assert [json.loads(message.payload)["event"] for message in published(work)] == ["from_a_thread"]


def test_without_a_loop_or_after_its_end_logging_does_no_harm():
    topic = LogTopic("t", pytest.fail)
    record = logging.LogRecord("rkllm_mqtt.x", logging.ERROR, __file__, 1, "late", None, None)
    topic.emit(record)
    loop = asyncio.new_event_loop()
    topic.install(loop)
    topic.remove()
    loop.close()
    topic.emit(record)
