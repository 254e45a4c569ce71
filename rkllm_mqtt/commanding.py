"""The admin commands and what each does to the daemon."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rkllm_mqtt.admin import Arguments, Command, CommandRefused, log_level, text_argument

if TYPE_CHECKING:
    from rkllm_mqtt.parts import Parts


def build_commands(parts: "Parts") -> Mapping[str, Command]:  # noqa: C901 - a list of one-liners, no branches
    """Return the commands of a daemon by name."""

    async def health(_: Arguments) -> Mapping[str, Any]:
        return parts.reporter.health()

    async def info(_: Arguments) -> Mapping[str, Any]:
        return parts.views.info()

    async def queue(_: Arguments) -> Mapping[str, Any]:
        return parts.views.queue()

    async def schedules(_: Arguments) -> Mapping[str, Any]:
        return parts.recurring.members()

    async def run(arguments: Arguments) -> Mapping[str, Any]:
        try:
            return {"id": await parts.recurring.ask_now(_schedule(parts, arguments))}
        except ValueError as exc:
            raise CommandRefused(str(exc)) from exc

    async def pause(arguments: Arguments) -> Mapping[str, Any]:
        if "schedule" in arguments:
            await parts.recurring.pause(_schedule(parts, arguments), paused=True)
            return parts.recurring.members()
        parts.set_flow(paused=True, draining=False)
        return {"state": parts.views.state()}

    async def resume(arguments: Arguments) -> Mapping[str, Any]:
        if "schedule" in arguments:
            await parts.recurring.pause(_schedule(parts, arguments), paused=False)
            return parts.recurring.members()
        parts.set_flow(paused=False, draining=False)
        return {"state": parts.views.state()}

    async def drain(_: Arguments) -> Mapping[str, Any]:
        parts.set_flow(paused=False, draining=True)
        return {"state": parts.views.state()}

    async def cancel(arguments: Arguments) -> Mapping[str, Any]:
        jobs = _chosen(parts, arguments)
        for job in jobs:
            await parts.dispatcher.cancel(job)
        return {"cancelled": [{"client": job.client, "id": job.id} for job in jobs[:100]], "count": len(jobs)}

    async def model(arguments: Arguments) -> Mapping[str, Any]:
        model_id = text_argument(arguments, "id")
        if model_id not in parts.catalogue:
            raise CommandRefused(f"there is no model {model_id[:64]!r}")
        if (fault := parts.catalogue.fault(model_id)) is not None:
            raise CommandRefused(f"{fault.message}: {fault.hint}")
        again = arguments.get("batch") is True
        if again and not parts.dispatcher.batching.try_again(model_id):
            raise CommandRefused(
                f"no batches are configured for model {model_id[:64]!r}: it has no `n_batch`"
            )
        parts.dispatcher.load(model_id)
        return {"model": model_id, "batch": True} if again else {"model": model_id}

    async def probe(arguments: Arguments) -> Mapping[str, Any]:
        model_id = text_argument(arguments, "id") if "id" in arguments else parts.slot.wanted
        if model_id not in parts.catalogue:
            raise CommandRefused(f"there is no model {model_id[:64]!r}")
        if arguments.get("again") is True:
            parts.probing.again(model_id)
        return parts.probing.told(model_id)

    async def conversations(_: Arguments) -> Mapping[str, Any]:
        return {"conversations": await parts.conversations.shown()}

    async def conversation_forget(arguments: Arguments) -> Mapping[str, Any]:
        client, name = text_argument(arguments, "client"), text_argument(arguments, "id")
        if not await parts.conversations.forget(client, name):
            raise CommandRefused("there is no such conversation")
        return {"client": client, "id": name}

    async def restart_worker(_: Arguments) -> Mapping[str, Any]:
        parts.slot.restart()
        return {"model": parts.slot.wanted}

    async def restart(_: Arguments) -> Mapping[str, Any]:
        parts.restart()
        return {}

    return {
        "health": health,
        "info": info,
        "queue": queue,
        "schedules": schedules,
        "run": run,
        "pause": pause,
        "resume": resume,
        "drain": drain,
        "cancel": cancel,
        "model": model,
        "probe": probe,
        "caches": parts.caches.list,
        "cache_create": parts.caches.create,
        "cache_delete": parts.caches.delete,
        "conversations": conversations,
        "conversation_forget": conversation_forget,
        "restart_worker": restart_worker,
        "restart": restart,
        "log_level": log_level,
    }


def _schedule(parts: "Parts", arguments: Arguments) -> str:
    """Return the schedule that is meant.

    Raises:
        CommandRefused: There is none of this name.
    """
    name = text_argument(arguments, "schedule")
    if name not in parts.recurring.names:
        raise CommandRefused(
            f"there is no schedule {name[:64]!r}; there are: {', '.join(parts.recurring.names)}"
        )
    return name


def _chosen(parts: "Parts", arguments: Arguments) -> list[Any]:
    """Return the jobs that a cancel means.

    Raises:
        CommandRefused: It names none.
    """
    if arguments.get("all") is True:
        return parts.live.all()
    if arguments.get("running") is True:
        return [turn.job for turn in parts.dispatcher.turns if turn.run.started_at is not None]
    if "client" not in arguments or "id" not in arguments:
        raise CommandRefused("name `client` and `id`, or send `running: true` or `all: true`")
    client, request_id = text_argument(arguments, "client"), text_argument(arguments, "id")
    jobs = [job for job in parts.live.all() if job.client == client and job.id == request_id]
    if not jobs:
        raise CommandRefused("there is no such unfinished request")
    return jobs
