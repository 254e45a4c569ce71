"""The checker finds nothing wrong in a healthy recording, and each violation that is put into it."""

import json

import healthy_recording
import pytest
from chaos.checker import judge
from chaos.recording import Fault, Life, Link, Ran, Recording, Said
from healthy_recording import BOX, NODE, event, failed, final, state


@pytest.fixture
def healthy():
    return healthy_recording.healthy()


def test_a_healthy_recording_breaks_nothing_and_every_rule_had_something_to_look_at(healthy):
    found = judge(healthy)
    assert found.violations == []
    assert set(found.checked) == {
        "outcome", "answer", "memory", "events", "deltas", "complete deltas", "runs", "cancelled", "deadline",
        "offline", "online",
    }  # fmt: skip
    assert found.outcomes == {"ok": 2, "cancelled": 1}


def say(recording, at, topic, payload):
    recording.said.append(Said(at, topic, payload))


def unsay(recording, topic):
    recording.said = [said for said in recording.said if said.topic != topic]


def no_outcome(kept):
    unsay(kept, f"{BOX}/reply/a")


def two_outcomes(kept):
    say(kept, 12.0, f"{BOX}/reply/a", final("a", "one two", created=2))


def two_bare_outcomes(kept):
    say(kept, 12.0, f"{BOX}/reply/t", "other")


def two_errors(kept):
    say(kept, 12.0, f"{BOX}/reply/c", failed("c", "slot_failed"))


def anothers_outcome(kept):
    unsay(kept, f"{BOX}/reply/a")
    say(kept, 10.6, f"{BOX}/reply/a", final("b", "one two"))


def wrong_text(kept):
    kept.asked[1].expected = "something else"


def harmless_poison(kept):
    kept.asked[0].poison = True


def accepted_twice(kept):
    say(kept, 33.0, f"{BOX}/event/a", event("accepted", 7, duplicate=False))


def number_used_twice(kept):
    say(kept, 10.5, f"{BOX}/event/a", event("started", 1, attempt=1))


def attempt_begun_twice(kept):
    say(kept, 10.5, f"{BOX}/event/a", event("started", 3, attempt=1))


def lost_delta(kept):
    kept.said = [said for said in kept.said if '"seq": 0' not in said.payload]


def two_deltas_of_one_number(kept):
    say(kept, 10.5, f"{BOX}/delta/a", json.dumps({"attempt": 1, "seq": 1, "text": "three"}))


def delta_beyond_the_count(kept):
    say(kept, 10.5, f"{BOX}/delta/a", json.dumps({"attempt": 1, "seq": 2, "text": "x"}))


def delta_of_a_later_attempt(kept):
    say(kept, 10.5, f"{BOX}/delta/a", json.dumps({"attempt": 2, "seq": 0, "text": "one "}))


def deltas_of_another_text(kept):
    unsay(kept, f"{BOX}/reply/a")
    say(kept, 10.6, f"{BOX}/reply/a", final("a", "one too"))
    kept.asked[0].expected = None


def ran_after_cancel(kept):
    kept.ran.append(Ran("words c", 11.6, 11.7))


def still_ran_after_cancel(kept):
    kept.ran[2].end = 11.6


def ran_again_after_an_answer(kept):
    kept.ran.append(Ran("words a", 20.0, 20.1))


def began_after_its_deadline(kept):
    unsay(kept, f"{BOX}/reply/a")
    say(kept, 25.0, f"{BOX}/reply/a", final("a", "one two", attempt=2, deltas=0))
    kept.ran.append(Ran("words a", 16.2, 16.3))


def ran_on_after_its_deadline(kept):
    unsay(kept, f"{BOX}/reply/a")
    say(kept, 25.0, f"{BOX}/reply/a", failed("a", "expired"))
    kept.ran[0].end = 24.0


def expired_early(kept):
    unsay(kept, f"{BOX}/reply/a")
    say(kept, 14.9, f"{BOX}/reply/a", failed("a", "expired"))


def offline_too_late(kept):
    unsay(kept, f"rkllm/{NODE}/status")
    say(kept, 32.1, f"rkllm/{NODE}/status", "offline")


def offline_too_late_when_half_open(kept):
    kept.links[2:] = [Link(30.0, "silent")]
    unsay(kept, f"rkllm/{NODE}/status")
    say(kept, 35.1, f"rkllm/{NODE}/status", "offline")


def not_online(kept):
    kept.looks[1].topics["status"] = "offline"


def no_info(kept):
    del kept.looks[1].topics["info"]


def old_boot(kept):
    kept.looks[1].topics = state(boot="b1", at=34)


def two_boots(kept):
    kept.looks[1].topics["info"] = json.dumps({"boot_id": "b3"})


def old_health(kept):
    kept.looks[1].topics = state(boot="b2", at=25)


def dead_worker(kept):
    kept.looks[1].topics = state(boot="b2", at=34, pid=6)


def queue_runs_what_is_finished(kept):
    kept.looks[1].topics = state(boot="b2", at=34, running=[{"client": "s1", "id": "a"}], state="busy")


def queue_is_longer_than_what_was_sent(kept):
    kept.looks[1].topics = state(boot="b2", at=34, length=1, state="busy")


def queue_is_not_idle_in_the_end(kept):
    kept.looks[2].topics = state(boot="b2", at=34, state="busy")


VIOLATIONS = {
    no_outcome: "outcome: s1/a: it was accepted and has no outcome",
    two_outcomes: "outcome: s1/a: 2 different outcomes",
    two_bare_outcomes: "outcome: s1/t: 2 different outcomes",
    two_errors: "outcome: s1/c: 2 different outcomes",
    anothers_outcome: "answer: s1/a: the outcome has the id 'b'",
    wrong_text: "answer: s1/t: the answer is 'bare', not 'something else'",
    harmless_poison: "answer: s1/a: it kills the worker each time and ended as ok",
    accepted_twice: "memory: s1/a: accepted as new again",
    number_used_twice: "events: s1/a: two events have the number 1",
    attempt_begun_twice: "events: s1/a: attempts began in the order [1, 1]",
    lost_delta: "deltas: s1/a: deltas [0] are missing though nothing was broken",
    two_deltas_of_one_number: "deltas: s1/a: two deltas 1.1: 'two' and 'three'",
    delta_beyond_the_count: "deltas: s1/a: delta 2, but the final counts 2",
    delta_of_a_later_attempt: "deltas: s1/a: deltas of a later attempt",
    deltas_of_another_text: "deltas: s1/a: the deltas join to 'one two', the final is 'one too'",
    ran_after_cancel: "runs: s1/c: it ran again 0.100 s after its outcome (cancelled)",
    still_ran_after_cancel: "runs: s1/c: it still ran 0.100 s after its outcome (cancelled)",
    ran_again_after_an_answer: "runs: s1/a: it ran again 9.400 s after its outcome (ok)",
    began_after_its_deadline: "runs: s1/a: it began 1.100 s after its deadline",
    ran_on_after_its_deadline: "runs: s1/a: it ran on 8.900 s after its deadline",
    expired_early: "runs: s1/a: expired 0.100 s before its deadline",
    offline_too_late: "offline: rkllm/n/status: no `offline` within 2.0 s of down",
    offline_too_late_when_half_open: "offline: rkllm/n/status: no `offline` within 5.0 s of silent",
    not_online: "online: 2.0 s after a reconnect: status is 'offline'",
    no_info: "online: ['info'] not there 2.0 s after a reconnect",
    old_boot: "online: 2.0 s after a reconnect: boot_id b1",
    two_boots: "online: 2.0 s after a reconnect: boot_id b3",
    old_health: "online: 2.0 s after a reconnect: health is 10.0 s old",
    dead_worker: "online: 2.0 s after a reconnect: health names the worker 6, it is 5",
    queue_runs_what_is_finished: "online: 2.0 s after a reconnect: queue runs s1/a",
    queue_is_longer_than_what_was_sent: "online: 2.0 s after a reconnect: queue has 1 waiting, but 0",
    queue_is_not_idle_in_the_end: "online: 5.0 s after a reconnect: after all work the queue is busy",
}


@pytest.mark.parametrize("put_in", VIOLATIONS, ids=lambda put_in: put_in.__name__)
def test_a_violation_is_found_also_in_a_recording_that_was_kept(healthy, put_in, tmp_path):
    put_in(healthy)
    healthy.keep(tmp_path / "recording.json")
    found = judge(Recording.read(tmp_path / "recording.json")).violations
    assert any(sentence.startswith(VIOLATIONS[put_in]) for sentence in found), found


def break_link(kept):
    kept.faults.append(Fault("cut_daemon", 10.2, 10.3, ["link"]))


def be_deaf(kept):
    kept.faults.append(Fault("deaf", 10.0, 10.5, ["observer"]))


def lose_connection(kept):
    kept.links[2:2] = [Link(10.2, "down"), Link(10.25, "connected"), Link(10.25, "serving")]


@pytest.mark.parametrize("excuse", [break_link, be_deaf, lose_connection])
def test_a_delta_may_be_lost_with_a_connection_but_the_others_must_be_pieces_of_the_final(healthy, excuse):
    lost_delta(healthy)
    excuse(healthy)
    assert judge(healthy).violations == []
    unsay(healthy, f"{BOX}/reply/a")
    say(healthy, 10.6, f"{BOX}/reply/a", final("a", "one too"))
    found = judge(healthy).violations
    assert any("are not pieces of the final" in sentence for sentence in found)


def test_a_broken_broker_excuses_its_own_silence_only(healthy):
    offline_too_late(healthy)
    healthy.faults.append(Fault("kill_broker", 31.0, 31.5, ["broker"]))
    assert judge(healthy).violations == []
    healthy.faults[0] = Fault("kill_worker", 31.0, 31.5, ["worker"])
    assert judge(healthy).violations


def test_a_machine_without_time_excuses_what_is_late_and_nothing_else(healthy):
    offline_too_late(healthy)
    old_boot(healthy)
    healthy.faults.append(Fault("slow", 0.0, 50.0, ["machine"]))
    assert judge(healthy).violations == []
    two_outcomes(healthy)
    ran_after_cancel(healthy)
    assert len(judge(healthy).violations) == 2


def test_a_daemon_that_is_back_in_time_need_not_be_told_offline(healthy):
    unsay(healthy, f"rkllm/{NODE}/status")
    healthy.links[3:] = [Link(31.0, "connected"), Link(31.1, "serving")]
    healthy.lives[1] = Life(30.5)
    assert judge(healthy).violations == []


def test_a_refusal_is_no_outcome_and_may_come_before_one(healthy):
    refused = failed("a", "internal", model="")
    healthy.said.insert(0, Said(10.05, f"{BOX}/reply/a", refused))
    healthy.said.insert(0, Said(10.05, f"{BOX}/reply/t", "ERROR internal: the disk is full"))
    assert judge(healthy).violations == []


def test_valid_deltas_of_an_earlier_attempt_go_on_in_the_next(healthy):
    unsay(healthy, f"{BOX}/reply/a")
    unsay(healthy, f"{BOX}/delta/a")
    for attempt, seq, text in ((1, 0, "one "), (1, 1, "void"), (2, 1, "two")):
        say(healthy, 10.4, f"{BOX}/delta/a", json.dumps({"attempt": attempt, "seq": seq, "text": text}))
    say(healthy, 10.4, f"{BOX}/event/a", event("restarted", 3, attempt=2, from_seq=1))
    say(healthy, 10.6, f"{BOX}/reply/a", final("a", "one two", attempt=2))
    assert judge(healthy).violations == []
