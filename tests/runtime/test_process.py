"""The promise of `runtime/process.py`: a child that is started clean, understood, and never left behind."""

import asyncio
import os
import select
import signal
from pathlib import Path

import pytest
from live_slot import MODELS, in_loop, slot_config

from rkllm_mqtt.core.errors import ModelUnavailable
from rkllm_mqtt.runtime.order import RunOrder, load_order
from rkllm_mqtt.runtime.process import WorkerProcess

PLAIN = MODELS / "plain.sim"


class Started:
    """A worker process and the frames of its runs; use it as an async context manager."""

    def __init__(self, file=PLAIN, *, library_log_level=0):
        config = slot_config(file)
        self.order = load_order(config, config.models[0])
        self.frames = asyncio.Queue()
        self.process = WorkerProcess(self.frames.put_nowait, library_log_level)

    async def __aenter__(self):
        await self.process.start(self.order)
        return self

    async def __aexit__(self, *_):
        self.process.kill("the test is over")
        assert await self.process.exited()
        self.process.close_output()


@in_loop
async def test_the_library_does_not_see_the_secrets_of_the_daemon(monkeypatch):
    monkeypatch.setenv("RKLLM_MQTT_PASSWORD", "hunter2")
    monkeypatch.setenv("RKLLM_SIM_SPEED", "2")
    async with Started(library_log_level=1) as started:
        await started.process.ready
        environment = Path(f"/proc/{started.process.pid}/environ").read_bytes()
    assert b"hunter2" not in environment
    assert b"RKLLM_MQTT_" not in environment
    assert b"RKLLM_LOG_LEVEL=1" in environment
    assert b"RKLLM_SIM_SPEED=2" in environment


@in_loop
async def test_it_does_not_belong_to_the_terminal_of_the_daemon():
    async with Started() as started:
        assert os.getsid(started.process.pid) == started.process.pid != os.getsid(0)


@in_loop
async def test_what_was_printed_during_the_load_is_known_when_it_is_ready():
    async with Started() as started:
        # The pipe is never seen to be readable: what is known then was read because of the frame.
        asyncio.get_running_loop().remove_reader(started.process._output_fd)
        await started.process.ready
        facts = dict(started.process.output.facts)
        assert (facts["platform"], facts["context_limit"]) == ("RK3588", "4096")


@in_loop
async def test_what_was_printed_before_a_crash_is_the_reason_of_the_failure(model):
    async with Started(model("on init: fault abort")) as started:
        with pytest.raises(ModelUnavailable, match=r"the model process ended: .*GGML_ASSERT"):
            await started.process.ready
        assert (await started.process.gone).reason == "the model process ended"
        assert await started.process.exited()
        assert started.process.exit_status == -signal.SIGABRT


@in_loop
async def test_it_stops_in_order_and_the_loss_is_deliberate(model):
    async with Started(model("on destroy: fault exit 9")) as started:
        await started.process.ready
        await started.process.stop(20)
        assert started.process.exit_status == 9
        assert started.process.gone.result().deliberate


@in_loop
async def test_it_is_killed_when_it_does_not_stop(model):
    async with Started(model("on destroy: fault hang")) as started:
        await started.process.ready
        await started.process.stop(0.2)
        assert started.process.exit_status == -signal.SIGKILL
        assert started.process.gone.result().reason == "did not stop in time"


@in_loop
async def test_what_a_worker_said_before_its_end_is_heard_although_a_command_finds_it_gone():
    async with Started(MODELS / "faulty.sim") as started:
        await started.process.ready
        ended = os.pidfd_open(started.process.pid)
        started.process.command(RunOrder(prompt="segfault", max_tokens=100).frame(1))
        select.select([ended], [], [])  # this loop stands still meanwhile: what the worker says is unread
        os.close(ended)
        started.process.command(RunOrder(prompt="say: hello", max_tokens=100).frame(2))
        await started.process.gone
        heard = [started.frames.get_nowait() for _ in range(started.frames.qsize())]
        assert [(frame["t"], frame["gen"]) for frame in heard][:1] == [("started", 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"rkllm: hello\n",
        b"[]\n",
        b'{"no": "t"}\n',
        b'{"t": "hello"}\n',
        b'{"t": "ready"}\n',
    ],
)
@in_loop
async def test_a_worker_that_speaks_garbage_is_killed(line):
    async with Started() as started:
        await started.process.ready
        started.process.data_received(line)  # what the event loop does with bytes from the socketpair
        reason = (await started.process.gone).reason
        assert "cannot be read" in reason
        assert "hello" not in reason  # what came may be an answer: neither log nor sender may quote it
        assert await started.process.exited()
        assert started.process.exit_status == -signal.SIGKILL


@in_loop
async def test_a_process_that_is_gone_takes_no_more_commands_and_is_killed_no_more():
    async with Started() as started:
        started.process.kill("first")
        assert (await started.process.gone).reason == "first"
        started.process.kill("second")
        started.process.command(RunOrder("hi", 1).frame(1))
        await started.process.exited()
        assert started.process.gone.result().reason == "first"
        with pytest.raises(ModelUnavailable, match="first"):
            await started.process.ready
        assert started.process.hello.cancelled()
