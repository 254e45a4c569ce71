"""CPU time of daemon and worker while nothing happens."""

import asyncio
import time

from bench import models
from bench.asking import Asker, ask_one
from bench.child import cpu_s
from bench.context import Context
from bench.figure import Figure, Goal

_SETTLE_S = 1.5
_WATCH_S = 8.0


async def measure(context: Context) -> list[Figure]:
    """Watch both services do nothing, after one answer."""
    watch_s = _WATCH_S / 4 if context.quick else _WATCH_S
    async with context.stage(models.instant) as stage:
        service, relay = await stage.daemon("ours"), await stage.thin()
        for one in (service, relay):
            asker = await Asker.connect(stage.port, one.dialect, "reader")
            await ask_one(asker, models.count(300))
            await asker.close()
        await asyncio.sleep(_SETTLE_S)  # the journal moves its log when it is idle
        pids = service.child.pid, service.worker_pid, relay.child.pid
        began, before = time.monotonic(), [cpu_s(pid) for pid in pids]
        await asyncio.sleep(watch_s)
        elapsed = time.monotonic() - began
        daemon, worker, thin = (
            (cpu_s(pid) - used) / elapsed * 100 for pid, used in zip(pids, before, strict=True)
        )
    return [
        Figure(
            "CPU while idle", daemon + worker, "%", thin, Goal(0.5, "at most", "< 0.5 %"),
            f"of one core, over {watch_s:g} s: daemon {daemon:.3f} %, worker {worker:.3f} %",
        )
    ]  # fmt: skip
