"""The promise of `core/line.py`: the least slot time first, then the oldest job; no credit is saved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.line import Line

CLIENTS = ("kitchen", "hall", "attic")
MODELS = ("voice", "writer")
CHATS = [
    ChatRequest(messages=({"role": "user", "content": "hi"},), model=model, max_tokens=9) for model in MODELS
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(CLIENTS)),
        st.tuples(st.just("take"), st.integers(0, 50)),
        st.tuples(st.just("back"), st.integers(0, 50)),
        st.tuples(st.just("claim"), st.sampled_from(CLIENTS), st.integers(0, 9)),
        st.tuples(st.just("begin")),
        st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 9)),
    ),
    max_size=60,
)


def naive_order(jobs, used):
    """Clients by slot time and oldest job; of each the jobs in order of acceptance."""
    oldest = {job.client: min(one.seq for one in jobs if one.client == job.client) for job in jobs}
    return sorted(oldest, key=lambda client: (used[client], oldest[client]))


def forget(used, floor, waiting):
    for client in set(used) - {job.client for job in waiting}:
        if used[client] <= floor:
            del used[client]


@given(STEPS)
def test_the_order_is_that_of_sums_whatever_comes_goes_and_returns(make_job, steps):
    line, waiting, taken, slot = Line(), [], [], []
    used, floor = {}, 0.0  # a client that would begin at the floor is not known
    for seq, (what, *details) in enumerate(steps, 1):
        if what == "add" or (what == "back" and taken):
            fields = {"client": details[0], "request": CHATS[seq % 2]} if what == "add" else {}
            job = make_job(seq, **fields) if fields else taken.pop(details[0] % len(taken))
            if all(one.client != job.client for one in waiting):
                used[job.client] = max(used.get(job.client, 0.0), floor)
            line.add(job)
            waiting.append(job)
        elif what == "take" and waiting:
            taken.append(waiting.pop(details[0] % len(waiting)))
            line.remove(taken[-1])
        elif what == "claim":
            slot.append(details)
            used[details[0]] = used.get(details[0], floor) + details[1]
            line.claim(*details)
        elif what == "begin":
            active = {client for client, _ in slot} | {job.client for job in waiting}
            really = [
                used.get(client, floor) - sum(cost for other, cost in slot if other == client)
                for client in active
            ]
            floor = max(floor, min(really, default=0.0))
            line.raise_floor()
        elif what == "settle" and slot:
            client, cost = slot.pop(details[0] % len(slot))
            used[client] = used.get(client, floor) + details[1] - cost
            line.settle(client, cost, details[1])
        forget(used, floor, waiting)
        order = naive_order(waiting, used)
        assert [client for _, _, client in line.order] == order
        assert line.first is next(
            (min((j for j in waiting if j.client == client), key=lambda j: j.seq) for client in order), None
        )
        for model in MODELS:
            of_model = [
                job
                for client in order
                for job in waiting
                if job.client == client and job.request.model == model
            ]
            first = of_model and min(
                (j for j in of_model if j.client == of_model[0].client), key=lambda j: j.seq
            )
            assert line.first_of(model) is (first or None)
        assert line.oldest is min(waiting, key=lambda job: job.seq, default=None)
        assert len(line) == len(waiting)
        for client in CLIENTS:
            assert line.used_s(client) == (
                used[client] if client in order else max(floor, used.get(client, 0))
            )
        for queue, head in line.heads(9):
            assert queue.jobs == sorted(queue.jobs, key=lambda job: job.seq)
            assert queue.jobs[0] is head


def test_a_client_that_paused_begins_where_the_others_are(make_job):
    line = Line()
    line.add(make_job(1, client="busy"))
    for seq in range(2, 6):
        line.claim("busy", 99.0)  # however wrong an estimate is
        line.raise_floor()
        line.settle("busy", 99.0, 10.0)
        line.add(make_job(seq, client="busy"))
    line.claim("busy", 99.0)
    line.raise_floor()
    line.add(make_job(9, client="newcomer"))
    assert line.used_s("newcomer") == 40.0
    assert line.first.client == "newcomer"
    line.settle("busy", 99.0, 0.0)
    assert line.first.client == "busy"  # of equals the older job


def test_a_newcomer_begins_behind_no_work_that_was_never_done(make_job):
    line = Line()
    for client in ("greedy", "staged"):
        line.add(make_job(len(line) + 1, client=client))
        line.charge(client, 7.0)
    for _ in range(3):  # three in the slot before the first of them begins
        line.claim("greedy", 500.0)
    line.claim("staged", 500.0)
    line.raise_floor()
    assert line.used_s("newcomer") == 7.0


def test_who_used_more_than_the_others_is_not_forgiven_by_leaving(make_job):
    line = Line()
    greedy, modest = make_job(1, client="greedy"), make_job(2, client="modest")
    line.add(greedy)
    line.add(modest)
    line.remove(greedy)
    line.charge("greedy", 30.0)
    line.add(make_job(3, client="greedy"))
    assert [client for _, _, client in line.order] == ["modest", "greedy"]
    assert line.used_s("greedy") == 30.0


def test_the_memory_of_clients_that_left_is_bounded(make_job):
    line = Line(remembered=10)
    for number in range(100):
        line.charge(f"sensor-{number}", 5.0)
    assert len(line._idle) == 10
    assert line.used_s("sensor-99") == 5.0
    assert line.used_s("sensor-1") == 0.0


def test_what_a_job_was_passed_is_its_own_also_behind_others_and_after_a_stay_in_the_slot(make_job):
    line, first, second = Line(), make_job(1), make_job(2)
    line.add(first)
    line.queues["kitchen"].passes += 1
    line.queues["kitchen"].passed_s += 0.5
    line.add(second)
    line.queues["kitchen"].passes += 1
    line.queues["kitchen"].passed_s += 0.25
    queue = line.queues["kitchen"]
    assert (queue.passes_of(first), queue.passes_of(second)) == ((2, 0.75), (1, 0.25))
    line.remove(first)
    assert (first.passes, first.passed_s) == (2, 0.75)
    line.add(first)
    assert line.queues["kitchen"].passes_of(first) == (2, 0.75)


def test_a_job_that_does_not_wait_cannot_be_removed_and_nothing_changes(make_job):
    line = Line()
    line.add(make_job(1))
    with pytest.raises(KeyError):
        line.remove(make_job(2))
    assert len(line) == 1
    assert line.first.seq == 1


def test_the_slot_time_before_a_job_is_that_of_its_clients_earlier_ones(make_job):
    line = Line()
    for seq in range(1, 201):
        line.add(make_job(seq, cost_s=float(seq)))
    queue = line.queues["kitchen"]
    assert queue.before(4) == (3, 6.0)
    count, seconds = queue.before(101)
    assert (count, seconds) == (100, pytest.approx(line.work_s / 2))
