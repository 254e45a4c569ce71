"""Makers of jobs."""

import pytest

from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.job import Priority
from rkllm_mqtt.core.topics import Mailbox
from rkllm_mqtt.core.waiting import Job


@pytest.fixture(scope="session")  # has no state, and Hypothesis may use it
def make_job():
    """A maker of jobs that differ in their `seq`."""

    def make(seq, priority=Priority.NORMAL, client="kitchen", **fields):
        defaults = {
            "id": f"q{seq}",
            "request": ChatRequest(
                messages=({"role": "user", "content": "hi"},), model="demo", max_tokens=10, stream=True
            ),
            "address": Address(Mailbox("rkllm", fields.pop("target", "rock5"), client), f"q{seq}"),
            "accepted_at": 1_800_000_000.0,
            "queued_at": 5.0,
            "deadline": 100.0,
        }
        return Job(seq=seq, priority=priority, **{**defaults, **fields})

    return make
