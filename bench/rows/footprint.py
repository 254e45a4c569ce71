"""Memory of the daemon and of its worker without a model, after one answer."""

from bench import models
from bench.asking import Asker, ask_one
from bench.child import Footprint, footprint
from bench.context import Context
from bench.figure import Figure, Goal


async def measure(context: Context) -> list[Figure]:
    """Weigh both services."""
    async with context.stage(models.instant) as stage:
        service, relay = await stage.daemon("ours"), await stage.thin()
        for one in (service, relay):
            asker = await Asker.connect(stage.port, one.dialect, "reader")
            await ask_one(asker, models.count(300))
            await asker.close()
        daemon, worker = footprint(service.child.pid), footprint(service.worker_pid)
        thin = footprint(relay.child.pid)
    beside = f"; thin: {_said(thin)}, the library in the same process"
    return [
        Figure("memory of the daemon", daemon.rss_mb, "MB", thin.rss_mb, Goal(45), _said(daemon) + beside),
        Figure("memory of the worker, without model", worker.rss_mb, "MB", None, Goal(30), _said(worker)),
    ]


def _said(one: Footprint) -> str:
    pss = "" if one.pss_mb is None else f", PSS {one.pss_mb:.1f} MB"
    return f"RSS, private {one.anonymous_mb:.1f} MB{pss}"
