"""The topic tree of protocol 1.0: which topics we read, which we may write.

Rule 1: an answer goes to the mailbox computed from the request's topic, never to a topic a payload names.
Rule 2: every publish of the daemon passes `Topics.may_publish`.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

_CLIENT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_RESERVED_IDS = frozenset({"event", "delta"})  # or `reply/event` could be an answer or an event topic
_NOT_FOR_REPLIES = frozenset({"", "request", "cancel", "event", "delta", "last"})
_STATE = ("status", "info", "queue", "health", "stats", "log", "schedules")
_RESERVED_LEVELS = frozenset({*_STATE, "client", "admin"})
"""Third levels of the tree that the protocol gives a meaning to: no configured pattern reaches below them."""
_MAX_RESPONSE_BYTES = 256
_MAX_RESPONSE_LEVELS = 10


def is_client(name: str) -> bool:
    """Return whether `name` can be the `<client>` level."""
    return _CLIENT.fullmatch(name) is not None


def is_id(text: str) -> bool:
    """Return whether `text` can be a request's id."""
    return _ID.fullmatch(text) is not None and text not in _RESERVED_IDS


class Verb(StrEnum):
    """What a client's topic asks for."""

    REQUEST = "request"
    CANCEL = "cancel"


class Mailbox(Struct, frozen=True):
    """The topics of one client under one target."""

    base: str
    target: str
    client: str

    @property
    def prefix(self) -> str:
        """Return `<base>/<target>/client/<client>`."""
        return f"{self.base}/{self.target}/client/{self.client}"

    def topic(self, kind: str, request_id: str | None = None) -> str:
        """Return the topic of `kind` (reply, event, delta, last), with the id of the request's topic."""
        return f"{self.prefix}/{kind}/{request_id}" if request_id else f"{self.prefix}/{kind}"


class ClientTopic(Struct, frozen=True):
    """A request or a cancel."""

    mailbox: Mailbox
    verb: Verb
    id: str | None
    """The id in the topic; None when it has none."""
    problem: str | None = None
    """Why the levels after the verb cannot be used; the id is None then."""


class AdminTopic(Struct, frozen=True):
    """An administrator's command."""

    command: str


class OwnStatus:
    """Our own availability topic: somebody, perhaps an old will, wrote it."""


class HomeAssistantStatus:
    """Home Assistant's availability topic: it was started or stopped."""


Incoming = ClientTopic | AdminTopic | OwnStatus | HomeAssistantStatus


class Topics(Struct, frozen=True):
    """The tree of one node."""

    base: str
    node: str
    groups: tuple[str, ...] = ()
    reply_patterns: tuple[str, ...] = ()
    """Configured response topics; `{client}` stands for a whole level."""
    discovery: tuple[str, ...] = ()
    """Discovery topics of this node in Home Assistant: the one in use, and older ones to clear."""
    birth: str | None = None
    """Topic where Home Assistant says that it has started; None when discovery is off."""
    scheduled: tuple[tuple[str, str], ...] = ()
    """Client and response topic of each schedule that names one."""

    former: frozenset[str] = frozenset()
    """`<base>/<target>` of earlier configurations: who was promised an answer there still waits for it."""

    def state(self, name: str) -> str:
        """Return a topic of our own: status, info, queue, health, stats, log or schedules."""
        return f"{self.base}/{self.node}/{name}"

    def admin(self, kind: str, command: str) -> str:
        """Return the admin topic of `kind` (request, response)."""
        return f"{self.base}/{self.node}/admin/{kind}/{command}"

    def filters(self, *, admin: bool, shared: bool) -> list[str]:
        """Return the topic filters to subscribe to; no two overlap.

        Args:
            admin: Whether admin commands are taken.
            shared: Whether the broker has shared subscriptions; without them groups stay inactive.
        """
        own = f"{self.base}/{self.node}"
        filters = [f"{own}/client/+/request/#", f"{own}/client/+/cancel/#", f"{own}/status"]
        if self.birth is not None:
            filters.append(self.birth)
        if admin:
            filters.append(f"{own}/admin/request/+")
        for group in self.groups if shared else ():
            filters.append(f"$share/{group}/{self.base}/{group}/client/+/request/#")
            filters.append(f"{self.base}/{group}/client/+/cancel/#")
        return filters

    def parse(self, topic: str) -> Incoming | None:
        """Return what an incoming topic means; None for a client name or a topic we do not serve."""
        if topic == self.birth:
            return HomeAssistantStatus()
        levels = topic.split("/")
        if len(levels) < 3 or levels[0] != self.base:
            return None
        target, rest = levels[1], levels[2:]
        if target == self.node and rest == ["status"]:
            return OwnStatus()
        if target == self.node and rest[:2] == ["admin", "request"] and len(rest) == 3:
            return AdminTopic(rest[2])
        if target != self.node and target not in self.groups:
            return None
        if len(rest) < 3 or rest[0] != "client" or not is_client(rest[1]):
            return None
        if rest[2] not in (Verb.REQUEST, Verb.CANCEL):
            return None
        mailbox, verb, tail = Mailbox(self.base, target, rest[1]), Verb(rest[2]), rest[3:]
        if not tail:
            return ClientTopic(mailbox, verb, None)
        if len(tail) > 1:
            return ClientTopic(mailbox, verb, None, "the topic has levels after the id")
        if not is_id(tail[0]):
            return ClientTopic(mailbox, verb, None, "the id in the topic is not valid")
        return ClientTopic(mailbox, verb, tail[0])

    def may_answer_on(self, asked: str, mailbox: Mailbox) -> bool:
        """Return whether a sender may have its answers on the response topic it asked for."""
        if (mailbox.client, asked) in self.scheduled:
            return True
        if any(c in asked for c in "+#$\0") or len(asked.encode("utf-8", "replace")) > _MAX_RESPONSE_BYTES:
            return False
        levels = asked.split("/")
        if len(levels) > _MAX_RESPONSE_LEVELS:
            return False
        own = mailbox.prefix.split("/")
        if levels[: len(own)] == own and len(levels) > len(own):
            return levels[len(own)] not in _NOT_FOR_REPLIES
        return not self._is_reserved(levels) and any(
            _fits(pattern, levels, mailbox.client) for pattern in self.reply_patterns
        )

    def may_publish(self, topic: str) -> bool:
        """Return whether the daemon may publish on `topic`: the one gate of every publish."""
        if any(c in topic for c in "+#$\0") or not topic:
            return False
        if topic in self.discovery:
            return True
        levels = topic.split("/")
        if levels[:2] == [self.base, self.node] and len(levels) == 3 and levels[2] in _STATE:
            return True
        if levels[:4] == [self.base, self.node, "admin", "response"] and len(levels) == 5:
            return True
        if len(levels) >= 5 and levels[2] == "client" and self._has_mailboxes(levels[0], levels[1]):
            return is_client(levels[3]) and levels[4] not in ("", Verb.REQUEST, Verb.CANCEL)
        if self._is_reserved(levels):
            return False
        stem = levels[:-1] if levels[-1] in ("delta", "event") else levels
        if any(answers in (topic, "/".join(stem)) for _, answers in self.scheduled):
            return True
        return any(_fits(pattern, levels) or _fits(pattern, stem) for pattern in self.reply_patterns)

    def _has_mailboxes(self, base: str, target: str) -> bool:
        now = base == self.base and (target == self.node or target in self.groups)
        return now or f"{base}/{target}" in self.former

    def kind(self, topic: str) -> str:
        """Return a topic of ours without the name of a client or the id of a request, to be shown to all."""
        levels = topic.split("/")
        if levels[0] == self.base and levels[2:3] == ["client"]:
            return "/".join((*levels[:3], "+", *levels[4:5]))
        if topic.startswith(f"{self.base}/{self.node}/") or topic in self.discovery:
            return topic
        return "a configured response topic"

    def _is_reserved(self, levels: Sequence[str]) -> bool:
        return len(levels) > 2 and levels[0] == self.base and levels[2] in _RESERVED_LEVELS

    def templates(self) -> dict[str, str]:
        """Return the topics as `info` shows them to a person."""
        client = f"{self.base}/{self.node}/client/<client>"
        return {
            "request": f"{client}/request[/<id>]",
            "cancel": f"{client}/cancel[/<id>]",
            "event": f"{client}/event[/<id>]",
            "delta": f"{client}/delta[/<id>]",
            "reply": f"{client}/reply[/<id>]",
            "last": f"{client}/last",
        }


def _fits(pattern: str, levels: Sequence[str], client: str | None = None) -> bool:
    """Return whether a topic fits a pattern: of this client, or of any when it is None."""
    parts = pattern.split("/")
    return len(parts) == len(levels) and all(
        (is_client(level) if client is None else level == client) if part == "{client}" else part == level
        for part, level in zip(parts, levels, strict=True)
    )
