"""The promise of `core/topics.py`: nobody gets an answer to a topic that is not his own."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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

PATTERNS = ("home/{client}/answers", "voice/{client}", "rkllm/{client}", "rkllm/rock/{client}")
TOPICS = Topics("rkllm", "rock", ("fleet",), PATTERNS)
KITCHEN = Mailbox("rkllm", "rock", "kitchen")
BOX = KITCHEN.prefix
STATE = ("status", "info", "queue", "health", "stats", "log")

# Words that mean something in the tree, so that chance builds topics near the forbidden ones.
LEVELS = st.sampled_from(
    [
        *("rkllm", "rock", "fleet", "other", "client", "kitchen", "hall", "request", "cancel", "reply"),
        *("event", "delta", "last", "admin", "response", "home", "voice", "answers"),
        *("", "+", "#", "$SYS", "\0", "é", *STATE),
    ]
)
NEAR = st.lists(LEVELS, min_size=1, max_size=9).map("/".join)
CLIENTS = st.sampled_from(["kitchen", "hall", "rock", "status", "client", "admin", "request", "a.b-c_1"])
ANY_TOPIC = st.one_of(NEAR, st.text(max_size=40), NEAR.map(lambda tail: f"{BOX}/{tail}"))


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


# answering


def test_a_topic_level_id_ends_every_answer_topic_and_no_id_adds_nothing():
    assert KITCHEN.topic("reply", "q1") == "rkllm/rock/client/kitchen/reply/q1"
    assert KITCHEN.topic("delta") == "rkllm/rock/client/kitchen/delta"


@pytest.mark.parametrize(
    "asked",
    [
        f"{BOX}/reply",
        f"{BOX}/reply/q1",
        f"{BOX}/answers/a/b/c/d/e",
        f"{BOX}/requests",
        f"{BOX}/é",
        "home/kitchen/answers",
        "voice/kitchen",
        "rkllm/kitchen",
        "rkllm/rock/kitchen",
    ],
)
def test_a_response_topic_in_the_own_mailbox_or_of_a_pattern_is_honoured(asked):
    assert TOPICS.may_answer_on(asked, KITCHEN)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "/",
        BOX,
        f"{BOX}/",
        f"/{BOX}/reply",
        *(f"{BOX}/{kind}" for kind in ("request", "cancel", "event", "delta", "last")),
        *(f"{BOX}/{kind}/q1" for kind in ("request", "cancel", "event", "delta", "last")),
        f"{BOX}/+",
        f"{BOX}/reply/#",
        f"{BOX}/reply$",
        f"{BOX}/reply\0",
        f"{BOX}s/reply",
        "rkllm/rock/client/hall/reply",
        "rkllm/fleet/client/kitchen/reply",
        "rkllm/other/client/kitchen/reply",
        "rkllm/rock/status",
        "rkllm/rock/admin/request/pause",
        "home/hall/answers",
        "home/kitchen/answers/x",
        "home/{client}/answers",
        "voice/kitchen/",
        "homeassistant/status",
        "$SYS/broker",
    ],
)
def test_any_other_response_topic_is_denied(asked):
    assert not TOPICS.may_answer_on(asked, KITCHEN)


@pytest.mark.parametrize("filler", ["x", "é", "🙂"])
def test_a_response_topic_has_at_most_256_bytes(filler):
    room = 256 - len(f"{BOX}/reply/".encode())
    longest = f"{BOX}/reply/" + filler * (room // len(filler.encode()))
    assert TOPICS.may_answer_on(longest, KITCHEN)
    assert not TOPICS.may_answer_on(longest + filler, KITCHEN)


def test_a_response_topic_has_at_most_ten_levels():
    ten = f"{BOX}/reply/6/7/8/9/10"
    assert TOPICS.may_answer_on(ten, KITCHEN)
    assert not TOPICS.may_answer_on(f"{ten}/11", KITCHEN)


def test_a_group_has_a_mailbox_of_its_own():
    of_fleet = Mailbox("rkllm", "fleet", "kitchen")
    assert TOPICS.may_answer_on("rkllm/fleet/client/kitchen/reply", of_fleet)
    assert not TOPICS.may_answer_on(f"{BOX}/reply", of_fleet)


def allowed_by_the_rule(asked, client, patterns=PATTERNS):
    """Return what the sentences of the protocol say, written a second time and in another way."""
    levels = asked.split("/")
    if set("+#$\0") & set(asked) or len(asked.encode()) > 256 or len(levels) > 10:
        return False
    if levels[:4] == ["rkllm", "rock", "client", client] and len(levels) >= 5:
        return levels[4] not in ("", "request", "cancel", "event", "delta", "last")
    if levels[0] == "rkllm" and len(levels) >= 3 and levels[2] in (*STATE, "client", "admin"):
        return False
    return any(asked == pattern.replace("{client}", client) for pattern in patterns)


@given(ANY_TOPIC, CLIENTS)
@example("home/kitchen/answers", "kitchen")
@example("rkllm/rock/status", "status")
@example("rkllm/rock/client", "client")
def test_response_topics_are_honoured_exactly_as_the_rule_says(asked, client):
    mailbox = Mailbox("rkllm", "rock", client)
    assert TOPICS.may_answer_on(asked, mailbox) == allowed_by_the_rule(asked, client)


_PATTERN_WORDS = st.lists(
    st.sampled_from(["rkllm", "rock", "other", "client", "request", "status", "admin", "x"]),
    min_size=1,
    max_size=5,
)
# Exactly one level of a pattern is the client, at any place.
PATTERN_LEVELS = st.builds(
    lambda words, at: [*words[:at], "{client}", *words[at:]], _PATTERN_WORDS, st.integers(0, 5)
)


@given(PATTERN_LEVELS, CLIENTS, st.lists(LEVELS, min_size=1, max_size=4).map("/".join))
@example(["rkllm", "rock", "client", "{client}", "request"], "kitchen", "reply")
@example(["rkllm", "{client}", "status"], "rock", "reply")
@example(["rkllm", "rock", "{client}"], "kitchen", "reply")
def test_no_pattern_opens_the_topics_that_the_protocol_gives_a_meaning_to(parts, client, tail):
    topics = Topics("rkllm", "rock", ("fleet",), ("/".join(parts),))
    mailbox = Mailbox("rkllm", "rock", client)
    asked = "/".join(client if part == "{client}" else part for part in parts)
    if topics.may_answer_on(asked, mailbox):
        assert not (asked.startswith("rkllm/rock/") and asked.split("/")[2] in (*STATE, "admin"))
        if asked.startswith("rkllm/") and asked.split("/")[2:3] == ["client"]:
            assert asked.startswith(f"{mailbox.prefix}/")
    # Whatever is honoured can really be published, with its events and deltas.
    for topic in (asked, f"{mailbox.prefix}/{tail}"):
        if topics.may_answer_on(topic, mailbox):
            assert all(topics.may_publish(t) for t in (topic, f"{topic}/delta", f"{topic}/event"))


# publishing


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


@given(ANY_TOPIC, st.lists(LEVELS, max_size=2), st.lists(LEVELS, max_size=2), CLIENTS, CLIENTS)
@example("home/kitchen/answers", ["home"], ["answers"], "kitchen", "hall")
def test_one_pattern_never_gives_two_clients_the_same_topic(asked, before, behind, client, other):
    """Under the own mailbox or where the pattern has the own name; nobody reaches what is another's."""
    topics = Topics("rkllm", "rock", (), ("/".join([*before, "{client}", *behind]),))
    box, others = Mailbox("rkllm", "rock", client), Mailbox("rkllm", "rock", other)
    own = "/".join([*before, client, *behind])
    for topic in (asked, own, f"{box.prefix}/{asked}", f"{others.prefix}/{asked}"):
        if topics.may_answer_on(topic, box):
            assert topic.startswith(f"{box.prefix}/") or topic == own
            assert client == other or not topics.may_answer_on(topic, others)
            assert all(topics.may_publish(f"{topic}{tail}") for tail in ("", "/delta", "/event"))


def test_answers_that_were_promised_under_an_earlier_name_may_still_be_published():
    renamed = Topics("rkllm", "new", former=frozenset({"rkllm/old", "other/old"}))
    for base in ("rkllm/old", "other/old", "rkllm/new"):
        assert renamed.may_publish(f"{base}/client/kitchen/reply/q1")
        assert not renamed.may_publish(f"{base}/client/kitchen/request/q1")
    for topic in ("rkllm/old/status", "rkllm/old/admin/response/x", "rkllm/older/client/kitchen/reply/q1"):
        assert not renamed.may_publish(topic)
    assert renamed.parse("rkllm/old/client/kitchen/request") is None
