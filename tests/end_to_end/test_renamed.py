"""A changed configuration ends neither the daemon nor the answers that were promised under the old one."""

import yaml


def test_a_renamed_node_answers_where_it_promised_to_and_withdrawn_topics_get_nothing(launch, connect):
    daemon, _ = launch(reply_topics=["home/{client}/answers"])
    watcher = connect("rkllm/#", "home/#")
    old, box = daemon.node, daemon.client("app")
    watcher.publish(f"rkllm/{old}/admin/request/pause", {"transaction": "t"})
    watcher.reply(f"rkllm/{old}/admin/response/pause")
    watcher.publish(f"{box}/request/q1", {"prompt": "x", "stream": True, "retain": True})
    watcher.publish(f"{box}/request/q2", {"prompt": "x", "stream": True}, ResponseTopic="home/app/answers")
    for event in (f"{box}/event/q1", "home/app/answers/event"):
        assert watcher.reply(event).json["type"] == "accepted"
    daemon.stop()
    config = yaml.safe_load(daemon.config_file.read_text())
    config.update(node=f"{old}-2", reply_topics=[])
    daemon.config_file.write_text(yaml.safe_dump(config))
    daemon.node = f"{old}-2"
    for _ in range(2):  # what cannot be published must not stop the next start either
        daemon.start(watcher)
        assert watcher.reply(f"{box}/reply/q1").json["status"] == "ok"
        assert watcher.reply(f"{box}/last").json["id"] == "q1"
        watcher.publish(f"{daemon.client('app')}/request/end", "the end")
        watcher.reply(f"{daemon.client('app')}/reply/end")
        assert daemon.stop() == 0
    assert not watcher.on("home/app/answers")
    assert "publish_denied" in daemon.log
    assert "home/app" not in daemon.log
