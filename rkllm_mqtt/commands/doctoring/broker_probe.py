"""Ask the broker what it lets the daemon do; facts only, `broker` judges them.

What is published disturbs nobody: an empty request, which a daemon ignores; an answer to a client name that
nobody else has; and on `status` the word that is retained there already, this time not retained.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from rkllm_mqtt.commands.doctoring.broker_link import BrokerLink, LinkError, Stage
from rkllm_mqtt.config import Config
from rkllm_mqtt.core.topics import Mailbox, Topics

ANSWER_TIMEOUT_S = 5.0
"""Longest wait for one acknowledgement."""
ARRIVAL_TIMEOUT_S = 3.0
"""Longest wait for a message that should come back."""
RETAINED_GRACE_S = 0.3
"""For brokers that deliver retained messages later than the next acknowledgement."""
BROKER_VERSION = "$SYS/broker/version"


class BrokerFacts(Struct):
    """What the broker said."""

    error: str | None = None
    """Why there is no connection; None when there is one."""
    refused: bool = False
    """The broker answered and did not want us."""
    protocol: str = ""
    v5_error: str | None = None
    """Why MQTT 5 did not work, when 3.1.1 did."""
    taken_for_daemon: bool = False
    """The broker gave us the daemon's session; only publishing was tried then."""
    maximum_packet_bytes: int | None = None
    refused_filters: Mapping[str, str] = field(default_factory=dict)
    """Topic filter of the daemon → the broker's reason."""
    refused_topics: Mapping[str, str] = field(default_factory=dict)
    """What the daemon publishes (`status`, `reply`) → the broker's reason."""
    request_arrived: bool | None = None
    """A request reached our subscription; None when this user may not send one."""
    broker_version: str | None = None
    status: str | None = None
    health: Mapping[str, Any] | None = None
    info: Mapping[str, Any] | None = None


def probe_broker(config: Config) -> BrokerFacts:
    """Connect as the daemon would and try its topics; takes seconds, and never raises for the broker."""
    facts = BrokerFacts()
    link = _open(config, facts)
    if link is None:
        return facts
    try:
        facts.protocol = link.version
        facts.taken_for_daemon = link.taken_for_daemon
        facts.maximum_packet_bytes = link.maximum_packet_bytes
        if link.taken_for_daemon:
            _try_publishing(config, link, facts)  # its subscriptions and what waits for it stay untouched
        else:
            _read_state(config, link, facts)
            _try_topics(config, link, facts)
    finally:
        link.close()
    return facts


def _open(config: Config, facts: BrokerFacts) -> BrokerLink | None:
    versions = ("5", "3.1.1") if config.mqtt.protocol == "auto" else (config.mqtt.protocol,)
    for version in versions:
        link = BrokerLink(config.mqtt, version)
        try:
            link.open()
        except LinkError as exc:
            link.close()
            facts.error, facts.refused = str(exc), exc.stage is Stage.REFUSED
            if version == "5":
                facts.v5_error = str(exc)
            # A closed port is closed and a wrong password wrong for every version.
            if exc.stage is Stage.DIALLING or (facts.refused and "protocol" not in str(exc).lower()):
                return None
        else:
            facts.error, facts.refused = None, False
            return link
    return None


def _read_state(config: Config, link: BrokerLink, facts: BrokerFacts) -> None:
    topics = Topics(config.base, config.node)
    state = {name: topics.state(name) for name in ("status", "health", "info")}
    link.subscribe([*state.values(), BROKER_VERSION], ANSWER_TIMEOUT_S)
    # One more round trip: retained messages come before this acknowledgement, however slow the link is.
    link.subscribe([f"{config.base}/{config.node}/barrier"], ANSWER_TIMEOUT_S)
    link.wait(lambda: {*state.values(), BROKER_VERSION} <= link.newest.keys(), RETAINED_GRACE_S)
    version = link.newest.get(BROKER_VERSION)
    status = link.newest.get(state["status"])
    facts.broker_version = None if version is None else version.decode("utf-8", "replace")
    facts.status = None if status is None else status.decode("utf-8", "replace")
    facts.health = _json(link.newest.get(state["health"]))
    facts.info = _json(link.newest.get(state["info"]))


def _try_topics(config: Config, link: BrokerLink, facts: BrokerFacts) -> None:
    topics = Topics(config.base, config.node)
    mailbox = Mailbox(config.base, config.node, f"doctor-{secrets.token_hex(4)}")
    # Groups are left out: a member of a shared subscription takes prompts away from the others.
    filters = topics.filters(admin=config.admin.enabled, shared=False)
    facts.refused_filters = link.subscribe(filters, ANSWER_TIMEOUT_S)
    _try_publishing(config, link, facts)
    request = mailbox.topic("request", "doctor")
    if link.publish(request, b"", ANSWER_TIMEOUT_S) is None:
        facts.request_arrived = link.wait(lambda: request in link.newest, ARRIVAL_TIMEOUT_S)
        if not facts.request_arrived and not link.v5:
            facts.request_arrived = None  # 3.1.1 does not tell whether we may send one


def _try_publishing(config: Config, link: BrokerLink, facts: BrokerFacts) -> None:
    topics = Topics(config.base, config.node)
    mailbox = Mailbox(config.base, config.node, f"doctor-{secrets.token_hex(4)}")
    outcomes = {"reply": link.publish(mailbox.topic("reply", "doctor"), b"", ANSWER_TIMEOUT_S)}
    if not link.taken_for_daemon:  # else the status could not be read, and must not be guessed
        word = facts.status if facts.status in ("online", "offline") else "offline"
        outcomes["status"] = link.publish(topics.state("status"), word.encode(), ANSWER_TIMEOUT_S)
    facts.refused_topics = {name: reason for name, reason in outcomes.items() if reason is not None}


def _json(payload: bytes | None) -> Mapping[str, Any] | None:
    if payload is None:
        return None
    try:
        found = json.loads(payload)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
