"""A healthy recording, to be broken by the tests of the checker."""

import json

from chaos.recording import Asked, Life, Link, Look, Ran, Recording, Said

NODE = "n"
BOX = f"rkllm/{NODE}/client/s1"


def final(request_id, text, **members):
    """Return an outcome as protocol 1.0 has it, as far as the checker reads it."""
    return json.dumps(
        {"id": request_id, "model": "m", "status": "ok", "text": text, "attempt": 1, "deltas": 2} | members
    )


def failed(request_id, code, **members):
    return final(request_id, "", status="error", error={"code": code}, deltas=0, **members)


def event(kind, number, **members):
    return json.dumps({"type": kind, "n": number} | members)


def state(*, status="online", boot="b1", at=20, pid=5, **queue):
    told = {"state": "idle", "length": 0, "running": []} | queue
    return {
        "status": status,
        "info": json.dumps({"boot_id": boot}),
        "health": json.dumps({"boot_id": boot, "at": at, "worker": {"pid": pid}}),
        "queue": json.dumps(told),
        "stats": "{}",
    }


def healthy():
    """One streamed answer, one bare text, one that was cancelled; a restart that was told; three looks."""
    kept = Recording(NODE)
    kept.asked = [
        Asked("s1", "a", "words a", 10.0, stream=True, ttl_s=5.0, expected="one two"),
        Asked("s1", "t", "words t", 10.0, text=True, expected="bare"),
        Asked("s1", "c", "words c", 10.0),
    ]
    kept.said = [
        Said(10.1, f"{BOX}/event/a", event("accepted", 1, duplicate=False)),
        Said(10.2, f"{BOX}/event/a", event("started", 2, attempt=1)),
        Said(10.3, f"{BOX}/delta/a", json.dumps({"attempt": 1, "seq": 0, "text": "one "})),
        Said(10.4, f"{BOX}/delta/a", json.dumps({"attempt": 1, "seq": 1, "text": "two"})),
        Said(10.6, f"{BOX}/reply/a", final("a", "one two")),
        Said(10.9, f"{BOX}/reply/t", "bare"),
        Said(10.2, f"{BOX}/event/c", event("accepted", 1, duplicate=False)),
        Said(11.5, f"{BOX}/reply/c", failed("c", "cancelled")),
        Said(31.5, f"rkllm/{NODE}/status", "offline"),
    ]
    kept.ran = [Ran("words a", 10.15, 10.5), Ran("words t", 10.7, 10.8), Ran("words c", 11.0, 11.4)]
    kept.links = [
        Link(1.0, "connected"),
        Link(1.1, "serving"),
        Link(30.0, "down"),
        Link(33.0, "connected"),
        Link(33.1, "serving"),
    ]
    kept.lives = [Life(0.5, 30.0), Life(32.0)]
    kept.looks = [
        Look(1.1, 3.1, state(at=2), 3.0, 5),
        Look(33.1, 35.1, state(boot="b2", at=34), 35.0, 5),
        Look(40.0, 45.0, state(boot="b2", at=34), 45.0, 5, last=True),
    ]
    return kept
