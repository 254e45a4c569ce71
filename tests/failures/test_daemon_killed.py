"""The daemon is killed, or the power is cut: the journal has all that was promised."""

from chaos.machine import Machine
from live_daemon import check_answer

SLOW = {"RKLLM_SIM_PROFILE": "origin"}
IN_2000 = 946_684_800.0


def test_a_daemon_killed_in_mid_answer_answers_after_its_restart(launch):
    daemon, watcher = launch(afresh=True, environment=SLOW)
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "story 20 tokens", "stream": True})
    watcher.publish(f"{box}/request/q2", "and one that waits")
    watcher.wait(lambda m: m.topic == f"{box}/delta/q1")
    daemon.kill()
    daemon.start(watcher)
    assert check_answer(watcher, box, "q1")["attempt"] == 2
    assert watcher.reply(f"{box}/reply/q2").payload == b"You said: and one that waits"
    numbers = [m.json["n"] for m in watcher.on(f"{box}/event/q1")]
    assert numbers == sorted(set(numbers))


def test_an_outcome_that_the_broker_never_had_is_sent_by_the_next_daemon_with_the_same_bytes(
    launch, own_broker, connect
):
    broker = own_broker(persistence=True)
    daemon, watcher = launch(afresh=True, port=broker.port, environment=SLOW)
    box = daemon.client("app")
    payload = b'{"prompt":"story 5 tokens"}'
    watcher.publish(f"{box}/request/q1", payload)
    watcher.wait(lambda m: m.topic == f"{box}/event/q1" and m.json["type"] == "started")
    broker.stop()
    daemon.until_logged("job_ended")
    daemon.kill()
    broker.start()
    listener = connect(f"{box}/#", port=broker.port)
    daemon.start(connect(f"rkllm/{daemon.node}/#", port=broker.port))
    first = listener.reply(f"{box}/reply/q1")
    assert first.json["attempt"] == 1, "it was not computed again"
    listener.publish(f"{box}/request/q1", payload)
    both = listener.wait_many(lambda m: m.topic == f"{box}/reply/q1", 2)
    assert both[1].payload == first.payload


def test_after_a_power_cut_a_board_that_boots_in_2000_neither_loses_nor_expires_what_waits(launch, tmp_path):
    (tmp_path / "board").mkdir()
    machine = Machine(tmp_path / "board", tmp_path)
    daemon, watcher = launch(environment={**SLOW, **machine.environment})
    box = daemon.client("app")
    watcher.publish(f"{box}/request/run", {"prompt": "story 40 tokens", "stream": True, "ttl_s": 600})
    watcher.publish(f"{box}/request/wait", {"prompt": "say: hello", "ttl_s": 600})
    watcher.publish(f"{box}/request/short", {"prompt": "say: hello", "ttl_s": 2})
    watcher.wait(lambda m: m.topic == f"{box}/event/short" and m.json["type"] == "accepted")
    watcher.wait(lambda m: m.topic == f"{box}/delta/run")
    daemon.kill()
    machine.reboot()
    machine.set_wall(IN_2000)
    daemon.start(watcher)
    machine.set_wall(None)
    assert check_answer(watcher, box, "run")["attempt"] == 2
    assert watcher.reply(f"{box}/reply/wait").json["text"] == "hello"
    # Its two seconds go on where the checkpoint had them, by a clock that nobody steps.
    assert watcher.reply(f"{box}/reply/short").json["error"]["code"] == "expired"
    health = watcher.on(f"rkllm/{daemon.node}/health")
    assert any(m.json["at"] < IN_2000 + 3600 for m in health), "the daemon did not see the wrong clock"
    machine.close()
