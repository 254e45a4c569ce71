"""Several models on one node, as clients see it: one load for all, an idle one away, an adapter by name."""


def test_clients_at_once_get_their_model_by_one_load_and_an_idle_one_is_told_as_unloaded(launch, tmp_path):
    models = []
    for name in ("talk", "code"):
        file = tmp_path / f"{name}.sim"
        file.write_text(f'rkllm-simulator 1\nprofile: instant\nload_ms: 150\nalways: reply "{name}"\n')
        models.append({"id": name, "file": str(file)})
    adapter = tmp_path / "tuned.lora"
    adapter.write_text("adapter")
    models[1]["loras"] = [{"id": "tuned", "file": str(adapter)}]
    daemon, watcher = launch(models=models, runtime={"idle_unload_s": 1.0})
    for number in range(12):
        asked = {"prompt": "hi", "model": ("code", "code:tuned")[number % 2]}
        watcher.publish_soon(f"{daemon.client(f'c{number}')}/request/q", asked)
    for number in range(12):
        final = watcher.reply(f"{daemon.client(f'c{number}')}/reply/q").json
        assert (final["text"], final["model"]) == ("code", ("code", "code:tuned")[number % 2])
    topic = f"rkllm/{daemon.node}/health"
    told = watcher.wait(lambda m: m.topic == topic and m.json["model_unloaded"]).json
    assert (told["status"], told["model_loaded"], told["worker"]["pid"]) == ("healthy", None, None)
    code = "model_loaded model=code"
    assert daemon.log.count(code) == 1
    watcher.publish(f"{daemon.client('late')}/request/q", {"prompt": "hi", "model": "code"})
    assert watcher.reply(f"{daemon.client('late')}/reply/q").json["text"] == "code"
    assert daemon.log.count(code) == 2
