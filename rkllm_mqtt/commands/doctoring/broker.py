"""Checks of the broker: reached, MQTT 5, rights on the topics, its queue limit, and who else is there."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rkllm_mqtt.commands.doctoring.broker_probe import BrokerFacts
from rkllm_mqtt.commands.doctoring.finding import Finding, Group
from rkllm_mqtt.commands.doctoring.journal import Use, use_of
from rkllm_mqtt.commands.doctoring.subject import Subject
from rkllm_mqtt.config import MqttConfig
from rkllm_mqtt.core.health import SMALL_PACKET_BYTES
from rkllm_mqtt.mqtt.dial import address_of, port_of

GROUP = Group("Broker")
ENOUGH_QUEUED = 10_000
"""The daemon's own default queue length: with less the broker forgets prompts that the daemon would take."""
STALE_AFTER_S = 90
"""Older health means a dead daemon: it is published every 30 s."""
_ACL = "In mosquitto's acl_file: `user {user}` and below it `topic readwrite {base}/{node}/#`."


def check_broker(subject: Subject, facts: BrokerFacts, now: float) -> list[Finding]:
    """Return the findings about the broker; `now` is in Unix seconds."""
    if facts.error is not None:
        return [_unreachable(subject.config.mqtt, facts)]
    findings = [GROUP.ok("connection", f"{address_of(subject.config.mqtt)} accepts us"), protocol(facts)]
    if facts.taken_for_daemon:
        return [*findings, shared_user(subject.config.mqtt), write_answers(subject, facts)]
    findings += rights(subject, facts)
    findings.append(daemon(subject, facts, now))
    findings.append(queue_limit(subject, facts))
    if facts.maximum_packet_bytes is not None and facts.maximum_packet_bytes < SMALL_PACKET_BYTES:
        sentence = f"Messages above {facts.maximum_packet_bytes} bytes are refused: long answers are cut."
        findings.append(GROUP.warn("message size", sentence, "Raise `max_packet_size` in mosquitto.conf."))
    return findings


def _unreachable(config: MqttConfig, facts: BrokerFacts) -> Finding:
    where = address_of(config)
    reason = str(facts.error)
    if facts.refused:
        advice = "Check `mqtt.username` and `mqtt.password_file` against the broker's password file."
        return GROUP.fail("connection", f"{where} refuses us: {reason}.", advice)
    if reason.startswith("TLS"):
        advice = "Check `mqtt.tls.ca_file`, the host name in the certificate, and the date."
        return GROUP.fail("connection", f"{where}: {reason}.", advice)
    advice = "Is it running? `sudo systemctl status mosquitto`; else correct `mqtt.host` and `mqtt.port`."
    return GROUP.fail("connection", f"No broker answers at {where}: {reason}.", advice)


def protocol(facts: BrokerFacts) -> Finding:
    """Check for MQTT 5: on 3.1.1 nobody tells the daemon that an answer was forbidden."""
    if facts.protocol == "5":
        return GROUP.ok("MQTT 5", "spoken")
    if facts.v5_error is None:
        return GROUP.ok("MQTT 5", "switched off by `mqtt.protocol`; forbidden answers go unnoticed")
    advice = "Use a broker that speaks MQTT 5, such as mosquitto 2."
    return GROUP.warn("MQTT 5", f"Not spoken ({facts.v5_error}): forbidden answers go unnoticed.", advice)


def shared_user(config: MqttConfig) -> Finding:
    """Tell of a broker that takes each connection of the daemon's user for the daemon."""
    if config.commands_username not in (None, config.username):
        sentence = "This broker binds sessions to user names, and the commands have one of their own"
        return GROUP.ok("user of the commands", sentence)
    sentence = "This broker takes each connection of the user for the daemon, also the commands'."
    advice = "Set `mqtt.commands_username` to a user of its own, or `ask` and `top` will be refused."
    return GROUP.warn("user of the commands", sentence, advice)


def _acl(subject: Subject) -> str:
    config = subject.config
    return _ACL.format(user=config.mqtt.username or "(anonymous)", base=config.base, node=config.node)


def rights(subject: Subject, facts: BrokerFacts) -> list[Finding]:
    """Check that the daemon's user may read requests and write answers and state."""
    acl = _acl(subject)
    findings = []
    if facts.refused_filters:
        name, reason = next(iter(facts.refused_filters.items()))
        findings.append(GROUP.fail("read requests", f"Subscribing to {name} is refused: {reason}.", acl))
    elif facts.request_arrived is False:
        sentence = "A request was accepted by the broker and not delivered to the daemon's user."
        findings.append(GROUP.fail("read requests", sentence, acl))
    elif facts.request_arrived:
        findings.append(GROUP.ok("read requests", "A request sent as a test arrived"))
    else:
        findings.append(
            GROUP.skip("read requests", "Granted; not tried, as this user may not send requests.")
        )
    return [*findings, write_answers(subject, facts)]


def write_answers(subject: Subject, facts: BrokerFacts) -> Finding:
    """Check that the daemon's user may write answers and state."""
    if facts.refused_topics:
        what = ", ".join(f"{name} ({reason})" for name, reason in facts.refused_topics.items())
        return GROUP.fail("write answers", f"Publishing is refused: {what}.", _acl(subject))
    if facts.protocol == "5":
        return GROUP.ok("write answers", "What was published as a test was accepted")
    return GROUP.skip("write answers", "MQTT 3.1.1 cannot tell whether they are forbidden.")


def daemon(subject: Subject, facts: BrokerFacts, now: float) -> Finding:
    """Say whether a daemon of this node is online, and whether it is the one of this computer."""
    node = subject.config.node
    if facts.status != "online":
        return GROUP.ok("daemon", f"No daemon is online as {node}; the name is free")
    age = _age(facts.health, now)
    if age is None or age > STALE_AFTER_S:
        since = "never" if age is None else f"{age:.0f} s ago"
        sentence = f"{node} is said to be online, but its last sign of life was {since}."
        return GROUP.warn("daemon", sentence, "Start the daemon; it corrects the retained status by itself.")
    if not subject.demo and use_of(subject.config.journal.path) is Use.FREE:
        sentence = f"A daemon is online as {node}, but not on this computer with this journal."
        return GROUP.fail(
            "daemon", sentence, "Give one of them another `node`: they would share their prompts."
        )
    state = str((facts.health or {}).get("status", "unknown"))
    if state == "healthy":
        return GROUP.ok("daemon", f"{node} is online and healthy")
    first = next(iter((facts.health or {}).get("reasons") or [{}]))
    reason, hint = (str(first.get(key, "")) if isinstance(first, dict) else "" for key in ("message", "hint"))
    return GROUP.warn("daemon", f"{node} is online and {state}: {reason or 'no reason given'}", hint)


def queue_limit(subject: Subject, facts: BrokerFacts) -> Finding:
    """Check how many prompts the broker keeps for a daemon that is away: it cannot be asked over MQTT."""
    version = facts.broker_version
    if version is not None and "mosquitto" not in version.lower():
        return GROUP.skip(
            "queued prompts", f"{version} does not tell its limit.", "Look it up in its settings."
        )
    named = version or "The broker"
    advice = (
        f"Set `max_queued_messages {ENOUGH_QUEUED}` in mosquitto.conf; safe is resending until `accepted`."
    )
    if version is None:
        sentence = "The broker does not tell its limit. Mosquitto drops acknowledged prompts beyond 1,000."
        return GROUP.skip("queued prompts", sentence, advice)
    limit = (
        configured_limit(subject.root, port_of(subject.config.mqtt))
        if is_local(subject.config.mqtt)
        else None
    )
    if limit is None:
        sentence = f"{named} drops acknowledged prompts beyond max_queued_messages, 1,000 unless set."
        return GROUP.warn("queued prompts", sentence, advice)
    if limit == 0 or limit >= ENOUGH_QUEUED:
        return GROUP.ok("queued prompts", f"{named} keeps {limit or 'any number'} (/etc/mosquitto)")
    return GROUP.warn("queued prompts", f"{named} keeps {limit} at most and drops the others.", advice)


def configured_limit(root: Path, port: int) -> int | None:
    """Return max_queued_messages of this computer's mosquitto; None unless its files name it and the port."""
    files = [root / "etc/mosquitto/mosquitto.conf", *sorted((root / "etc/mosquitto/conf.d").glob("*.conf"))]
    words: list[list[str]] = []
    for file in files:
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        words += [line.split() for line in lines if re.match(r"[a-z]", line)]
    ports = {
        int(word[1])
        for word in words
        if len(word) > 1 and word[0] in ("listener", "port") and word[1].isdigit()
    }
    limits = [
        int(word[1])
        for word in words
        if len(word) > 1 and word[0] == "max_queued_messages" and word[1].isdigit()
    ]
    return limits[-1] if limits and port in (ports or {1883}) else None


def is_local(config: MqttConfig) -> bool:
    """Say whether the broker is on this computer."""
    if config.transport == "unix" or config.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        return False


def _age(health: Mapping[str, Any] | None, now: float) -> float | None:
    at = (health or {}).get("at")
    if isinstance(at, int | float) and not isinstance(at, bool):
        return max(0.0, now - at)
    if not isinstance(at, str):
        return None
    try:
        told = datetime.fromisoformat(at)
    except ValueError:
        return None
    return max(0.0, now - (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp())
