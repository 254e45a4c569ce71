"""The model file is missing, damaged or of another window: told with a hint, retried when it changes."""

from live_slot import MODELS

PLAIN = MODELS / "plain.sim"


BROKEN = {
    # What the file holds, and what is said of it.
    "missing": (None, "model.sim"),
    "truncated": (PLAIN.read_bytes()[:9], "model.sim"),
    "smaller window": (b"rkllm-simulator 1\nmax_context: 512\n", "max_context"),
}


def test_it_is_told_which_and_what_to_do_and_a_repair_needs_no_restart(unloaded, tmp_path):
    file = tmp_path / "model.sim"
    daemon, watcher = unloaded(
        models=[{"id": "m", "file": str(file), "context_tokens": 4096}], runtime={"restart_max_s": 0.2}
    )
    topic, box = f"rkllm/{daemon.node}/health", daemon.client("app")
    for name, (content, said) in BROKEN.items():
        if content is not None:
            file.write_bytes(content)
        told = watcher.wait(lambda m, said=said: m.topic == topic and said in problem(m.json)["message"])
        assert told.json["status"] == "unhealthy"
        assert told.json["model_loaded"] is None
        assert problem(told.json)["hint"]
        # Whether it waited for the third load or came after it: it is told, and what to do.
        watcher.publish(f"{box}/request/{name[:5]}", {"prompt": "say: hello"})
        error = watcher.reply(f"{box}/reply/{name[:5]}").json["error"]
        assert (error["code"], error["retryable"]) == ("model_error", True)
    assert watcher.on(f"rkllm/{daemon.node}/status")[-1].payload == b"online"
    watcher.publish(f"{box}/request/text", "a question in bare text")
    assert watcher.reply(f"{box}/reply/text").payload.startswith(b"ERROR model_error: ")
    file.write_bytes(PLAIN.read_bytes())
    assert watcher.wait(lambda m: m.topic == topic and m.json["model_loaded"]).json["status"] == "healthy"
    watcher.publish(f"{box}/request/text", "a question in bare text")
    both = watcher.wait_many(lambda m: m.topic == f"{box}/reply/text", 2)
    assert both[1].payload == b"You said: a question in bare text"


def problem(health):
    """Return the reason why no model is loaded."""
    reasons = [reason for reason in health["reasons"] if reason["code"] == "model_error"]
    return reasons[0] if reasons else {"message": "", "hint": ""}
