"""A job that lives: it waits for the slot or is in it; the journal holds the same on disk."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from rkllm_mqtt.core.carried import Carried
from rkllm_mqtt.core.chat import Address, ChatRequest
from rkllm_mqtt.core.job import Priority


class Job(Struct, eq=False):
    """A live job: waiting, staged or running. Identity counts, not value."""

    seq: int
    id: str
    request: ChatRequest
    address: Address
    priority: Priority
    accepted_at: float
    """Unix seconds."""
    queued_at: float
    """Seconds of the journal clock; when it was accepted, also across restarts an estimate."""
    deadline: float
    """Seconds of the journal clock."""
    attempt: int = 0
    crashes: int = 0
    cancel_requested: bool = False
    history: tuple[Mapping[str, Any], ...] | None = None
    """The earlier messages of its conversation; None before they were read, or when it has none."""
    correction: tuple[str, str] | None = None
    """The answer that had not the asked shape, and what is wrong with it: the next run is to correct it."""
    events: int = 0
    """Events sent so far; the next one's `n`."""
    restart_told: bool = False
    """Its sender knows already that the last attempt is void."""
    shown_position: int = 0
    """The place last told to the sender; 0 is none."""
    is_untold: bool = False
    """Its `accepted` is on its way: no place is told before."""
    cost_s: float = 0.0
    """Slot time that it will need, as estimated at its acceptance; only ever set while it does not wait."""
    prompt_tokens: int = 0
    """About how many its prompt has, better known once it was rendered; 0: not looked at."""
    charged_s: float = 0.0
    """Slot time that its client was charged for the stay in the slot that goes on."""
    load_s: float = 0.0
    """Time of a load that was made for it: its client pays that when its stay in the slot ends."""
    passes: int = 0
    """How often a job with a cached prompt was taken before its turn; relative while it waits, see `Line`."""
    passed_s: float = 0.0
    """The slot time of those."""
    carried: Carried | None = None
    """Its answer so far: the next run goes on behind it."""
    continues: bool = False
    """The next run belongs to the same attempt: nobody but us knows that it was interrupted."""
    held_s: float = 0.0
    """How long the slot was kept free for its client behind it, at most."""
    number: int = 0
    """How a trace of the policy calls it; 0 is not at all."""
    protected: bool = False
    """It began while its class lacked slot time: it makes some tokens before it may be preempted."""

    @property
    def made(self) -> int:
        """Return the tokens of its answer that are made already."""
        return self.carried.tokens if self.carried else 0

    @property
    def client(self) -> str:
        """Return the client that asked."""
        return self.address.mailbox.client

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes a job unique: target, client, id."""
        return self.address.mailbox.target, self.client, self.id

    def next_event(self) -> int:
        """Return the `n` of the next event, rising from 0."""
        n = self.events
        self.events += 1
        return n
