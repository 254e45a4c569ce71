"""A folder of models, as its owner sees it: what is copied there can be asked for, what is wrong is told."""

SIM = "rkllm-simulator 1\nprofile: instant\n"


def test_models_come_and_go_with_their_files_and_no_restart(launch, connect, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    prefix = f"ha-{tmp_path.name.lower()}"
    daemon, watcher = launch(
        models_folder=str(folder), admin={"enabled": True}, homeassistant={"prefix": prefix}
    )
    seen = connect(f"{prefix}/#")
    box, topic = daemon.client("app"), f"rkllm/{daemon.node}/info"

    def listed(*names):
        """Wait for the models in `info`; return them by their ids."""
        told = watcher.wait(lambda m: m.topic == topic and [x["id"] for x in m.json["models"]] == [*names])
        return {model["id"]: model for model in told.json["models"]}

    def asked(name, model):
        watcher.publish(f"{box}/request/{name}", {"prompt": "hi", "model": model})
        return watcher.reply(f"{box}/reply/{name}").json

    assert listed("demo")["demo"]["fault"] is None
    (folder / "code.sim").write_text(SIM + 'always: reply "code"\n')
    (folder / "code.yaml").write_text("context_tokens: 512\n")
    (folder / "small.sim").write_text(SIM + 'max_context: 512\nalways: reply "small"\n')
    (folder / "bad.rkllm").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    models = listed("code", "small", "bad")
    assert (models["code"]["context_tokens"], models["code"]["fault"]) == (512, None)
    assert "is a Git LFS pointer" in models["bad"]["fault"]["message"]
    device = seen.wait(lambda m: '"code"' in m.payload.decode()).json
    assert device["components"]["model"]["options"] == ["code", "small"]
    assert asked("q1", "code")["text"] == "code"
    error = asked("q2", "bad")["error"]
    assert (error["code"], error["hint"]) == ("model_error", "Run `git lfs pull`.")
    health = watcher.wait(lambda m: m.topic == f"rkllm/{daemon.node}/health" and m.json["reasons"]).json
    assert (health["status"], health["reasons"][0]["code"]) == ("degraded", "model_file")
    (folder / "bad.rkllm").write_text(SIM + 'always: reply "repaired"\n')
    # Nobody has said how large its window is: it becomes what the model was converted for.
    assert models["small"]["context_tokens"] == 4096
    assert asked("q3", "small")["text"] == "small"
    models = listed("bad", "code", "small")
    assert models["bad"]["fault"] is None
    assert asked("q4", "bad")["text"] == "repaired"
    (folder / "bad.rkllm").unlink()
    assert listed("code", "small")["small"]["context_tokens"] == 512
    assert asked("q5", "bad")["error"]["code"] == "unknown_model"
    assert asked("q6", None)["text"] == "code"
