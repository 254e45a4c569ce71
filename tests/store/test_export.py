"""An export tells every job once, and private things only when asked."""

import json

import pytest

from rkllm_mqtt.core.job import Delivery, JobEvent
from rkllm_mqtt.store.export import export_jobs
from rkllm_mqtt.store.reading import reader

OUTCOME = {
    "id": "a",
    "model": "qwen",
    "finish_reason": "error",
    "usage": {"completion_tokens": 3},
    "text": "the secret answer",
    "thinking": "a secret thought",
    "error": {"code": "timeout", "message": "secret words"},
}


@pytest.fixture
def exported(path):
    def export(**choice):
        with reader(path) as connection:
            return list(export_jobs(connection, **choice))

    return export


async def fill(opened, new_job):
    async with opened() as journal:
        await journal.set_meta("client_id", "rkllm-mqtt-secret")
        address = '{"base":"rkllm","correlation":"c2VjcmV0"}'
        for name in "ab":
            new = new_job(name, request='{"prompt":"the secret question é"}', address=address)
            await journal.admit(new, may_insert=True, receipt=None)
        await journal.claim(1, 1)
        await journal.finish(1, JobEvent.GAVE_UP, json.dumps(OUTCOME).encode(), Delivery.PENDING)


async def test_jobs_are_told_in_order_without_contents(opened, new_job, exported):
    await fill(opened, new_job)
    first, second = exported()
    assert (first["seq"], first["id"], first["state"], first["delivery"]) == (1, "a", "failed", "pending")
    assert (first["model"], first["finish_reason"], first["error_code"]) == ("qwen", "error", "timeout")
    assert first["usage"] == {"completion_tokens": 3}
    assert first["request_bytes"] == len('{"prompt":"the secret question é"}'.encode())
    assert first["outcome_bytes"] == len(json.dumps(OUTCOME))
    assert (second["state"], second["finished_at"], second["outcome_bytes"]) == ("waiting", None, None)
    text = json.dumps(exported())
    assert "secret" not in text
    assert "c2VjcmV0" not in text


async def test_contents_come_when_asked_but_never_the_daemons_own_names(opened, new_job, exported):
    await fill(opened, new_job)
    first, second = exported(contents=True)
    assert first["outcome"] == OUTCOME
    assert second["request"] == {"prompt": "the secret question é"}
    assert second["address"]["correlation"] == "c2VjcmV0"
    assert "rkllm-mqtt-secret" not in json.dumps([first, second])


async def test_only_finished_jobs_are_told_when_asked(opened, new_job, exported):
    await fill(opened, new_job)
    assert [job["id"] for job in exported(finished=True)] == ["a"]


async def test_more_jobs_than_a_page_come_once_each_and_new_ones_do_not_disturb(opened, path, new_job):
    async with opened() as journal:
        for n in range(450):
            await journal.admit(new_job(f"{n}"), may_insert=True, receipt=None)
        with reader(path) as connection:
            jobs = export_jobs(connection)
            seen = [next(jobs)["seq"]]
            await journal.admit(new_job("late"), may_insert=True, receipt=None)
            # Between two pages no transaction holds the write-ahead log.
            assert not connection.in_transaction
            seen += [job["seq"] for job in jobs]
    assert seen == list(range(1, 452))


async def test_an_outcome_that_is_no_json_is_told_as_bytes(opened, new_job, exported):
    async with opened() as journal:
        await journal.admit(new_job("a"), may_insert=True, receipt=None)
        await journal.finish(1, JobEvent.GAVE_UP, b"\xff", Delivery.NONE)
    assert exported(contents=True)[0]["outcome"] == {"base64": "/w=="}
