"""Every setting with its unit, default, bounds and description; frozen, and unknown keys are errors."""

import re
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from rkllm_mqtt.config.models import ModelConfig, PresetConfig
from rkllm_mqtt.config.policy import PolicyConfig
from rkllm_mqtt.config.runtime import RuntimeConfig
from rkllm_mqtt.config.schedules import ScheduleConfig

NodeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class Section(BaseModel):
    """A part of the configuration: cannot be changed, refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def default_node() -> str:
    """Return the host name in lower case, other characters replaced by `-`."""
    name = re.sub(r"[^a-z0-9_-]", "-", socket.gethostname().split(".")[0].lower())[:32].lstrip("_-")
    return name or "rkllm"


class TlsConfig(Section):
    """An encrypted connection to the broker."""

    ca_file: Path | None = Field(
        None, description="PEM file of the authorities to trust; default: the system's."
    )
    certificate_file: Path | None = Field(None, description="PEM file of our own certificate.")
    key_file: Path | None = Field(None, description="PEM file of the key of our certificate.")
    key_password_file: Path | None = Field(None, description="File that holds the password of key_file.")
    insecure: bool = Field(False, description="Do not check the broker's host name. For a test only.")


class MqttConfig(Section):
    """Where the broker is and how we speak with it."""

    host: str = Field("127.0.0.1", min_length=1, description="Host name or address of the broker.")
    port: int | None = Field(
        None, ge=1, le=65535, description="Port; default 1883, 8883 with TLS, 80 or 443 with websockets."
    )
    transport: Literal["tcp", "websockets", "unix"] = Field("tcp", description="How to reach the broker.")
    websocket_path: str = Field("/mqtt", pattern="^/", description="Path of the URL for websockets.")
    socket_path: Path | None = Field(None, description="Path of the broker's socket for transport `unix`.")
    username: str | None = Field(
        None, description="User name; the environment variable RKLLM_MQTT_USERNAME overrides it."
    )
    password_file: Path | None = Field(
        None,
        description="File that holds the password; the environment's RKLLM_MQTT_PASSWORD overrides it.",
    )
    commands_username: str | None = Field(
        None,
        description="User name of the commands (`ask`, `top`, `queue`); default: the daemon's. With a broker "
        "that binds sessions to user names (`use_username_as_clientid`) they need one of their own.",
    )
    commands_password_file: Path | None = Field(
        None, description="File that holds the commands' password; only the commands read it."
    )
    tls: TlsConfig | None = Field(
        None, description="Encrypt the connection; `tls: {}` trusts the system's CAs."
    )
    keepalive_s: int = Field(
        30,
        ge=2,
        le=3600,
        description="Longest silence on the connection, seconds; CONNECT asks for 5 s less.",
    )
    session_expiry_s: int = Field(
        604_800, ge=60, description="How long the broker keeps our session and queued prompts, seconds."
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="MQTT version; `auto` is 5 with a fallback to 3.1.1."
    )
    will_delay_s: int = Field(5, ge=0, le=300, description="Delay of the will `offline` on MQTT 5, seconds.")
    connect_timeout_s: Seconds = Field(10, description="Longest wait for a connection, seconds.")
    reconnect_max_s: Seconds = Field(
        60, description="Longest pause between two attempts to connect, seconds."
    )
    inflight: int = Field(
        100, ge=1, le=65535, description="QoS 1 messages under way to the broker; the broker may lower it."
    )
    # Filled by the loader from file or environment, never from YAML.
    password: SecretStr | None = Field(None, exclude=True)
    key_password: SecretStr | None = Field(None, exclude=True)

    @field_validator("host")
    @classmethod
    def _host_is_no_url(cls, host: str) -> str:
        if any(c in "/@" or c.isspace() for c in host):
            raise ValueError("only a host name or address; port, tls, transport and username are keys too")
        return host

    @model_validator(mode="after")
    def _socket_needs_a_path(self) -> Self:
        if self.transport == "unix" and self.socket_path is None:
            raise ValueError("transport `unix` needs socket_path")
        return self


class JournalConfig(Section):
    """Where the accepted prompts and their answers are kept."""

    path: Path = Field(
        Path("/var/lib/rkllm-mqtt/journal.db"), description="SQLite file; its folder must be writable."
    )
    ballast_mb: int = Field(
        8, ge=0, le=1024, description="Space set aside so that answers still fit on a full disk, megabytes."
    )


class LimitsConfig(Section):
    """What one sender, and all together, may ask."""

    request_bytes: int = Field(262_144, ge=256, le=16_777_216, description="Largest request, bytes.")
    queue_length: int = Field(10_000, ge=1, le=1_000_000, description="Prompts waiting at most.")
    client_waiting: int = Field(
        2_000, ge=1, le=1_000_000, description="Prompts of one client waiting at most."
    )
    max_tokens: int = Field(4_096, ge=1, le=65_536, description="Largest answer a request may ask, tokens.")
    ttl_s: Seconds = Field(
        86_400, description="Deadline of a request that names none, and the longest, seconds."
    )
    id_retention_s: Seconds = Field(
        86_400, description="How long ids and answers are kept for duplicates, seconds."
    )
    redelivery_window_s: Seconds = Field(
        3_600, description="How long a redelivered request without id is recognised, seconds."
    )
    last_ttl_s: Seconds = Field(
        86_400, description="How long the retained `last` of a client is kept, seconds."
    )
    last_clients: int = Field(200, ge=0, le=10_000, description="Clients whose `last` is kept at most.")
    template_s: Seconds = Field(
        5, description="Longest rendering of a prompt by a template from a file, seconds."
    )
    reply_bytes: int = Field(
        1_048_576, ge=64, le=16_777_216, description="Longest text of an answer, bytes; longer ones are cut."
    )
    logits_max_mb: float = Field(
        256,
        gt=0,
        le=65_536,
        description="Largest prompt of an `evaluate` request by its logits, megabytes: 0.6 for each token.",
    )
    requests_per_s: float = Field(
        100, gt=0, le=100_000, description="Requests of one client in the long run, per second."
    )
    requests_burst: int = Field(
        100, ge=1, le=1_000_000, description="Requests of one client at once, beside others that ask too."
    )
    requests_burst_alone: int = Field(
        3_000, ge=1, le=1_000_000, description="Requests of one client at once while no other asks."
    )
    rejects_per_s: int = Field(
        200,
        ge=1,
        le=100_000,
        description="Refusals for its rate or a full queue that one client is told, per second; "
        "further ones are dropped, and one event a second says how many.",
    )
    journal_mb: int = Field(
        1_024,
        ge=1,
        le=1_048_576,
        description="Size of the journal at which no new request is taken, megabytes; answers still are.",
    )
    conversations: int = Field(500, ge=0, le=100_000, description="Conversations kept, of all clients.")
    conversation_turns: int = Field(
        100, ge=1, le=10_000, description="Turns kept of one conversation; the oldest go."
    )
    conversation_bytes: int = Field(
        262_144, ge=1_024, le=16_777_216, description="Messages kept of one conversation, bytes."
    )
    conversation_ttl_s: Seconds = Field(
        604_800, description="A conversation not used for so long is forgotten, seconds."
    )
    prefixes: int = Field(
        64, ge=0, le=1_000, description="Registered prefixes kept, of all clients; the least used go."
    )
    client_prefixes: int = Field(2, ge=0, le=100, description="Registered prefixes of one client.")
    prefix_ttl_s: Seconds = Field(
        604_800,
        description="How long a registered prefix lives that is not used, seconds; also the longest.",
    )
    warms_per_minute: int = Field(
        60, ge=1, le=6_000, description="Requests of one client to make a prefix ready, per minute."
    )
    client_states: int = Field(
        10_000, ge=1, description="Client names remembered at most; the least recent are forgotten."
    )


Pattern = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._*?-]+$")]


class ClientConfig(Section):
    """What a client cannot or may not say by itself; the first entry whose name matches counts."""

    name: Pattern = Field(description="Client name, or a pattern with * and ?.")
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="How its payloads are read; auto looks at them."
    )
    system: str | None = Field(None, description="System prompt of its requests that bring none.")
    preset: str | None = Field(None, description="Preset of its requests that name none.")
    model: str | None = Field(None, description="Model of its requests that name none.")
    priority: Literal["interactive", "normal", "background"] | None = Field(
        None, description="Priority of its requests that name none."
    )
    priority_ceiling: Literal["interactive", "normal", "background"] = Field(
        "interactive", description="Highest priority it may have; a higher one is lowered."
    )
    stream: bool | None = Field(None, description="Publish deltas when a request does not say.")
    last: bool = Field(False, description="Keep its newest answer in the retained topic `last`.")
    reply_bytes: int | None = Field(None, ge=16, description="Cut answers to so many bytes.")
    ttl_s: Seconds | None = Field(None, description="Deadline of its requests, seconds.")
    requests_per_s: float | None = Field(
        None, gt=0, le=100_000, description="Its requests in the long run, per second; default: of limits."
    )
    requests_burst: int | None = Field(
        None, ge=1, le=1_000_000, description="Its requests at once; default: of limits."
    )


class AdminConfig(Section):
    """Commands over MQTT; whoever may publish on `admin/request` may stop the slot."""

    enabled: bool = Field(False, description="Subscribe to the admin topics.")


class HomeAssistantConfig(Section):
    """How the daemon shows itself to Home Assistant, without the integration."""

    discovery: bool = Field(
        True, description="Publish the device for MQTT discovery; false removes what was published."
    )
    prefix: str = Field(
        "homeassistant",
        max_length=128,
        pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
        description="Home Assistant's discovery prefix; its birth message is expected on <prefix>/status.",
    )
    client: str = Field(
        "homeassistant",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Client name of Home Assistant, its user name at the broker, for prompts and answers.",
    )


class LogConfig(Section):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is shown."
    )


class Config(Section):
    """The whole configuration of one daemon."""

    node: NodeName = Field(default_factory=default_node, description="Name of this board in the topics.")
    base: str = Field(
        "rkllm",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="First topic level; Home Assistant's discovery expects the default.",
    )
    groups: tuple[NodeName, ...] = Field(
        (), max_length=16, description="Fleet groups whose requests are shared with the other members."
    )
    mqtt: MqttConfig = Field(default_factory=MqttConfig, description="The broker.")
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig, description="The native library.")
    models: tuple[ModelConfig, ...] = Field(
        (),
        description="Language models; the first is the default. None: the simulator's demonstration model.",
    )
    models_folder: Path | None = Field(
        None,
        description="Each .rkllm or .sim file in this folder is a model, by its name without the suffix; "
        "`<name>.yaml` beside it has its settings, those of a model but `id` and `file`. It is watched.",
    )
    presets: dict[str, PresetConfig] = Field(
        default_factory=lambda: {
            "precise": PresetConfig(temperature=0.2, top_p=0.8, top_k=20),
            "balanced": PresetConfig(temperature=0.7, top_p=0.9, top_k=40),
            "creative": PresetConfig(temperature=1.0, top_p=0.95, top_k=80),
        },
        description="Named sets of sampling parameters.",
    )
    clients: tuple[ClientConfig, ...] = Field((), description="Settings of clients by name or pattern.")
    reply_topics: tuple[str, ...] = Field(
        (), description="Further response topics that may be asked for; `{client}` fills a whole level."
    )
    schedules: tuple[ScheduleConfig, ...] = Field(
        (), max_length=256, description="Prompts that the daemon asks by itself."
    )
    admin: AdminConfig = Field(default_factory=AdminConfig, description="Admin commands.")
    homeassistant: HomeAssistantConfig = Field(
        default_factory=HomeAssistantConfig, description="Home Assistant's MQTT discovery."
    )
    policy: PolicyConfig = Field(default_factory=PolicyConfig, description="Who goes first.")
    limits: LimitsConfig = Field(default_factory=LimitsConfig, description="Bounds.")
    journal: JournalConfig = Field(default_factory=JournalConfig, description="The journal on disk.")
    log: LogConfig = Field(default_factory=LogConfig, description="Logging.")
    delta_interval_ms: int = Field(
        50, ge=0, le=10_000, description="Least time between two deltas of an answer; 0: every token."
    )
    drain_timeout_s: float = Field(
        10, ge=0, le=3600, description="Time for the running prompt to end at SIGTERM, seconds."
    )
    sysfs_root: Path = Field(Path("/"), description="Where /sys and /proc of the board are found.")

    @field_validator("reply_topics")
    @classmethod
    def _no_wildcards(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            levels = pattern.split("/")
            if any(c in pattern for c in "+#\0") or pattern.startswith("$") or len(pattern.encode()) > 256:
                raise ValueError(f"{pattern!r} may hold no wildcard, no NUL and not begin with $")
            if levels.count("{client}") != 1 or pattern.replace("/{client}", "", 1).count("{"):
                raise ValueError(f"{pattern!r} needs exactly one level that is {{client}}")
        return patterns

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        ids = [name for model in self.models for name in model.names]
        # What lies in a folder is known to a running daemon only: there a wrong name is `unknown_model`.
        known = None if self.models_folder is not None else ids
        if len(set(ids)) != len(ids):
            raise ValueError("two models or adapters have the same id")
        if sum(model.pinned for model in self.models) > 1:
            raise ValueError("only one model can be pinned: one is loaded at a time")
        if self.node in self.groups:
            raise ValueError("a group may not have the node's name")
        if self.homeassistant.prefix.split("/")[0] == self.base:
            raise ValueError("homeassistant.prefix may not begin with the base of our own topics")
        self._check_schedules(known)
        for client in self.clients:
            if client.preset is not None and client.preset not in self.presets:
                raise ValueError(f"client {client.name!r} names the unknown preset {client.preset!r}")
            if client.model is not None and known is not None and client.model not in known:
                raise ValueError(f"client {client.name!r} names the unknown model {client.model!r}")
        return self

    def _check_schedules(self, model_ids: list[str] | None) -> None:
        if len({schedule.id for schedule in self.schedules}) != len(self.schedules):
            raise ValueError("two schedules have the same id")
        for schedule in self.schedules:
            if schedule.preset is not None and schedule.preset not in self.presets:
                raise ValueError(f"schedule {schedule.id!r} names the unknown preset {schedule.preset!r}")
            if schedule.model is not None and model_ids is not None and schedule.model not in model_ids:
                raise ValueError(f"schedule {schedule.id!r} names the unknown model {schedule.model!r}")
            for topic in (*schedule.values.values(), *filter(None, [schedule.reply_topic])):
                # Ours are not to be heard twice, and an answer must not become a request.
                if topic.split("/")[0] in (self.base, "") or topic == f"{self.homeassistant.prefix}/status":
                    raise ValueError(f"schedule {schedule.id!r} may not use the topic {topic!r}")
