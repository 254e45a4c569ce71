"""The promise of `core/topics.py`: nobody gets an answer to a topic that is not his own."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from near_topics import ANY_TOPIC, BOX, CLIENTS, KITCHEN, STATE, TOPICS

from rkllm_mqtt.core.topics import (
    AdminTopic,
    ClientTopic,
    HomeAssistantStatus,
    Mailbox,
    OwnStatus,
    Topics,
    Verb,
    is_client,
    is_id,
)

# names


@pytest.mark.parametrize("name", ["a", "A.z_0-9", "...", "x" * 64, "event", "rock"])
def test_a_client_is_one_level_of_letters_digits_and_three_signs(name):
    assert is_client(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a b", "a:b", "é", "a+", "#", "$a", "a\0", "a\n", "٣"])
def test_other_names_are_no_clients(name):
    assert not is_client(name)


@pytest.mark.parametrize("text", ["a", "A.z_0-9:", "x" * 64, "reply", "events", "Event"])
def test_an_id_may_hold_a_colon_too(text):
    assert is_id(text)


@pytest.mark.parametrize("text", ["", "x" * 65, "event", "delta", "a/b", "a b", "é", "+", "a\n", "\ud800"])
def test_event_and_delta_and_other_texts_are_no_ids(text):
    assert not is_id(text)


# reading


@pytest.mark.parametrize(
    ("topic", "target", "verb", "request_id"),
    [
        ("rkllm/rock/client/kitchen/request", "rock", Verb.REQUEST, None),
        ("rkllm/rock/client/kitchen/request/q:1", "rock", Verb.REQUEST, "q:1"),
        ("rkllm/rock/client/kitchen/cancel", "rock", Verb.CANCEL, None),
        ("rkllm/fleet/client/kitchen/cancel/q1", "fleet", Verb.CANCEL, "q1"),
    ],
)
def test_requests_and_cancels_are_recognised_for_the_node_and_its_groups(topic, target, verb, request_id):
    mailbox = Mailbox("rkllm", target, "kitchen")
    assert TOPICS.parse(topic) == ClientTopic(mailbox, verb, request_id)


@pytest.mark.parametrize("tail", ["event", "delta", "", "a b", "é", "x" * 65, "a/b", "a/", "/", "event/q1"])
def test_a_bad_id_or_more_levels_are_a_problem_to_be_told(tail):
    parsed = TOPICS.parse(f"{BOX}/request/{tail}")
    assert isinstance(parsed, ClientTopic)
    assert parsed.id is None
    assert parsed.problem
    assert parsed.mailbox == KITCHEN


@pytest.mark.parametrize(
    "topic",
    [
        "rkllm/rock/client/a b/request",
        "rkllm/rock/client//request/q1",
        f"rkllm/rock/client/{'x' * 65}/request",
        "rkllm/rock/client/kitchen",
        "rkllm/rock/client/kitchen/reply/q1",
        "rkllm/other/client/kitchen/request",
        "other/rock/client/kitchen/request",
        "rkllm/rock/clients/kitchen/request",
        "rkllm/fleet/status",
        "rkllm/rock/status/x",
        "rkllm/fleet/admin/request/pause",
        "rkllm/rock/admin/response/pause",
        "rkllm/rock/admin/request/pause/x",
        "rkllm/rock/info",
        "rkllm",
        "",
    ],
)
def test_what_is_not_ours_to_serve_is_dropped(topic):
    assert TOPICS.parse(topic) is None


def test_admin_commands_and_our_own_status_are_recognised():
    assert TOPICS.parse("rkllm/rock/admin/request/pause") == AdminTopic("pause")
    assert isinstance(TOPICS.parse("rkllm/rock/status"), OwnStatus)


@given(ANY_TOPIC)
def test_no_topic_raises_and_every_client_and_id_that_comes_out_is_valid(topic):
    parsed = TOPICS.parse(topic)
    if isinstance(parsed, ClientTopic):
        assert is_client(parsed.mailbox.client)
        assert parsed.id is None or is_id(parsed.id)
        assert parsed.mailbox.target in ("rock", "fleet")


# subscribing


def test_the_filters_are_those_of_the_protocol():
    assert TOPICS.filters(admin=True, shared=True) == [
        "rkllm/rock/client/+/request/#",
        "rkllm/rock/client/+/cancel/#",
        "rkllm/rock/status",
        "rkllm/rock/admin/request/+",
        "$share/fleet/rkllm/fleet/client/+/request/#",
        "rkllm/fleet/client/+/cancel/#",
    ]


def test_without_admin_and_shared_subscriptions_neither_is_asked_for():
    filters = TOPICS.filters(admin=False, shared=False)
    assert filters == [
        "rkllm/rock/client/+/request/#",
        "rkllm/rock/client/+/cancel/#",
        "rkllm/rock/status",
    ]


def matches(topic_filter, topic):
    """Match as MQTT 5 says in its section 4.7."""
    parts = topic_filter.split("/")
    if parts[0] == "$share":
        parts = parts[2:]
    levels = topic.split("/")
    for place, part in enumerate(parts):
        if part == "#":
            return True
        if place >= len(levels) or part not in ("+", levels[place]):
            return False
    return len(parts) == len(levels)


@given(ANY_TOPIC, st.booleans(), st.booleans())
@example(f"{BOX}/request", True, True)
@example("rkllm/fleet/client/kitchen/cancel/q1", True, True)
def test_no_two_filters_overlap(topic, admin, shared):
    assert sum(matches(f, topic) for f in TOPICS.filters(admin=admin, shared=shared)) <= 1


@given(ANY_TOPIC)
@example("rkllm/rock/admin/request/pause")
@example("rkllm/rock/status")
@example(f"{BOX}/request/q1")
def test_whatever_is_served_is_subscribed_to(topic):
    if TOPICS.parse(topic) is not None:
        assert any(matches(f, topic) for f in TOPICS.filters(admin=True, shared=True))


# publishing


def test_a_topic_level_id_ends_every_answer_topic_and_no_id_adds_nothing():
    assert KITCHEN.topic("reply", "q1") == "rkllm/rock/client/kitchen/reply/q1"
    assert KITCHEN.topic("delta") == "rkllm/rock/client/kitchen/delta"


@pytest.mark.parametrize(
    "topic",
    [
        *(f"rkllm/rock/{name}" for name in STATE),
        "rkllm/rock/admin/response/pause",
        *(f"{BOX}/{kind}" for kind in ("event", "delta", "reply", "last")),
        *(f"{BOX}/{kind}/q1" for kind in ("event", "delta", "reply")),
        "rkllm/fleet/client/kitchen/reply/q1",
        "home/kitchen/answers",
        "home/kitchen/answers/delta",
        "voice/kitchen/event",
    ],
)
def test_the_daemon_may_publish_on_the_topics_of_the_protocol(topic):
    assert TOPICS.may_publish(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "rkllm",
        "rkllm/rock/a b",
        "rkllm/rock/client",
        "rkllm/rock/admin/request/pause",
        "rkllm/rock/admin/response",
        "rkllm/rock/client/kitchen",
        f"{BOX}/",
        f"{BOX}/request",
        f"{BOX}/request/q1",
        f"{BOX}/cancel/q1",
        "rkllm/other/client/kitchen/reply",
        "rkllm/other/status",
        "rkllm/rock/client/a b/reply",
        "rkllm/rock/status/delta",
        "home/a b/answers",
        "home/kitchen/answers/x",
        "home/kitchen/answers/delta/event",
        "homeassistant/status",
        "$SYS/x",
    ],
)
def test_the_daemon_may_publish_nowhere_else(topic):
    assert not TOPICS.may_publish(topic)


@given(ANY_TOPIC)
@example(f"{BOX}/request")
@example("rkllm/rock/admin/request/pause")
def test_no_request_no_cancel_and_no_wildcard_is_ever_published_on(topic):
    if TOPICS.may_publish(topic):
        assert not set("+#$\0") & set(topic)
        assert topic == "rkllm/rock/status" or TOPICS.parse(topic) is None


@given(CLIENTS, st.sampled_from(["reply", "event", "delta"]), st.none() | st.sampled_from(["q1", "a:b"]))
def test_every_answer_topic_passes_the_gate(client, kind, request_id):
    for target in ("rock", "fleet"):
        assert TOPICS.may_publish(Mailbox("rkllm", target, client).topic(kind, request_id))


def test_the_templates_name_topics_that_are_served_or_published():
    for name, template in TOPICS.templates().items():
        topic = template.replace("<client>", "kitchen").replace("[/<id>]", "/q1")
        if name in ("request", "cancel"):
            assert isinstance(TOPICS.parse(topic), ClientTopic)
        else:
            assert TOPICS.may_publish(topic)


def test_state_and_admin_topics_are_the_nodes_own():
    assert TOPICS.state("health") == "rkllm/rock/health"
    assert TOPICS.admin("response", "pause") == "rkllm/rock/admin/response/pause"


# Home Assistant

SHOWN = "homeassistant/device/rkllm_rock/config"


def test_the_discovery_topics_of_this_node_and_no_other_may_be_written():
    topics = Topics("rkllm", "rock", discovery=(SHOWN,), birth="homeassistant/status")
    assert topics.may_publish(SHOWN)
    for other in (f"{SHOWN}/x", SHOWN.replace("rock", "hall"), "homeassistant/status", "homeassistant/#"):
        assert not topics.may_publish(other)
    assert not TOPICS.may_publish(SHOWN)


def test_home_assistants_birth_is_heard_only_when_discovery_is_on():
    topics = Topics("rkllm", "rock", discovery=(SHOWN,), birth="homeassistant/status")
    assert "homeassistant/status" in topics.filters(admin=False, shared=False)
    assert isinstance(topics.parse("homeassistant/status"), HomeAssistantStatus)
    assert "homeassistant/status" not in TOPICS.filters(admin=True, shared=True)
    assert TOPICS.parse("homeassistant/status") is None


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        (f"{BOX}/reply/q1", "rkllm/rock/client/+/reply"),
        (f"{BOX}/last", "rkllm/rock/client/+/last"),
        ("rkllm/rock/info", "rkllm/rock/info"),
        ("home/kitchen/answers", "a configured response topic"),
    ],
)
def test_the_kind_of_a_topic_names_no_client_and_no_request(topic, kind):
    assert TOPICS.kind(topic) == kind


def test_answers_that_were_promised_under_an_earlier_name_may_still_be_published():
    renamed = Topics("rkllm", "new", former=frozenset({"rkllm/old", "other/old"}))
    for base in ("rkllm/old", "other/old", "rkllm/new"):
        assert renamed.may_publish(f"{base}/client/kitchen/reply/q1")
        assert not renamed.may_publish(f"{base}/client/kitchen/request/q1")
    for topic in ("rkllm/old/status", "rkllm/old/admin/response/x", "rkllm/older/client/kitchen/reply/q1"):
        assert not renamed.may_publish(topic)
    assert renamed.parse("rkllm/old/client/kitchen/request") is None
