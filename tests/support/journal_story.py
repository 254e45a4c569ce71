"""A scripted life of a journal, what each of its steps means, and what a journal file then holds."""

import asyncio
import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from live_jobs import address, request

from rkllm_mqtt.core.job import Delivery, IllegalTransition, JobEvent, JobState, Priority, after
from rkllm_mqtt.logs import configure_logging
from rkllm_mqtt.store.admission import NewJob
from rkllm_mqtt.store.backup import back_up
from rkllm_mqtt.store.errors import AlreadyFinished, JobError, StoreError
from rkllm_mqtt.store.journal import Journal
from rkllm_mqtt.store.reading import reader

Step = tuple[Any, ...]
"""The method's name, then its arguments; a job is named by its id."""
Note = Callable[[str], None]

LONG = "a prompt of more than a page " * 180
HERE, THERE = address("kitchen").to_json(), address("hall").to_json()
ANSWER = b'{"text":"' + b"an answer of more than a page " * 150 + b'"}'

FIRST_LIFE: tuple[tuple[Step, ...], ...] = (
    (("set_meta", "uid", "5f0c"),),
    (("admit", "a"),),
    # Together: they share a commit.
    (("admit", "b"), ("admit", "c"), ("admit", "d")),
    (("claim", "a", 1),),
    (("requeue", "a", 1),),
    (("request_cancel", "b"), ("claim", "a", 2), ("readdress", "c", THERE)),
    (("finish", "a", JobEvent.COMPLETED, ANSWER, Delivery.PENDING),),
    (("checkpoint",),),
    (("finish", "b", JobEvent.CANCEL_CONFIRMED, b"{}", Delivery.NONE), ("claim", "c", 1)),
    (("set_last", "kitchen", 9.0), ("delivered", "b", Delivery.DONE)),
    (("purge", "b"),),
    (("checkpoint",),),
)
SECOND_LIFE: tuple[tuple[Step, ...], ...] = (
    (("set_meta", "session", "2"),),
    (("delivered", "a", Delivery.DONE), ("set_last", "hall", 8.0)),
    (("finish", "c", JobEvent.GAVE_UP, b"{}", Delivery.PENDING),),
    (("admit", "e"),),
    (("clear_last", "kitchen"), ("delivered", "c", Delivery.REFUSED)),
)
JOBLESS = frozenset({"admit", "checkpoint", "purge", "set_meta", "set_last", "clear_last"})
STEPS = [step for together in (*FIRST_LIFE, *SECOND_LIFE) for step in together]
COMMITS = [number for number, together in enumerate((*FIRST_LIFE, *SECOND_LIFE)) for _ in together]
"""The commit that each step shares with its neighbours."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a journal says of one job."""

    state: JobState = JobState.WAITING
    attempt: int = 0
    crashes: int = 0
    cancel_requested: bool = False
    address: str = HERE
    outcome: bytes | None = field(default=None, repr=False)
    delivery: Delivery = Delivery.NONE

    @property
    def is_settled(self) -> bool:
        """It may be removed after its retention."""
        return self.outcome is not None and self.delivery is not Delivery.PENDING


def _finished(told: Told, event: JobEvent, outcome: bytes, delivery: Delivery) -> Told:
    return replace(told, state=after(told.state, event), outcome=outcome, delivery=delivery)


_OF_A_JOB: dict[str, Callable[..., Told]] = {
    "admit": lambda told: told,
    "claim": lambda told, attempt: replace(told, state=JobState.RUNNING, attempt=attempt),
    "requeue": lambda told, crashes: replace(told, state=JobState.WAITING, crashes=crashes),
    "request_cancel": lambda told: replace(told, cancel_requested=True),
    "readdress": lambda told, where: replace(told, address=where),
    "finish": _finished,
    "delivered": lambda told, delivery: replace(told, delivery=delivery),
}


@dataclass(slots=True)
class Contents:
    """All that a journal promises to keep."""

    jobs: dict[str, Told] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    lasts: dict[str, float] = field(default_factory=dict)

    def after(self, step: Step) -> "Contents":
        """Return what holds when `step` has been carried out."""
        name, *arguments = step
        jobs, meta, lasts = dict(self.jobs), dict(self.meta), dict(self.lasts)
        if name in _OF_A_JOB:
            job, *values = arguments
            jobs[job] = _OF_A_JOB[name](jobs.get(job, Told()), *values)
        elif name == "purge":
            jobs = {job: told for job, told in jobs.items() if not told.is_settled}
        elif name == "set_meta":
            meta[arguments[0]] = arguments[1]
        elif name == "set_last":
            lasts[arguments[0]] = arguments[1]
        elif name == "clear_last":
            lasts.pop(arguments[0], None)
        else:
            assert name == "checkpoint", step
        return Contents(jobs, meta, lasts)

    def after_all(self, steps: Iterable[Step]) -> "Contents":
        """Return what holds after several steps."""
        told = self
        for step in steps:
            told = told.after(step)
        return told


async def live(path: Path, note: Note, *, on_refused: Callable[[], None] = lambda: None) -> None:
    """Live the story on `path`; `note` gets `ask N`, `ok N` or `no N` for a step, and `no start`.

    A refused step is asked for once more, as the daemon does, and then let go together with what needs it.
    """
    number = 0
    for life in (FIRST_LIFE, SECOND_LIFE):
        journal = await _opened(path, note)
        if journal is None:
            number += sum(map(len, life))
            on_refused()
            continue
        seqs = {}
        for job in "abcde":
            try:
                found = await journal.find("rock", "kitchen", job)
            except StoreError:
                continue  # the disk fails reads as well; a later step may find it
            if found is not None:
                seqs[job] = found.seq
        for together in life:
            numbers = range(number, number + len(together))
            number += len(together)
            await _tell(journal, dict(zip(numbers, together, strict=True)), seqs, note, on_refused)
        await journal.close()


async def _opened(path: Path, note: Note) -> Journal | None:
    for _ in range(2):
        try:
            return await Journal.open(path, ballast_mb=1, tick_s=60.0)
        except StoreError:
            note("no start")
    return None


async def _tell(
    journal: Journal, asked: dict[int, Step], seqs: dict[str, int], note: Note, on_refused: Callable[[], None]
) -> None:
    for _ in range(2):
        futures = {}
        for number, step in asked.items():
            if step[0] not in JOBLESS and step[1] not in seqs:
                continue  # the job that it is about was refused
            note(f"ask {number}")
            futures[number] = asyncio.ensure_future(_call(journal, step, seqs))
        refused = {}
        for number, future in futures.items():
            step = asked[number]
            try:
                result = await future
            except AlreadyFinished:
                note(f"wrong {number}")  # each job is finished once only: something of a refused call stayed
            except (JobError, IllegalTransition):
                note(f"no {number}")  # what the step builds on was refused
            except StoreError:
                refused[number] = step
                note(f"no {number}")
            else:
                if step[0] == "admit":
                    seqs[step[1]] = result.known.seq
                    note(f"{'ok' if result.fresh else 'wrong'} {number}")
                else:
                    note(f"ok {number}")
        if not refused:
            return
        on_refused()
        asked = refused


def _call(journal: Journal, step: Step, seqs: dict[str, int]) -> Any:
    """Begin a step."""
    name, *arguments = step
    if name == "admit":
        return journal.admit(new_job(arguments[0]), may_insert=True, receipt=None)
    if name == "checkpoint":
        return asyncio.to_thread(checkpoint, journal.path)
    if name == "purge":
        return journal.purge(journal.now() + 1.0)
    if name in ("set_last", "clear_last"):
        return getattr(journal, name)("rock", *arguments)
    if name != "set_meta":
        arguments[0] = seqs[arguments[0]]
    return getattr(journal, name)(*arguments)


def new_job(name: str) -> NewJob:
    """Return a valid request of one client."""
    body = request(LONG if name in "ac" else "short").to_json()
    digest = hashlib.sha256(body.encode()).digest()
    return NewJob("rock", "kitchen", name, digest, Priority.NORMAL, 1.5, None, body, HERE)


def checkpoint(path: Path) -> None:
    """Move the log into the database, as the writer does when it is idle: with a connection of its own."""
    # It is upkeep, and promises nothing.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def answered(notes: Iterable[str]) -> tuple[list[int], list[int]]:
    """Return the steps that were acknowledged, in their order, and those whose answer nobody saw.

    Raises:
        AssertionError: A refused step was found to have left something behind.
    """
    words: dict[int, str] = {}
    for note in notes:
        word, number = note.split()
        if number == "start":
            continue
        assert word != "wrong", number
        words.pop(int(number), None)
        words[int(number)] = word
    return [n for n, word in words.items() if word == "ok"], [n for n, word in words.items() if word == "ask"]


def reopen(path: Path) -> None:
    """Open a journal as the next start does, and close it.

    Raises:
        StoreError: It refuses.
    """

    async def open_and_close() -> None:
        await (await Journal.open(path, ballast_mb=0)).close()

    asyncio.run(open_and_close())


def read_contents(path: Path) -> Contents:
    """Return what a journal file holds, read without the code that wrote it."""
    with reader(path) as connection:
        jobs = connection.execute(
            "SELECT id, state, attempt, crashes, cancel_requested, address, outcome, delivery FROM jobs"
            " LEFT JOIN outcomes ON outcomes.seq = jobs.seq"
        ).fetchall()
        return Contents(
            jobs={
                row[0]: Told(
                    JobState(row[1]),
                    row[2],
                    row[3],
                    bool(row[4]),
                    row[5],
                    row[6],
                    Delivery[row[7].upper()],
                )
                for row in jobs
            },
            meta=dict(connection.execute("SELECT key, value FROM meta").fetchall()),
            lasts=dict(connection.execute("SELECT client, expires_at FROM lasts").fetchall()),
        )


def run_to_the_end(folder: Path, note: Note) -> None:
    """Live the story; for `FaultyDisk`."""
    _quiet()
    asyncio.run(live(folder / "journal.db", note))


def run_until_refused(folder: Path, note: Note) -> None:
    """Live the story, and die as by a kill when the first step has been refused."""
    _quiet()
    asyncio.run(live(folder / "journal.db", note, on_refused=lambda: os._exit(0)))


def back_up_beside(folder: Path, note: Note) -> None:
    """Copy the journal that stands beside `folder` into it; for `FaultyDisk`."""
    with reader(folder.parent / "source.db") as connection:
        try:
            back_up(connection, folder / "copy.db")
        except StoreError:
            note("no 0")
        else:
            note("ok 0")


def _quiet() -> None:
    configure_logging("critical")
