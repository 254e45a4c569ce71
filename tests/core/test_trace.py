"""The promise of `core/trace.py`: every decision can be played again and comes out the same."""

import json
import random

import pytest

from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy, Rules
from rkllm_mqtt.core.trace import Divergence, recorder, replay


def day(make_job, rules, events=400, chance=5):
    """Play a busy day with everything in it; return its trace."""
    lines, rng = [], random.Random(chance)
    policy, now, staged = Policy(rules), 0.0, None
    policy.note = recorder(lines.append)
    saving = lambda job: 0.5 if job.client == "attic" else 0.0  # noqa: E731
    for seq in range(1, events):
        now += rng.expovariate(1)
        if rng.random() < 0.55:
            job = make_job(
                seq, rng.choice(list(Priority)), rng.choice(["hall", "attic", "den"]), queued_at=now
            )
            job.cost_s = rng.uniform(0.1, 5)
            policy.add(job)
        policy.should_preempt(rng.randrange(30), now)
        if staged is not None and policy.should_replace(staged, now, saving):
            policy.settle(staged, 0.0, now)
            policy.add(staged)
            staged = None
        if staged is not None and policy.running is None:
            policy.begin(staged, now)
            staged = None
        if staged is None and (job := policy.choose(now, saving)) is not None:
            policy.claim(job, rng.uniform(0.1, 5), now)
            staged = job
        elif policy.running is not None and rng.random() < 0.5:
            policy.settle(policy.running, rng.uniform(0.1, 9), now)
    early = make_job(9999)
    policy.enter(early, 1.0, now)
    policy.begin(early, now)
    policy.settle(early, 2.0, now + 2)
    if policy.waiting.oldest:
        policy.remove(policy.waiting.oldest)
    return lines


@pytest.mark.parametrize("rules", [Rules(), Rules(window_s=20.0, passes=0, aged_s=5.0)])
def test_a_day_played_again_brings_the_same_decisions(make_job, rules):
    lines = day(make_job, rules)
    kinds = {json.loads(line)[0] for line in lines}
    assert kinds >= {"add", "claim", "begin", "settle", "enter", "choose", "replace", "preempt"}
    assert replay(lines, rules) == []


def test_other_rules_bring_other_decisions(make_job):
    found = replay(day(make_job, Rules()), Rules(shares=(0.0, 0.9, 0.05), window_s=10.0))
    assert found


def test_a_decision_that_was_tampered_with_is_found(make_job):
    lines = day(make_job, Rules())
    number = next(n for n, line in enumerate(lines) if line.startswith('["choose",') and "null" not in line)
    members = json.loads(lines[number])
    lines[number] = json.dumps([members[0], 77, *members[2:]])
    (found,) = replay(lines[: number + 1], Rules())
    assert found == Divergence(number + 1, 77, members[1])


def test_a_trace_holds_no_words_of_anybody(make_job):
    assert "hi" not in "".join(day(make_job, Rules())).replace("hall", "")


def test_a_line_that_is_no_event_is_refused():
    with pytest.raises(ValueError, match="no event 'dance'"):
        replay(['["dance",1]'], Rules())
