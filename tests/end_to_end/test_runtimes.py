"""The same conversation on a runtime of every ABI group."""

import pytest
from live_daemon import check_answer

GROUPS = {"1.1.4": "A", "1.2.0": "B", "1.2.1b1": "C", "1.2.3": "D", "1.3.0": "E", "1.3.1": "F"}


@pytest.mark.parametrize("version", GROUPS)
def test_a_conversation_runs_on_every_runtime(launch, version):
    daemon, watcher = launch(runtime={"simulator_version": version})
    info = watcher.on(f"rkllm/{daemon.node}/info")[-1].json
    assert info["runtime"]["version"] == version
    assert info["runtime"]["abi"] == GROUPS[version]
    assert info["runtime"]["simulated"] is True
    box = daemon.client("app")
    messages = [
        {"role": "user", "content": "I am Ada"},
        {"role": "assistant", "content": "Hello Ada"},
        {"role": "user", "content": "these signs 😀 é 日本"},
    ]
    watcher.publish(f"{box}/request/q1", {"messages": messages, "stream": True, "temperature": 0.5})
    final = check_answer(watcher, box, "q1")
    assert final["text"] == "You said: these signs 😀 é 日本"
    assert final["finish_reason"] == "stop"
    assert final["usage"]["prompt_tokens"] > 5
    accepted = watcher.on(f"{box}/event/q1")[0].json
    assert accepted["ignored"] == ([] if version >= "1.3" else ["temperature"])
    watcher.publish(f"{box}/request/q2", {"prompt": "story 50 tokens", "max_tokens": 9, "stream": True})
    final = check_answer(watcher, box, "q2")
    assert final["finish_reason"] == "length"
    assert final["usage"]["completion_tokens"] == 9
