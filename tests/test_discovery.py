"""The promise of `discovery.py`: Home Assistant always has our device, and never one that is gone."""

import uuid

import pytest
from live_daemon import Daemon


@pytest.fixture
def prefix():
    """A discovery prefix of this test's own."""
    return f"ha-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def shown(online):
    """A daemon that shows itself, with its discovery prefix."""
    prefix = f"ha-{uuid.uuid4().hex[:12]}"
    with online("shown", homeassistant={"prefix": prefix, "client": "ha"}) as daemon:
        yield daemon, prefix


def topic_of(prefix, node):
    return f"{prefix}/device/rkllm_{node}/config"


def retained(connect, prefix, port=None):
    """What the broker holds for a Home Assistant that starts now."""
    late = connect(f"{prefix}/#", f"{prefix}-end", port=port)
    late.publish(f"{prefix}-end", "the retained ones came before")
    late.reply(f"{prefix}-end")
    return {message.topic: message for message in late.messages if message.topic.startswith(f"{prefix}/")}


def test_a_daemon_shows_itself_and_its_topics(shown, connect):
    daemon, prefix = shown
    told = connect(f"{prefix}/#").reply(topic_of(prefix, daemon.node)).json
    assert told["components"]["queue_length"]["state_topic"] == f"rkllm/{daemon.node}/queue"
    assert told["components"]["cancel"]["command_topic"] == f"rkllm/{daemon.node}/admin/request/cancel"
    found = retained(connect, prefix)
    assert list(found) == [topic_of(prefix, daemon.node)]
    assert found[topic_of(prefix, daemon.node)].retain


def test_it_shows_itself_again_when_home_assistant_starts(shown, connect):
    daemon, prefix = shown
    seen = connect(f"{prefix}/#")
    topic = topic_of(prefix, daemon.node)
    seen.reply(topic)
    seen.publish(topic, "", retain=True)
    seen.wait(lambda m: m.topic == topic and not m.payload)
    before = len(seen.on(topic))
    seen.publish(f"{prefix}/status", "offline")
    seen.publish(f"{prefix}/status", "online")
    assert seen.wait_many(lambda m: m.topic == topic, before + 1)[-1].json["device"]
    # `offline` was heard before `online` and moved nothing.
    assert len(seen.on(topic)) == before + 1
    assert "invalid_topic" not in daemon.log


def test_it_shows_itself_again_to_a_broker_that_forgot(own_broker, launch, connect, prefix):
    broker = own_broker()
    daemon, _ = launch(port=broker.port, homeassistant={"prefix": prefix})
    broker.stop()
    broker.start()
    later = connect(f"{prefix}/#", port=broker.port)
    assert later.reply(topic_of(prefix, daemon.node)).json["origin"]["name"] == "rkllm-mqtt"


def again(daemon, folder, node, config):
    """The same journal under another configuration."""
    return Daemon(folder, daemon.port, node, config, daemon.environment)


def test_a_renamed_node_leaves_no_device_behind(launch, connect, prefix):
    daemon, _ = launch(homeassistant={"prefix": prefix})
    seen = connect(f"{prefix}/#")
    old = topic_of(prefix, daemon.node)
    seen.reply(old)
    daemon.stop()
    renamed = again(daemon, daemon.folder, f"{daemon.node}-b", {"homeassistant": {"prefix": prefix}})
    renamed.start(connect(f"rkllm/{renamed.node}/#"))
    try:
        seen.reply(topic_of(prefix, renamed.node))
        assert list(retained(connect, prefix)) == [topic_of(prefix, renamed.node)]
    finally:
        renamed.stop()


def test_switched_off_it_removes_the_device_and_hears_home_assistant_no_more(launch, connect, prefix):
    daemon, _ = launch(homeassistant={"prefix": prefix})
    seen = connect(f"{prefix}/#")
    topic = topic_of(prefix, daemon.node)
    seen.reply(topic)
    daemon.stop()
    off = {"homeassistant": {"prefix": prefix, "discovery": False}}
    for _ in range(2):  # the second start has nothing left to clear
        silent = again(daemon, daemon.folder, daemon.node, off)
        silent.start(connect(f"rkllm/{silent.node}/#"))
        seen.publish(f"{prefix}/status", "online")
        silent.stop()
    seen.wait(lambda m: m.topic == topic and not m.payload)
    assert [m.payload for m in seen.on(topic)[1:]].count(b"") == 1
    assert retained(connect, prefix) == {}


def test_a_daemon_that_never_showed_itself_publishes_nothing_for_home_assistant(launch, connect, prefix):
    seen = connect(f"{prefix}/#")
    daemon, _ = launch(homeassistant={"prefix": prefix, "discovery": False})
    seen.publish(f"{prefix}/status", "online")
    daemon.stop()
    assert [m.topic for m in seen.messages] == [f"{prefix}/status"]


def test_the_notify_entitys_prompt_is_answered_where_the_event_entity_listens(shown, connect):
    daemon, prefix = shown
    watcher = connect(f"rkllm/{daemon.node}/client/#")
    components = connect(f"{prefix}/#").reply(topic_of(prefix, daemon.node)).json["components"]
    watcher.publish(components["prompt"]["command_topic"], {"prompt": "say: hello"})
    assert watcher.reply(components["answer"]["state_topic"]).json["text"] == "hello"
