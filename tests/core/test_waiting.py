"""The promise of `core/waiting.py`: a live job is one thing, known by its names, counting its own events."""


def test_events_are_numbered_from_zero_and_rise(make_job):
    job = make_job(1)
    assert [job.next_event() for _ in range(3)] == [0, 1, 2]


def test_a_job_is_known_by_target_client_and_id(make_job):
    assert make_job(7, client="hall", target="fleet").key == ("fleet", "hall", "q7")


def test_jobs_are_compared_by_identity(make_job):
    assert make_job(1) != make_job(1)
