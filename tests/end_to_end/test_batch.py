"""The promise of `n_batch` over MQTT: prompts of several clients together, and an honest word when not."""

from live_daemon import check_answer

PROMPTS = {"q1": "count to 30", "q2": "say: one two", "q3": "story 40 tokens"}


def ask_all(daemon, watcher, **fields):
    """Ask as a client for each prompt; return the finals."""
    for name, prompt in PROMPTS.items():
        request = {"prompt": prompt, "stream": True, **fields}
        watcher.publish(f"{daemon.client(name)}/request/{name}", request)
    return {name: check_answer(watcher, daemon.client(name), name) for name in PROMPTS}


def write(folder, *lines):
    path = folder / "model.sim"
    head = ("rkllm-simulator 1", "profile: instant", "decode_ms_per_token: 2")
    path.write_text("\n".join([*head, *lines, ""]))
    return path


def test_a_batch_never_serves_interactive_requests_and_its_answers_are_whole(launch, tmp_path):
    model = {"id": "many", "file": str(write(tmp_path)), "n_batch": 4}
    daemon, watcher = launch(models=[model], runtime={"batch_window_ms": 100})
    finals = ask_all(daemon, watcher, priority="interactive")
    assert finals["q2"]["text"] == "one two"
    for name in PROMPTS:
        topic = f"{daemon.client(name)}/event/{name}"
        accepted = watcher.wait(lambda message, topic=topic: message.topic == topic).json
        assert (accepted["type"], accepted["priority"]) == ("accepted", "normal")
    (told,) = watcher.on(f"rkllm/{daemon.node}/info")[-1].json["models"]
    assert "batch" in told["capabilities"]


def test_a_library_that_asserts_in_a_batch_is_told_in_health_and_tried_again_on_demand(launch, tmp_path):
    model = {"id": "many", "file": str(write(tmp_path, "batch: asserts")), "n_batch": 4}
    daemon, watcher = launch(models=[model])
    finals = ask_all(daemon, watcher)
    assert {final["status"] for final in finals.values()} == {"ok"}
    told = admin(daemon, watcher, "health")
    assert [reason["code"] for reason in told["reasons"]] == ["batch_off"]
    assert told["status"] == "degraded"
    assert admin(daemon, watcher, "model", id="many", batch=True) == {"model": "many", "batch": True}
    assert admin(daemon, watcher, "health")["reasons"] == []


def admin(daemon, watcher, command, **arguments):
    """Return the data of an admin command's answer."""
    topic = f"rkllm/{daemon.node}/admin/response/{command}"
    before = len(watcher.on(topic))
    watcher.publish(f"rkllm/{daemon.node}/admin/request/{command}", {"transaction": "t", **arguments})
    while len(watcher.on(topic)) == before:
        watcher.wait_next(1)
    answer = watcher.on(topic)[-1].json
    assert answer["status"] == "ok", answer
    return answer["data"]
