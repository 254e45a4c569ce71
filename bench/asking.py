"""Ask a service and check what comes back: nothing lost, nothing twice, gapless, the right text."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.models import Question
from bench.service import Dialect
from bench.wire import Message, Wire

ANSWER_S = 120.0
"""Longest wait for all answers of one call; a service that takes longer has lost something."""

_numbers = itertools.count(1)


class Broken(Exception):
    """An answer is missing or wrong: what is measured does not count."""


@dataclass(eq=False, slots=True)
class Answer:
    """Everything that came for one question; times in nanoseconds of CLOCK_MONOTONIC."""

    question: Question
    id: str
    client: str
    asked_ns: int = 0
    deltas: list[tuple[int, bytes]] = field(default_factory=list)
    events: list[tuple[int, bytes]] = field(default_factory=list)
    finals: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def first_ns(self) -> int:
        """Return when the first delta came.

        Raises:
            Broken: None came.
        """
        if not self.deltas:
            raise Broken(f"{self.id}: no delta came")
        return self.deltas[0][0]

    @property
    def final_ns(self) -> int:
        """Return when the answer was complete.

        Raises:
            Broken: It is not.
        """
        if not self.finals:
            raise Broken(f"{self.id}: no final came")
        return self.finals[0][0]

    def event(self, kind: str) -> int | None:
        """Return when the first event of a kind came, or None."""
        return next((at for at, payload in self.events if json.loads(payload)["type"] == kind), None)

    def check(self, dialect: Dialect) -> None:
        """Check that the answer is right and that its deltas are gapless and equal to it.

        Raises:
            Broken: They are not; says how.
        """
        if len(self.finals) != 1:
            raise Broken(f"{self.id}: {len(self.finals)} finals")
        final = self.finals[0][1]
        text = _text(json.loads(final)) if dialect.is_json else final.decode()
        if text != self.question.answer:
            raise Broken(f"{self.id}: the text is {text[:80]!r}, not {self.question.answer[:80]!r}")
        joined = self._joined(json.loads(final)) if dialect.is_json else self._bare()
        if joined != text:
            at = next((n for n, (a, b) in enumerate(zip(joined, text, strict=False)) if a != b), len(joined))
            raise Broken(
                f"{dialect.base} {self.id}: {len(self.deltas)} deltas of {len(joined)} characters come apart "
                f"from the text of {len(text)} at character {at}"
            )

    def _bare(self) -> str:
        return b"".join(payload for _, payload in self.deltas).decode()

    def _joined(self, final: Any) -> str:
        """Return the text of the valid deltas.

        Raises:
            Broken: One of them is missing.
        """
        valid = [
            one for _, payload in self.deltas if (one := json.loads(payload))["attempt"] == final["attempt"]
        ]
        deltas = sorted(valid, key=lambda one: one["seq"])
        missing = set(range(final["deltas"])) - {one["seq"] for one in deltas}
        if missing or len(deltas) != final["deltas"]:
            which = f"{len(missing)} of {final['deltas']} deltas are missing, first {min(missing, default=0)}"
            raise Broken(f"{self.id}: {which}")
        return "".join(one["text"] for one in deltas)


def _text(final: Any) -> str:
    if final["status"] != "ok":
        raise Broken(f"{final['id']}: {final['error']}")
    text: str = final["text"]
    return text


class Asker:
    """One connection that asks for one client."""

    def __init__(self, dialect: Dialect, client: str) -> None:
        self.dialect = dialect
        self.client = client
        self.strangers = 0
        """Answers to nothing that was asked."""
        self._answers: dict[str, Answer] = {}
        self._open = 0
        self._all_done = asyncio.Event()
        self._all_done.set()
        self._wire: Wire | None = None

    @classmethod
    async def connect(cls, port: int, dialect: Dialect, client: str) -> "Asker":
        """Connect and subscribe to the client's answers."""
        asker = cls(dialect, client)
        asker._wire = await Wire.open(port, f"bench-{dialect.base}-{client}", asker._take)
        mailbox = dialect.mailbox(client)
        await asker._wire.subscribe([f"{mailbox}/{kind}/+" for kind in ("event", "delta", "reply")])
        return asker

    @property
    def wire(self) -> Wire:
        """Return the connection.

        Raises:
            ConnectionError: There is none.
        """
        if self._wire is None:
            raise ConnectionError("not connected")
        return self._wire

    @property
    def answers(self) -> list[Answer]:
        """Return everything that was asked, in order."""
        return list(self._answers.values())

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Send questions in one piece, at once; their answers fill as they come."""
        answers = [Answer(question, f"q{next(_numbers)}", self.client) for question in questions]
        requests = [self.dialect.request(self.client, one.id, one.question.prompt) for one in answers]
        self._answers.update((one.id, one) for one in answers)
        self._open += len(answers)
        self._all_done.clear()
        asked_ns = self.wire.publish(requests)
        for one in answers:
            one.asked_ns = asked_ns
        return answers

    def repeat(self) -> None:
        """Send everything that has no final once more, as a sender does that was not answered."""
        open_ones = [one for one in self._answers.values() if not one.finals]
        self.wire.publish(
            [self.dialect.request(self.client, one.id, one.question.prompt) for one in open_ones]
        )

    def cancel(self) -> None:
        """Cancel everything that this client has asked."""
        self.wire.publish([(f"{self.dialect.mailbox(self.client)}/cancel", b'{"all": true}')])

    async def done(self, within_s: float = ANSWER_S) -> None:
        """Wait until every question has its final.

        Raises:
            Broken: Some have none in time.
        """
        try:
            await asyncio.wait_for(self._all_done.wait(), within_s)
        except TimeoutError as exc:
            who = f"{self.dialect.base} {self.client}"
            raise Broken(f"{who}: {self._open} answers did not come in {within_s:g} s") from exc

    async def close(self) -> None:
        """Disconnect."""
        await self.wire.close()

    def _take(self, message: Message) -> None:
        _, kind, request_id = message.topic.rsplit("/", 2)
        answer = self._answers.get(request_id)
        if answer is None:
            self.strangers += 1
        elif kind == "delta":
            answer.deltas.append((message.at_ns, message.payload))
        elif kind == "event":
            answer.events.append((message.at_ns, message.payload))
        else:
            answer.finals.append((message.at_ns, message.payload))
            if len(answer.finals) == 1:
                self._open -= 1
                if not self._open:
                    self._all_done.set()


async def ask_one(asker: Asker, question: Question, within_s: float = ANSWER_S) -> Answer:
    """Ask, wait for the final, check it."""
    (answer,) = asker.ask([question])
    await asker.done(within_s)
    answer.check(asker.dialect)
    return answer
