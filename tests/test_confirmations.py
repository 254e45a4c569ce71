"""The promise of `confirmations.py`: one `accepted` for each, one look at the queue for a whole commit."""

import asyncio

from live_jobs import Sent, address, make_job, request

from rkllm_mqtt.confirmations import Confirmations


def confirmations(sent, waiting, looks):
    def outlooks_of(jobs):
        looks.append(list(jobs))
        return [(waiting.index(job) + 1, 2.5) if job in waiting else (0, None) for job in jobs]

    return Confirmations(
        "rock5",
        sent,
        waits=waiting.__contains__,
        outlooks_of=outlooks_of,
        queue_length=lambda: len(waiting),
    )


def job_of(name, **fields):
    return make_job(request(stream=True, **fields), address(request_id=name), id=name)


def test_what_one_commit_has_stored_is_told_together_and_numbered_as_it_came():
    async def check():
        sent, looks = Sent(), []
        waiting = [job_of(f"q{n}") for n in range(3)]
        told = confirmations(sent, waiting, looks)
        for job in waiting:
            told.accepted(job, False, ("top_k",))
        assert [job.next_event() for job in waiting] == [1, 1, 1]  # whatever follows comes behind it
        assert sent.events("accepted") == []
        assert all(job.is_untold for job in waiting)
        await asyncio.sleep(0)
        events = sent.events("accepted")
        assert [(event["id"], event["n"], event["position"]) for event in events] == [
            ("q0", 0, 1),
            ("q1", 0, 2),
            ("q2", 0, 3),
        ]
        assert {event["eta_s"] for event in events} == {2.5}
        assert [(job.shown_position, job.is_untold) for job in waiting] == [(n, False) for n in (1, 2, 3)]
        assert looks == [waiting]
        await asyncio.sleep(0)
        assert len(looks) == 1

    asyncio.run(check())


def test_who_runs_already_is_told_at_once_and_who_sent_text_is_told_nothing():
    async def check():
        sent, looks = Sent(), []
        told = confirmations(sent, [], looks)
        told.accepted(job_of("q1"), True, ())
        told.accepted(job_of("q2", text=True), False, ())
        (event,) = sent.events("accepted")
        assert (event["id"], event["position"], event["eta_s"], event["duplicate"]) == ("q1", 0, None, True)
        assert len(looks) == 1

    asyncio.run(check())
