"""The promise of `holding`: the slot is held behind what announces a question, and let go when time is up."""

import asyncio

import pytest
from live_jobs import address, make_job, request
from live_slot import slot_config
from virtual_loop import in_virtual_time

from rkllm_mqtt.core.chat import PrefixWish
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.policy import Policy
from rkllm_mqtt.holding import Holding

TOOL = {"type": "function", "function": {"name": "on"}}
RESULT = ({"role": "user", "content": "on"}, {"role": "tool", "content": "done"})


class Kit:
    def __init__(self, **policy):
        self.loop = asyncio.get_running_loop()
        self.policy = Policy()
        self.holding = Holding(slot_config(policy=policy), self.policy, self.loop.time)
        self.woken = []
        self.holding.wake = lambda: self.woken.append(self.loop.time() - self.began)
        self.began = self.loop.time()

    def job(self, client="ha", priority=Priority.INTERACTIVE, **fields):
        return make_job(request(**fields), address(client), priority=priority)

    def warm(self, hold_s, **fields):
        return self.job(prefix=PrefixWish("warm", "voice", hold_s), **fields)


@in_virtual_time
async def test_a_warm_prefix_holds_the_slot_as_long_as_was_asked():
    kit = Kit()
    job = kit.warm(6.0)
    kit.holding.entered(job)
    assert kit.holding.active
    kit.policy.settle(job, 1.0, kit.loop.time())
    assert not kit.holding.active
    kit.holding.left(job, called=False, whole=True)
    assert kit.holding.active
    assert job.held_s == 6.0
    await asyncio.sleep(7)
    assert not kit.holding.active
    assert kit.woken == [6.0]


@in_virtual_time
@pytest.mark.parametrize("hold_s", [0.0, 6.0])
async def test_what_was_interrupted_or_wants_none_holds_nothing(hold_s):
    kit = Kit()
    job = kit.warm(hold_s)
    kit.holding.left(job, called=False, whole=hold_s == 0)
    assert not kit.holding.active
    assert job.held_s == 0
    await asyncio.sleep(10)
    assert kit.woken == []


@in_virtual_time
async def test_the_slot_lingers_between_the_rounds_of_a_tool_call_as_long_as_they_take():
    kit, waits = Kit(), []
    for _ in range(4):
        question = kit.job(tools=(TOOL,))
        kit.holding.entered(question)
        kit.policy.settle(question, 1.0, kit.loop.time())
        kit.holding.left(question, called=True, whole=True)
        waits.append(question.held_s)
        await asyncio.sleep(0.1)
        kit.holding.heard(kit.job(messages=RESULT, tools=(TOOL,)))
        await asyncio.sleep(2)
    assert waits[0] == 1.0
    assert 0.1 < waits[-1] < 0.3


@in_virtual_time
async def test_nobody_lingers_for_who_never_comes_nor_for_lower_work():
    kit, waits = Kit(), []
    for _ in range(5):
        question = kit.job(tools=(TOOL,))
        kit.holding.left(question, called=True, whole=True)
        waits.append(question.held_s)
        await asyncio.sleep(20)
    assert waits == [1.0, 1.0, 1.0, 0.0, 0.0]
    kit.holding.entered(kit.job(tools=(TOOL,)))
    assert not kit.holding.active
    lower = kit.job("other", Priority.NORMAL, tools=(TOOL,))
    kit.holding.entered(lower)
    kit.holding.left(lower, called=True, whole=True)
    assert not kit.holding.active


@in_virtual_time
async def test_it_can_be_switched_off():
    kit = Kit(tool_linger_s=0)
    question = kit.job(tools=(TOOL,))
    kit.holding.entered(question)
    kit.holding.left(question, called=True, whole=True)
    assert not kit.holding.active
