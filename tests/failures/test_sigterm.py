"""SIGTERM: no new work, the running job has its time, is put back, and `offline` is said."""

SLOW = {"RKLLM_SIM_PROFILE": "origin"}


def first_delta(watcher, box, request_id):
    watcher.wait(lambda m: m.topic == f"{box}/delta/{request_id}")


def test_it_puts_the_running_job_back_and_says_offline(launch):
    daemon, watcher = launch(afresh=True, environment=SLOW, drain_timeout_s=0)
    box = daemon.client("app")
    watcher.publish(f"{box}/request/q1", {"prompt": "story 40 tokens", "stream": True})
    first_delta(watcher, box, "q1")
    assert daemon.stop() == 0
    assert watcher.on(f"rkllm/{daemon.node}/status")[-1].payload == b"offline"
    assert not watcher.on(f"{box}/reply/q1")
    daemon.start(watcher)
    assert watcher.reply(f"{box}/reply/q1").json["usage"]["completion_tokens"] == 40


def test_it_lets_the_running_job_end_in_its_time_and_leaves_what_comes_now_to_the_next_daemon(launch):
    daemon, watcher = launch(afresh=True, environment=SLOW, drain_timeout_s=30)
    box, queue = daemon.client("app"), f"rkllm/{daemon.node}/queue"
    watcher.publish(f"{box}/request/q1", {"prompt": "story 30 tokens", "stream": True})
    first_delta(watcher, box, "q1")
    daemon.process.terminate()
    watcher.wait(lambda m: m.topic == queue and m.json["accepting"] is False)
    watcher.publish(f"{box}/request/late", {"prompt": "say: hello"})
    assert daemon.process.wait(40) == 0
    assert watcher.reply(f"{box}/reply/q1").json["attempt"] == 1
    assert not watcher.on(f"{box}/reply/late")
    daemon.start(watcher)
    assert watcher.reply(f"{box}/reply/late").json["text"] == "hello"
