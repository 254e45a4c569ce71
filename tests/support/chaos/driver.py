"""One run: start the world, let senders ask while faults come at random points, heal, and judge.

Everything that is drawn comes from the seed: which faults, when, and what is asked. What the machine makes of
it (which token is the last before a kill) differs from run to run, so a seed is a schedule, not a replay; the
recording of a run that failed can be judged again.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.checker import Judgement, judge
from chaos.faults import KINDS, Kind
from chaos.prompts import Prompt, Prompts
from chaos.recording import Fault
from chaos.sender import Sender
from chaos.wire import now
from chaos.world import World

_ANSWERED_S = 90.0
"""Longest wait, when all is whole again, for what is still unanswered."""
NOT_OURS = ("deaf", "slow", "set_clock")
"""What is recorded among the faults and was not brought by us."""
_SETTLED_S = 3.0
"""Longer than `queue` takes to tell that nothing is left."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it."""

    seed: int
    faults: int
    prompts: int
    """At least; asked until the last fault is over."""
    longest_s: float
    """No fault begins after this time."""
    senders: int = 20
    under_way: int = 4
    """Requests without outcome of one sender."""
    pause_s: float = 2.0
    """Mean pause of a sender between two requests."""
    faulty: float = 0.06
    """Part of the prompts on which the library misbehaves."""
    rest_s: float = 1.2
    """Longest rest between two faults; now and then it is long enough for all to be looked at."""
    kinds: tuple[Kind, ...] = KINDS
    slack_s: float = 0.0
    """Added to every bound of time."""
    brief: bool = False
    """Faults are as short as they can be, and no rest between them is for looking at all."""


@dataclass(slots=True)
class Result:
    """What came of it."""

    plan: Plan
    world: World
    judgement: Judgement
    broken: list[str] = field(default_factory=list)
    """What is wrong beside the rules of the checker."""
    took_s: float = 0.0
    library: Counter[str] = field(default_factory=Counter)
    """Prompts on which the library was to misbehave, by kind."""
    resent: int = 0

    @property
    def violations(self) -> list[str]:
        """Return everything that is wrong."""
        return self.judgement.violations + self.broken

    @property
    def faults(self) -> Counter[str]:
        """Return how often each kind of fault came, those of the library included."""
        broken = Counter(fault.kind for fault in self.world.recording.faults if fault.kind not in NOT_OURS)
        return broken + Counter({f"library {kind}": count for kind, count in self.library.items()})


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Prepare; `folder` is empty and takes everything."""
        self._plan = plan
        self._world = World(folder, plan.seed, brief=plan.brief, slack_s=plan.slack_s)
        self._prompts = Prompts(plan.seed, faulty=plan.faulty)
        self._rng = random.Random(plan.seed + 1)
        self._drawing = True
        self._library: Counter[str] = Counter()
        self._broken: list[str] = []
        self._senders: list[Sender] = []

    async def run(self) -> Result:
        """Run it to its end."""
        began, plan, world = now(), self._plan, self._world
        asking: list[asyncio.Task[None]] = []
        try:
            await world.start()
            self._senders = [self._sender(number) for number in range(plan.senders)]
            asking = [asyncio.create_task(sender.run(), name=sender.name) for sender in self._senders]
            await self._break(began)
            await self._finish()
        except TimeoutError as exc:
            self._broken.append(f"daemon: {exc}")
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await world.stop()
        world.read_runs()
        self._broken += [f"daemon: {sentence}" for sentence in world.exits]
        if "Traceback" in world.daemon.log:
            self._broken.append("daemon: a traceback is in its log")
        return Result(
            plan,
            world,
            judge(world.recording),
            self._broken,
            now() - began,
            self._library,
            sum(sender.resent for sender in self._senders),
        )

    def _sender(self, number: int) -> Sender:
        return Sender(
            f"s{number}",
            self._world.sender_proxy.port,
            self._world.recording,
            self._draw,
            random.Random(self._plan.seed * 1000 + number),
            under_way=self._plan.under_way,
            pause_s=self._plan.pause_s,
        )

    def _draw(self, client: str) -> Prompt | None:
        if not self._drawing:
            return None
        prompt = self._prompts.draw(client)
        if prompt.fault:
            self._library[prompt.fault] += 1
        return prompt

    async def _break(self, began: float) -> None:
        """Bring fault after fault, then go on until enough was asked."""
        plan, rng, world = self._plan, self._rng, self._world
        weights = [kind.weight for kind in plan.kinds]
        done = 0
        while now() - began < plan.longest_s:
            if done >= plan.faults:
                if len(world.recording.asked) >= plan.prompts:
                    break
                await asyncio.sleep(0.1)
                continue
            # First each kind once: a short run has them all.
            kind = plan.kinds[done] if done < len(plan.kinds) else rng.choices(plan.kinds, weights)[0]
            done += 1
            at = now()
            fault = Fault(kind.name, at, float("inf"), list(kind.touches))
            world.recording.faults.append(fault)
            await kind.break_it(world, rng)
            fault.end = now()
            world.look_after_daemon()
            if "daemon" in kind.touches:
                await world.until_loaded()
            looked_at = rng.random() < 0.25 and not plan.brief
            await asyncio.sleep(2.6 if looked_at else rng.uniform(0.1, plan.rest_s))

    async def _finish(self) -> None:
        """Ask no more, wait for every outcome, and look a last time."""
        self._drawing = False
        until = now() + _ANSWERED_S
        while (left := sum(sender.unanswered for sender in self._senders)) and now() < until:
            self._world.look_after_daemon()
            await asyncio.sleep(0.05)
        if left:
            self._broken.append(f"senders: {left} requests got no outcome in {_ANSWERED_S:.0f} s")
        healed = now()
        await asyncio.sleep(_SETTLED_S)
        await self._world.look(healed, last=True)
        await self._world.end_daemon()
