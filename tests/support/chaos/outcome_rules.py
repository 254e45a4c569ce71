"""What must hold for each request, whatever was broken: its one outcome, its events, its deltas, its runs.

Each rule yields a sentence for each violation, and counts in `seen` how often it had something to look at.
"""

import json
from collections import Counter
from collections.abc import Iterator

from chaos.answers import Thread
from chaos.recording import Recording

_REPEATS = 1_000_000_000
"""Events about a finished request carry larger numbers."""
_FROM_A_DEAD_LIFE_S = 2.0
"""So long after its daemon has died nothing of it is on the way any more."""


def outcome(thread: Thread, recording: Recording, seen: Counter[str]) -> Iterator[str]:
    """Every request has exactly one outcome, and every copy of it the same bytes."""
    seen["outcome"] += 1
    if not thread.outcomes:
        kind = "accepted" if thread.of_type("accepted") else "sent"
        yield f"{thread.name}: it was {kind} and has no outcome"
    different = {said.payload for said in thread.outcomes}
    if len(different) > 1:
        yield f"{thread.name}: {len(different)} different outcomes: {sorted(different)}"


def answer(thread: Thread, recording: Recording, seen: Counter[str]) -> Iterator[str]:
    """The outcome is the request's own: its id, its text; a poisonous one fails."""
    asked, final = thread.asked, thread.final
    if thread.code == "none":
        return
    seen["answer"] += 1
    if final is not None and final["id"] != asked.id:
        yield f"{thread.name}: the outcome has the id {final['id']!r}"
    if asked.poison:
        if thread.code not in ("slot_failed", "model_error", "cancelled", "expired"):
            yield f"{thread.name}: it kills the worker each time and ended as {thread.code}"
    elif thread.code == "ok" and asked.expected is not None:
        text = final["text"] if final is not None else thread.outcomes[0].payload
        if text != asked.expected:
            yield f"{thread.name}: the answer is {text!r}, not {asked.expected!r}"


def memory(thread: Thread, recording: Recording, seen: Counter[str]) -> Iterator[str]:
    """What was accepted is never new again to a later life of the daemon."""
    new = sorted(said.at for said, event in thread.of_type("accepted") if not event["duplicate"])
    if not new:
        return
    seen["memory"] += 1
    for life in recording.lives:
        if life.end is not None and new[0] < life.end and new[-1] > life.end + _FROM_A_DEAD_LIFE_S:
            yield f"{thread.name}: accepted as new again after the daemon's restart"
            return


def events(thread: Thread, recording: Recording, seen: Counter[str]) -> Iterator[str]:
    """No number of an event is used twice; attempts rise with the numbers."""
    by_number: dict[int, str] = {}
    for said, event in thread.events:
        if event["type"] in ("rejected", "cancel_unknown") or event["n"] >= _REPEATS:
            continue
        seen["events"] += 1
        known = by_number.setdefault(event["n"], said.payload)
        if known != said.payload:
            yield f"{thread.name}: two events have the number {event['n']}: {known} {said.payload}"
    numbered = [json.loads(by_number[number]) for number in sorted(by_number)]
    attempts = [event["attempt"] for event in numbered if event["type"] == "started"]
    if attempts != sorted(set(attempts)):
        yield f"{thread.name}: attempts began in the order {attempts}"


def deltas(thread: Thread, recording: Recording, seen: Counter[str]) -> Iterator[str]:
    """The valid deltas join to the text of the final; what is missing was lost with a connection."""
    final = thread.final
    if final is None or not thread.deltas:
        return
    valid, different = _merged(thread, final["attempt"])
    yield from different
    if any(delta.attempt > final["attempt"] for delta in thread.deltas):
        yield f"{thread.name}: deltas of a later attempt than the final's"
    if not final["deltas"]:
        return
    seen["deltas"] += 1
    if any(seq >= final["deltas"] for seq in valid):
        yield f"{thread.name}: delta {max(valid)}, but the final counts {final['deltas']}"
    elif len(valid) == final["deltas"]:
        seen["complete deltas"] += 1
        joined = "".join(valid[seq] for seq in sorted(valid))
        if joined != final["text"]:
            yield f"{thread.name}: the deltas join to {joined!r}, the final is {final['text']!r}"
    elif not _may_miss(thread, recording):
        missing = sorted(set(range(final["deltas"])) - set(valid))
        yield f"{thread.name}: deltas {missing} are missing though nothing was broken"
    elif not _in_order([valid[seq] for seq in sorted(valid)], final["text"]):
        yield f"{thread.name}: its deltas are not pieces of the final"


def _merged(thread: Thread, last_attempt: int) -> tuple[dict[int, str], list[str]]:
    """Return the valid deltas by number, and what is wrong with them; an attempt may keep earlier ones."""
    valid: dict[int, str] = {}
    wrong = []
    from_seq = {event["attempt"]: event["from_seq"] for _, event in thread.of_type("restarted")}
    for attempt in range(1, last_attempt + 1):
        kept = from_seq.get(attempt, 0)
        valid = {seq: text for seq, text in valid.items() if seq < kept}
        for delta in thread.deltas:
            if delta.attempt == attempt:
                known = valid.setdefault(delta.seq, delta.text)
                if known != delta.text:
                    number = f"{attempt}.{delta.seq}"
                    wrong.append(f"{thread.name}: two deltas {number}: {known!r} and {delta.text!r}")
    return valid, wrong


def _may_miss(thread: Thread, recording: Recording) -> bool:
    begun = [said.at for said, _ in thread.of_type("accepted")] or [thread.asked.first_at]
    end = thread.outcomes[0].at
    broken = recording.disturbed(min(begun) - 1, end, "link", "broker", "observer", "daemon")
    return broken or not recording.served(min(begun) - 1, end)


def _in_order(pieces: list[str], text: str) -> bool:
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def runs(thread: Thread, recording: Recording, seen: Counter[str]) -> Iterator[str]:
    """Nothing of a request runs when its outcome is out, nor after its deadline; and none expires early."""
    if not thread.outcomes:
        return
    out_at = thread.outcomes[0].at
    seen["runs"] += len(thread.runs)
    seen["cancelled"] += thread.code == "cancelled"
    for ran in thread.runs:
        if ran.begin > out_at:
            yield f"{thread.name}: it ran again {ran.begin - out_at:.3f} s after its outcome ({thread.code})"
        elif ran.end is not None and ran.end > out_at:
            yield f"{thread.name}: it still ran {ran.end - out_at:.3f} s after its outcome ({thread.code})"
    yield from _deadline(thread, recording, seen)


def _deadline(thread: Thread, recording: Recording, seen: Counter[str]) -> Iterator[str]:
    ttl_s, accepted = thread.asked.ttl_s, [said.at for said, _ in thread.of_type("accepted")]
    if ttl_s is None:
        return
    early_s = thread.asked.first_at + ttl_s - thread.outcomes[0].at
    if thread.code == "expired" and early_s > 0:
        yield f"{thread.name}: expired {early_s:.3f} s before its deadline"
    if not accepted:
        return
    seen["deadline"] += 1
    due = min(accepted) + ttl_s
    bounds = (("began", due + 1, [ran.begin for ran in thread.runs]),)
    bounds += (("ran on", due + 1 + recording.abort_grace_s, [ran.end for ran in thread.runs if ran.end]),)
    for what, bound, times in bounds:
        for at in times:
            # Who is stopped, or has no core, can end nothing; a run outlives its killed daemon for a moment.
            if at > bound + recording.grace_s and not recording.disturbed(
                due - 1, at, "daemon", "worker", "machine"
            ):
                yield f"{thread.name}: it {what} {at - due:.3f} s after its deadline"


RULES = (outcome, answer, memory, events, deltas, runs)
