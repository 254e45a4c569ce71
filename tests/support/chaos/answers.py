"""Read what came for each request: events, deltas, outcomes and rejections of protocol 1.0."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chaos.recording import Asked, Ran, Recording, Said

RETRYABLE_TEXT = (
    "ERROR internal:", "ERROR queue_full:", "ERROR client_limit:", "ERROR rate_limited:", "ERROR paused:",
    "ERROR shutting_down:", "ERROR model_error:",
)  # fmt: skip
"""What a sender of bare text may be told in place of an answer; nothing of it is an outcome for certain."""

ONLY_REFUSALS = {
    "invalid_json", "invalid_request", "unsupported", "unknown_model", "queue_full", "client_limit",
    "rate_limited", "id_conflict", "paused", "shutting_down", "reply_topic_denied",
}  # fmt: skip


def is_outcome(payload: str, *, text: bool) -> bool:
    """Return whether what came on `reply` is the one outcome; else the request was refused, to be resent."""
    if text:
        return not payload.startswith(RETRYABLE_TEXT)
    final = json.loads(payload)
    # A refusal is for a request that has not come to be: it has no model.
    return final["status"] == "ok" or (final["error"]["code"] not in ONLY_REFUSALS and bool(final["model"]))


@dataclass(slots=True)
class Delta:
    """A piece of an answer."""

    at: float
    attempt: int
    seq: int
    text: str


@dataclass
class Thread:
    """Everything that came for one request."""

    asked: Asked
    events: list[tuple[Said, dict[str, Any]]] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    replies: list[Said] = field(default_factory=list)
    runs: list[Ran] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return what a person looks for in the recording."""
        return f"{self.asked.client}/{self.asked.id}"

    @cached_property
    def outcomes(self) -> list[Said]:
        """Return the outcomes that were published, the first first."""
        found = [said for said in self.replies if is_outcome(said.payload, text=self.asked.text)]
        return sorted(found, key=lambda said: said.at)

    @cached_property
    def final(self) -> dict[str, Any] | None:
        """Return the outcome of a JSON request."""
        if self.asked.text or not self.outcomes:
            return None
        members: dict[str, Any] = json.loads(self.outcomes[0].payload)
        return members

    @property
    def code(self) -> str:
        """Return the code of the outcome, `ok`, or `none`."""
        if not self.outcomes:
            return "none"
        if self.final is not None:
            return self.final["error"]["code"] if self.final["status"] == "error" else "ok"
        payload = self.outcomes[0].payload
        return payload[6:].partition(":")[0] if payload.startswith("ERROR ") else "ok"

    def of_type(self, kind: str) -> list[tuple[Said, dict[str, Any]]]:
        """Return the events of a type."""
        return [(said, event) for said, event in self.events if event["type"] == kind]


def threads(recording: Recording) -> list[Thread]:
    """Return what came for each request."""
    found = {(asked.client, asked.id): Thread(asked) for asked in recording.asked}
    runs = defaultdict(list)
    for ran in recording.ran:
        runs[ran.words].append(ran)
    for thread in found.values():
        thread.runs = runs[thread.asked.words]
    for said in recording.said:
        levels = said.topic.split("/")
        if len(levels) != 6 or levels[2] != "client":
            continue
        thread = found.get((levels[3], levels[5]))
        if thread is None:
            continue
        match levels[4]:
            case "event":
                thread.events.append((said, json.loads(said.payload)))
            case "delta" if said.observer:
                delta = json.loads(said.payload)
                piece = delta.get("text", "")
                thread.deltas.append(Delta(said.at, delta["attempt"], delta["seq"], piece))
            case "reply":
                thread.replies.append(said)
    return list(found.values())
