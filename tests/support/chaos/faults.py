"""What is broken, one function each: it breaks something, waits, and leaves it whole.

Each takes the world and a seeded random number generator, and returns when nothing is broken any more, though
nothing may have recovered yet. What it disturbs is written beside it: the checker excuses nothing else.
"""

import asyncio
import contextlib
import errno
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chaos.proxy import Link, Way
from chaos.world import KEEPALIVE_S, STALL_S, WILL_DELAY_S, World

Rng = random.Random
_BOOT_IN_THE_PAST = 946_684_800.0
"""2000-01-01: where a board without a battery begins."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault."""

    break_it: Callable[[World, Rng], Awaitable[None]]
    touches: tuple[str, ...]
    weight: int

    @property
    def name(self) -> str:
        """Return the name of its function."""
        return self.break_it.__name__


# the worker


async def kill_worker(world: World, rng: Rng) -> None:
    """Kill -9 of the worker."""
    _send(world.worker_pid(), signal.SIGKILL)


async def stop_worker(world: World, rng: Rng) -> None:
    """SIGSTOP of the worker: a hang that even the reader thread does not survive."""
    pid = world.worker_pid()
    _send(pid, signal.SIGSTOP)
    await asyncio.sleep(_between(world, rng, 0.1, 1.5))
    _send(pid, signal.SIGCONT)


async def break_model(world: World, rng: Rng) -> None:
    """The model file is damaged while the worker restarts, and repaired."""
    whole = world.model.read_bytes()
    world.model.write_bytes(b"rubbish")
    try:
        _send(world.worker_pid(), signal.SIGKILL)
        await asyncio.sleep(_between(world, rng, 0.3, 2.0))
    finally:
        world.model.write_bytes(whole)
    await asyncio.sleep(0.5)


# the daemon


async def kill_daemon(world: World, rng: Rng) -> None:
    """Kill -9 of the daemon; it is started again at once, or when the will is out."""
    world.kill_daemon()
    await asyncio.sleep(_one_of(world, rng, 0.0, 0.2, WILL_DELAY_S + 1.5))
    world.start_daemon()


async def end_daemon(world: World, rng: Rng) -> None:
    """SIGTERM of the daemon, and a start."""
    await world.end_daemon()
    world.start_daemon()


async def stop_daemon(world: World, rng: Rng) -> None:
    """SIGSTOP of the daemon, for longer than the library may be silent, or than the broker waits."""
    process = world.daemon.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(_one_of(world, rng, STALL_S + 0.3, 0.3, 5.0))
    process.send_signal(signal.SIGCONT)


async def cut_power(world: World, rng: Rng) -> None:
    """The whole board dies at once and the network hears nothing of it; the next boot may be in 2000."""
    world.go_silent()
    worker = world.worker_pid()
    world.kill_daemon()
    _send(worker, signal.SIGKILL)
    world.machine.reboot()
    world.machine.set_wall(rng.choice((None, _BOOT_IN_THE_PAST)))
    await asyncio.sleep(_one_of(world, rng, 0.2, 0.2, 1.0, 1.5 * KEEPALIVE_S + WILL_DELAY_S + 1.5))
    world.start_daemon()
    world.set_clock_later(1.5)  # when the network has told it


# the broker


async def kill_broker(world: World, rng: Rng) -> None:
    """Kill -9 of the broker; it comes back with what it had written."""
    await _restart_broker(world, rng, signal.SIGKILL, forget=False)


async def forget_broker(world: World, rng: Rng) -> None:
    """Kill -9 of the broker, and its file is gone: no session, no retained message, no queue."""
    await _restart_broker(world, rng, signal.SIGKILL, forget=True)


async def end_broker(world: World, rng: Rng) -> None:
    """SIGTERM of the broker."""
    await _restart_broker(world, rng, signal.SIGTERM, forget=False)


async def stop_broker(world: World, rng: Rng) -> None:
    """SIGSTOP of the broker: a network that swallows everything."""
    process = world.broker.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(_one_of(world, rng, 0.3, 1.0, 5.0))
    process.send_signal(signal.SIGCONT)


# the connections


async def cut_daemon(world: World, rng: Rng) -> None:
    """The daemon's connection is reset, in the middle of a packet or between two."""
    _cut(world.daemon_proxy.links, rng)


async def cut_senders(world: World, rng: Rng) -> None:
    """The connections of some senders are reset."""
    links = world.sender_proxy.links
    _cut(rng.sample(links, min(len(links), rng.randint(1, 4))), rng)


async def silence_daemon(world: World, rng: Rng) -> None:
    """The daemon's connection is half-open; it must find out by its keep-alive."""
    world.go_silent()
    await asyncio.sleep(_one_of(world, rng, 0.3, 1.0, 5.0))


async def silence_senders(world: World, rng: Rng) -> None:
    """The connections of some senders are half-open."""
    links = world.sender_proxy.links
    for link in rng.sample(links, min(len(links), rng.randint(1, 4))):
        link.half_open = True


async def drop_pubacks(world: World, rng: Rng) -> None:
    """Acknowledgements are lost, in one direction, and then the connection."""
    way = rng.choice(list(Way))
    links = [
        *world.daemon_proxy.links,
        *rng.sample(world.sender_proxy.links, min(3, len(world.sender_proxy.links))),
    ]
    for link in links:
        link.drop[way] = rng.randint(1, 20)
    await asyncio.sleep(_between(world, rng, 0.2, 0.8))
    _cut(links, rng)


async def delay_daemon(world: World, rng: Rng) -> None:
    """A slow network: what is said takes a while, both ways."""
    for link in world.daemon_proxy.links:
        link.delay_s = rng.uniform(0.02, 0.15)
    await asyncio.sleep(_between(world, rng, 0.5, 1.5))
    for link in world.daemon_proxy.links:
        link.delay_s = 0.0


# the machine


async def fill_disk(world: World, rng: Rng) -> None:
    """The disk of the journal takes some kilobytes more, then nothing; space comes back."""
    world.machine.limit_disk(rng.choice((0, 4_096, 65_536)))
    await asyncio.sleep(_between(world, rng, 0.5, 2.5))
    world.machine.limit_disk(None)


async def fail_disk(world: World, rng: Rng) -> None:
    """Every write and sync of the journal fails: a bad card, or a disk that went read-only."""
    world.machine.fail_disk(rng.choice((errno.EIO, errno.EROFS)))
    await asyncio.sleep(_between(world, rng, 0.3, 1.5))
    world.machine.fail_disk(None)


async def step_clock(world: World, rng: Rng) -> None:
    """The wall clock jumps, by seconds or by years, and later back."""
    jump_s = rng.choice((-3600.0, 3600.0, -86_400.0 * 400, 86_400.0 * 400))
    world.machine.step_wall(jump_s)
    await asyncio.sleep(_between(world, rng, 0.2, 1.0))
    world.machine.set_wall(None)


KINDS = (
    Kind(kill_worker, ("worker",), 10),
    Kind(stop_worker, ("worker",), 6),
    Kind(break_model, ("worker",), 2),
    Kind(kill_daemon, ("daemon", "worker", "link"), 8),
    Kind(end_daemon, ("daemon", "worker", "link"), 3),
    Kind(stop_daemon, ("daemon",), 5),
    Kind(cut_power, ("daemon", "worker", "link", "clock"), 4),
    Kind(kill_broker, ("broker", "link"), 5),
    Kind(forget_broker, ("broker", "link"), 4),
    Kind(end_broker, ("broker", "link"), 2),
    Kind(stop_broker, ("broker", "link"), 4),
    Kind(cut_daemon, ("link",), 8),
    Kind(cut_senders, (), 6),
    Kind(silence_daemon, ("link",), 4),
    Kind(silence_senders, (), 4),
    Kind(drop_pubacks, ("link",), 6),
    Kind(delay_daemon, ("link",), 4),
    Kind(fill_disk, ("disk",), 6),
    Kind(fail_disk, ("disk",), 4),
    Kind(step_clock, ("clock",), 6),
)


async def _restart_broker(world: World, rng: Rng, number: int, *, forget: bool) -> None:
    await asyncio.to_thread(world.broker.stop, number)
    if forget:
        with contextlib.suppress(FileNotFoundError):
            (world.broker.folder / "mosquitto.db").unlink()
    await asyncio.sleep(_one_of(world, rng, 0.0, 0.3, 1.5))
    await asyncio.to_thread(world.broker.start)


def _one_of(world: World, rng: Rng, *seconds: float) -> float:
    """Return one of the times; the first, which is the shortest, in a brief world."""
    chosen = rng.choice(seconds)
    return seconds[0] if world.brief else chosen


def _between(world: World, rng: Rng, shortest_s: float, longest_s: float) -> float:
    chosen = rng.uniform(shortest_s, longest_s)
    return shortest_s if world.brief else chosen


def _cut(links: list[Link], rng: Rng) -> None:
    for link in list(links):
        if rng.random() < 0.4:
            link.torn = True
        else:
            link.cut()


def _send(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
