"""The decisions of the policy as lines that can be played again: the same events give the same decisions.

Pure. A line is a JSON array: what happened, when, and what it was about. No prompt and no answer is in it.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.core.chat import Address, ChatRequest, PrefixWish
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy, Rules
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.core.waiting import Job

_NOTHING = ChatRequest(messages=({"role": "user", "content": ""},), model="", max_tokens=1)


class Divergence(Struct, frozen=True):
    """A decision that came out differently."""

    line: int
    """Of the trace, from 1."""
    recorded: Any
    played: Any


def recorder(write: Callable[[str], None]) -> Callable[..., None]:
    """Return what to give a policy as its `note`; `write` takes each line without its end."""

    def note(*members: Any) -> None:
        write(json.dumps(members, separators=(",", ":")))

    return note


def replay(lines: Iterable[str], rules: Rules) -> list[Divergence]:
    """Play a trace from its beginning, with an empty queue, and return what was decided differently.

    Raises:
        ValueError: A line is no event of a policy.
    """
    policy = Policy(rules)
    jobs: dict[int, Job] = {}
    diverged: list[Divergence] = []
    for line, text in enumerate(lines, 1):
        kind, *members = json.loads(text)
        if kind in ("choose", "replace", "preempt"):
            recorded, played = _decide(policy, jobs, kind, members)
            if recorded != played:
                diverged.append(Divergence(line, recorded, played))
        else:
            _happen(policy, jobs, kind, members)
    return diverged


def _happen(policy: Policy, jobs: dict[int, Job], kind: str, members: list[Any]) -> None:
    match kind, members:
        case "add", [number, seq, priority, client, cost_s, queued_at, model]:
            job = jobs.setdefault(number, _job(Priority(priority), client, model))
            job.seq, job.cost_s, job.queued_at = seq, cost_s, queued_at
            policy.add(job)
        case "enter", [number, priority, client, cost_s, now, model]:
            jobs[number] = _job(Priority(priority), client, model)
            policy.enter(jobs[number], cost_s, now)
        case "move_in", [model, number]:
            policy.move_in(model, jobs.get(number))
        case "load", [model, seconds]:
            policy.learn_load(model, seconds)
        case "pin", [model, silence_s]:
            policy.pin(model, silence_s)
        case "remove", [number]:
            policy.remove(jobs[number])
        case "claim", [number, cost_s, now]:
            policy.claim(jobs[number], cost_s, now)
        case "begin", [number, now]:
            policy.begin(jobs[number], now)
        case "settle", [number, used_s, now]:
            policy.settle(jobs[number], used_s, now)
        case _:
            _hold(policy, jobs, kind, members)


def _hold(policy: Policy, jobs: dict[int, Job], kind: str, members: list[Any]) -> None:
    match kind, members:
        case "prefix", [number]:
            jobs[number].request = replace(jobs[number].request, prefix=PrefixWish("warm"))
        case "promise", [number, since]:
            jobs[number].queued_at = since
            policy.promise_hold(jobs[number])
        case "charge", [client, priority, seconds]:
            policy.charge(client, Priority(priority), seconds)
        case "hold", [client, wished_s, now, since]:
            policy.hold(client, wished_s, now, since)
        case _:
            raise ValueError(f"there is no event {kind!r} of {len(members)} members")


def _decide(policy: Policy, jobs: dict[int, Job], kind: str, members: list[Any]) -> tuple[Any, Any]:
    """Return what was decided and what is decided now."""
    if kind == "preempt":
        tokens, staged, recorded, now = members
        return recorded, policy.should_preempt(tokens, now, staged=staged)
    *about, savings, now = members
    known = {id(jobs[int(number)]): seconds for number, seconds in savings.items()}
    saving = (lambda job: known.get(id(job), 0.0)) if known else None
    if kind == "replace":
        return about[1], policy.should_replace(jobs[about[0]], now, saving)
    chosen = policy.choose(now, saving)
    return about[0], next((number for number, job in jobs.items() if job is chosen), None)


def _job(priority: Priority, client: str, model: str) -> Job:
    address = Address(Mailbox("rkllm", "trace", client), None)
    return Job(0, "", replace(_NOTHING, model=model), address, priority, 0.0, 0.0, float("inf"))
