"""Hold an answer against the shape that its sender asked for, off the event loop."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from rkllm_mqtt.answer import Answer
from rkllm_mqtt.content.shape import NotJson, json_of
from rkllm_mqtt.core.job import JobEvent
from rkllm_mqtt.core.verdict import Again, Ended, judge_shape, settle
from rkllm_mqtt.core.waiting import Job
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.render.fence import bare_environment

log = get_logger(__name__)

VALIDATION_LIMIT_S = 10.0
"""Longest validation; on a board the process needs some 0.3 s to start."""


class Shaped(Struct, frozen=True):
    """What an answer is, seen as JSON."""

    text: str
    """Only the JSON of it; the whole answer where there is none."""
    problem: str | None = None
    """Why it is not what was asked for, in words for a model."""


async def shaped(answer: str, shape: Mapping[str, Any]) -> Shaped:
    """Return an answer's JSON, and whether it has the shape.

    Args:
        answer: The text of a complete answer.
        shape: What `intake.formats.format_of` returned.
    """
    try:
        text, value = json_of(answer)
    except NotJson as exc:
        return Shaped(answer, str(exc))
    if shape["type"] == "json_object":
        return Shaped(text, None if isinstance(value, dict) else "it is no JSON object")
    return Shaped(text, await _validated(shape["schema"], value))


async def examine(job: Job, answer: Answer, verdict: Ended) -> Ended | Again:
    """Return what becomes of a job whose run has ended so, in view of what its answer holds.

    Of an answer that was asked for in JSON only the JSON stays.
    """
    request = job.request
    verdict = settle(verdict, calls=len(answer.tool_calls), must_call=request.tool_choice == "required")
    shape = request.response_format
    if shape is None or verdict.event is not JobEvent.COMPLETED or answer.tool_calls:
        return verdict
    problem = None
    if verdict.finish_reason == "stop":
        found = await shaped(answer.text, shape)
        answer.text, problem = found.text, found.problem
    return judge_shape(verdict, problem, corrected=job.correction is not None)


async def _validated(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return what is wrong with a value, as a process of its own finds it."""
    question = json.dumps({"schema": schema, "value": value}).encode("ascii")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "rkllm_mqtt.validator",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=bare_environment(),
        start_new_session=True,  # Ctrl-C in the daemon's terminal is for the daemon alone
    )  # fmt: skip
    try:
        async with asyncio.timeout(VALIDATION_LIMIT_S):
            said, _ = await process.communicate(question)
    except TimeoutError:
        said = b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    try:
        problem: str | None = json.loads(said)["problem"]
    except ValueError:
        log.warning("validation_failed", exit=process.returncode, schema_bytes=len(question))
        return "the schema could not be applied to it"
    return problem
