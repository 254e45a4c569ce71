"""The promise of `core/topics.py` to who asks for a response topic: it is the sender's own, or denied."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from near_topics import ANY_TOPIC, BOX, CLIENTS, KITCHEN, LEVELS, PATTERNS, STATE, TOPICS

from rkllm_mqtt.core.topics import Mailbox, Topics


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
