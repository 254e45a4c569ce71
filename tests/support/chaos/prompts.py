"""What the senders ask, drawn from a seed, and the model that answers it and misbehaves on demand."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from chaos.recording import Asked

_ONCE = {"segv": "segv after 2 tokens", "abort": "abort in prefill", "exit": "exit 7 after 1 tokens"}
"""Faults of the library that strike the first run of a prompt; the second one is answered."""
_ERRORS = {"err": "error after 2 tokens", "fail": "fail"}
_HANGS = {"hang": "hang after 2 tokens", "freeze": "hang in prefill"}
_DECODE_MS = 4
POISONS = 3
"""Prompts that kill the worker each time, at most: each costs `max_attempts` loads."""
SPECIALS = 40
"""Prompts of each kind of fault that a model knows, at most."""


@dataclass(slots=True)
class Prompt:
    """A request as it goes over the wire, and what its sender means to do with it."""

    asked: Asked
    payload: bytes
    cancel_after_s: float | None = None
    """Cancelled so long after it was accepted, or after it has started."""
    cancel_started: bool = False
    fault: str | None = None
    """What the library does on it."""
    received: str | None = None
    """The outcome."""
    accepted_at: float | None = None
    started_at: float | None = None
    last_sent_at: float | None = None
    not_before: float = 0.0
    cancel_sent_at: float | None = None


def write_model(path: Path) -> None:
    """Write the simulated model: one rule for each prompt that is to go wrong, counted over restarts."""
    lines = [
        "rkllm-simulator 1",
        f"fault_state: {path.stem}.struck",
        f"decode_ms_per_token: {_DECODE_MS}",
    ]
    for faults, times in ((_ONCE, 1), (_ERRORS, 1), (_HANGS, 1)):
        for name, fault in faults.items():
            lines += [f'when "{name}-{n}.": fault {fault} first {times} times' for n in range(SPECIALS)]
    lines += [f'when "poison-{n}.": fault abort after 1 tokens' for n in range(POISONS)]
    lines += ['when "garbage-": fault garbage', 'when "stall-": fault stall 300 ms after 2 tokens']
    path.write_text("\n".join(lines) + "\n")


class Prompts:
    """Draws requests of all kinds; the same seed draws the same ones."""

    def __init__(self, seed: int, *, faulty: float) -> None:
        """Keep the arguments; `faulty` is the part of prompts on which the library misbehaves."""
        self._rng = random.Random(seed)
        self._faulty = faulty
        self._left = {name: list(range(SPECIALS)) for name in (*_ONCE, *_ERRORS, *_HANGS)}
        self._left["poison"] = list(range(POISONS))
        self._count = 0

    def draw(self, client: str) -> Prompt:
        """Return the next request of a client."""
        rng, self._count = self._rng, self._count + 1
        request_id, name = f"q{self._count}", f"{client}.q{self._count}"
        asked = Asked(client, request_id, "", 0.0)
        fault = self._fault() if rng.random() < self._faulty else None
        words = self._words(asked, name, fault)
        asked.words, asked.faulty = words, fault is not None
        prompt = Prompt(asked, b"", fault=fault and fault.partition("-")[0])
        asked.text = fault is None and rng.random() < 0.2
        if asked.text:
            prompt.payload = words.encode()
            return prompt
        asked.stream = rng.random() < 0.7
        members: dict[str, object] = {"prompt": words, "stream": asked.stream}
        if rng.random() < 0.3:
            members["priority"] = rng.choice(("interactive", "background"))
        if rng.random() < 0.1:
            asked.ttl_s = members["ttl_s"] = round(rng.uniform(0.2, 4.0), 1)
        elif rng.random() < 0.12:
            prompt.cancel_after_s = rng.choice((0.0, 0.0, 0.05, 0.3))
            prompt.cancel_started = rng.random() < 0.5
            if prompt.cancel_started and fault is None:  # long enough to be cancelled in the middle
                asked.words, asked.expected = f"story 150 tokens {name}", None
                members["prompt"] = asked.words
        if rng.random() < 0.05:
            members["reply_qos"] = 0
        if rng.random() < 0.05:
            members["retain"] = True
        prompt.payload = json.dumps(members).encode()
        return prompt

    def _fault(self) -> str | None:
        names = [*self._left, "garbage", "garbage", "stall", "stall"]
        name = self._rng.choice(names)
        if name not in self._left:
            return f"{name}-"
        return f"{name}-{self._left[name].pop()}." if self._left[name] else None

    def _words(self, asked: Asked, name: str, fault: str | None) -> str:
        rng = self._rng
        if fault is not None:
            asked.poison = fault.startswith("poison")
            # What the answer is does not matter, only that there is exactly one.
            return f"story {rng.randint(10, 30)} tokens {fault} {name}"
        if rng.random() < 0.5:
            asked.expected = f"{name} " + " ".join(
                rng.choice(("ja", "grüße", "日本", "ok")) for _ in range(6)
            )
            return f"say: {asked.expected}"
        return f"story {rng.choice((5, 10, 20, 40))} tokens {name}"
