"""The promise of `logs.py`: one line per event, its facts readable by people and by scripts."""

import io
import logging
import os
import re
import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.logs import EventFormatter, configure_logging, facts_of, get_logger


@pytest.fixture
def logged():
    """Configure the logs for one test; return the stream they go to."""
    loggers = [logging.getLogger(name) for name in ("rkllm_mqtt", "asyncio")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]

    def configure(level="info"):
        stream = io.StringIO()
        configure_logging(level, stream)
        return stream

    yield configure
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


log = get_logger("rkllm_mqtt.tests")


def line(journald=False, level=logging.INFO, exc_info=None, **facts):
    record = logging.LogRecord("rkllm_mqtt.x", level, __file__, 1, "job_accepted", None, exc_info)
    record.facts = facts
    return EventFormatter(journald=journald).format(record)


def test_a_line_is_the_event_and_its_facts_in_order(logged):
    stream = logged()
    log.info("job_accepted", job=7, client="kitchen", waiting=3)
    found = re.fullmatch(
        r"\d\d:\d\d:\d\d info    job_accepted job=7 client=kitchen waiting=3\n", stream.getvalue()
    )
    assert found, stream.getvalue()


def test_an_event_without_facts_has_no_trailing_space(logged):
    stream = logged()
    log.warning("paused")
    assert stream.getvalue().endswith(" warning paused\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "1"),
        (0.0, "0"),
        (100.0, "100"),
        (2.5, "2.5"),
        (0.12349, "0.123"),
        (float("inf"), "inf"),
        (None, "None"),
        (True, "True"),
        ("plain-word_1.2/3:4", "plain-word_1.2/3:4"),
        ("grün", "grün"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ("", '""'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a\nb\tc\x1b[31m", '"a\\nb\\tc\\x1b[31m"'),
        ("\u202eabc", '"\\u202eabc"'),
    ],
)
def test_values_are_short_and_quoted_where_a_reader_could_be_misled(value, shown):
    assert line(fact=value).endswith(f" job_accepted fact={shown}")


@given(st.text(max_size=30))
def test_no_fact_breaks_the_line_or_forges_another_fact(text):
    shown = line(journald=True, fact=text)
    assert len(shown.splitlines()) == 1
    assert shown.isprintable()
    rest = shown.removeprefix("<6>job_accepted fact=")
    assert not rest.startswith('"') or re.fullmatch(r'"(?:[^"\\]|\\.)*"', rest)
    assert rest.startswith('"') or not set(rest) & set(' ="')


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
def test_a_script_splits_a_line_like_a_shell(text):
    if "'" not in text and "\\" not in text:
        assert shlex.split(line(journald=True, a=1, fact=text)) == ["<6>job_accepted", "a=1", f"fact={text}"]


@pytest.mark.parametrize(
    ("level", "prefix"),
    [(logging.DEBUG, "<7>"), (logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>")],
)
def test_under_systemd_there_is_a_priority_and_no_time(level, prefix):
    assert line(journald=True, level=level, job=7) == f"{prefix}job_accepted job=7"


def test_a_traceback_follows_on_lines_that_all_have_the_priority():
    try:
        raise ValueError("wrong")
    except ValueError:
        lines = line(journald=True, level=logging.ERROR, exc_info=sys.exc_info()).splitlines()
    assert lines[0] == "<3>job_accepted"
    assert lines[-1] == "<3>ValueError"
    assert all(each.startswith("<3>") for each in lines)


def test_exception_logs_the_exception_being_handled_with_its_facts(logged):
    stream = logged("error")
    try:
        raise ValueError("wrong")
    except ValueError:
        log.exception("job_failed", job=7)
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(" error   job_failed job=7")
    assert rest[-1] == "ValueError"


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_says_what_is_shown(logged, level, shown):
    stream = logged(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    assert [each.split()[1] for each in stream.getvalue().splitlines()] == shown


def test_configuring_twice_writes_once_and_nothing_reaches_the_root_logger(logged, caplog):
    stream = logged()
    configure_logging("info", stream)
    log.info("once")
    assert stream.getvalue().count("once") == 1
    assert not caplog.records


@pytest.mark.parametrize(("is_ours", "start"), [(True, r"<4>"), (False, r"\d\d:\d\d:\d\d warning ")])
def test_priorities_are_for_the_stream_that_goes_to_the_journal(
    logged, monkeypatch, tmp_path, is_ours, start
):
    logged()
    with (tmp_path / "err").open("w") as stream:
        status = os.fstat(stream.fileno())
        # The variable is inherited by what an interactive service starts with its output elsewhere.
        inode = status.st_ino if is_ours else status.st_ino + 1
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{inode}")
        configure_logging("info", stream)
        log.warning("paused", by="admin")
    assert re.fullmatch(start + "paused by=admin\n", (tmp_path / "err").read_text())


def test_records_of_other_libraries_have_no_facts():
    record = logging.LogRecord("paho", logging.INFO, __file__, 1, "hello %s", ("you",), None)
    assert facts_of(record) == {}
    record.facts = "something else"
    assert facts_of(record) == {}
    assert EventFormatter(journald=True).format(record) == "<6>hello you"


def test_an_error_is_told_by_place_and_type_and_never_quotes_what_was_sent(logged):
    stream = logged("error")
    sent = "what a person asked"
    try:
        try:
            try:
                {}[sent]
            except KeyError as exc:
                raise ValueError(f"invalid: {sent}") from exc
        except ValueError:
            raise ExceptionGroup(
                sent, [TypeError(sent), OSError(28, "No space left", "journal.db")]
            ) from None
    except ExceptionGroup:
        log.exception("job_failed", job=7)
    text = stream.getvalue()
    assert sent not in text
    assert "test_logs.py" in text
    assert "OSError: [Errno 28] No space left: 'journal.db'" in text
    for kind in ("ExceptionGroup", "TypeError"):
        assert f"\n{kind}\n" in text


def test_the_errors_before_an_error_are_told_too(logged):
    stream = logged("error")
    try:
        try:
            {}["x"]
        except KeyError as exc:
            raise ValueError("y") from exc
    except ValueError:
        log.exception("job_failed")
    kinds = [line for line in stream.getvalue().splitlines() if line in ("KeyError", "ValueError")]
    assert kinds == ["KeyError", "ValueError"]


def test_what_asyncio_logs_is_one_line_without_the_values_of_its_tasks(logged):
    stream = logged()
    logging.getLogger("asyncio").error("never retrieved\nfuture: <Task exception=ValueError('secret')>")
    assert stream.getvalue().endswith(" error   never retrieved\n")
