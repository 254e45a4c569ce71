"""Follows the runs of the slot, to know what its KV cache holds for the next one.

Rule 1: a run that is staged is told what the runs before it will leave; when it begins, what they have left.
Rule 2: another worker, an error or a batch leaves nothing that anybody could know.
"""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.kvcache import NOTHING, UNKNOWN, KvState, Match, Passed
from rkllm_mqtt.core.prefix import Chain, fingerprint_of
from rkllm_mqtt.knowledge import Knowledge
from rkllm_mqtt.runtime.facts import stamp_of
from rkllm_mqtt.runtime.order import LoraOrder
from rkllm_mqtt.runtime.run import EndReason, Run, RunEnd
from rkllm_mqtt.runtime.slot import Slot

_UNKNOWING = (EndReason.ERROR, EndReason.CONTEXT, EndReason.ADAPTER)
"""Ends behind which nobody knows what the library has kept."""


class Restorable(Struct, frozen=True):
    """What a prompt-cache file holds."""

    chain: Chain
    tokens: int | None = None


class Tracked(Struct, eq=False):
    """A run in the worker."""

    run: Run
    chain: Chain | None
    """Of its prompt; None for a run behind which nobody knows what is there."""
    file: "Restorable | None" = None
    """The prompt-cache file that it loads."""
    owner: str = ""
    """The client whose prompt it is; empty: nobody's in particular."""
    tokens: int = 0
    """Of its prompt, estimated."""
    match: Match = NOTHING
    """What of its prompt is not computed again: expected, and since it began as far as it is known."""
    before: KvState = UNKNOWN
    """What the cache held when it began."""


class Upcoming(Struct, frozen=True):
    """What the KV cache will hold when the runs in the worker have ended."""

    text: str
    chain: Chain
    tokens: int
    chars_held: int
    """Of the text, those that are known to be there."""
    owner: str
    lora: LoraOrder | None


class KvTracker:
    """The state of the one KV cache."""

    def __init__(self, slot: Slot, knowledge: Knowledge) -> None:
        self._slot = slot
        self._knowledge = knowledge
        self._state = UNKNOWN
        self._pid: int | None = None
        self._pending: list[Tracked] = []
        self.text = ""
        """All that the last run computed; empty where that is not known."""
        self._last: Tracked | None = None
        self.on_followed: Callable[[Tracked], None] = lambda _tracked: None
        """Called with each run that was submitted."""
        self.on_settled: Callable[[Tracked, RunEnd | None], None] = lambda _tracked, _end: None
        """Called when a run has ended and the state is known again; None: its worker was lost."""

    @property
    def state(self) -> KvState:
        """Return what the cache holds behind the last run that has ended."""
        self._look()
        return self._state

    def chain_of(self, model_id: str, lora: LoraOrder | None, prompt: str) -> Chain:
        """Return the beginnings of a prompt of the loaded model."""
        return Chain.of(prompt, self.fingerprint(model_id, lora))

    def fingerprint(self, model_id: str, lora: LoraOrder | None) -> str:
        """Return what the keys and values of a prompt depend on beside its text."""
        model = self._slot.catalogue.settings(model_id)
        own = None if model is None else (model.template, model.context_tokens)
        adapter = None if lora is None else (lora.id, lora.scale, *stamp_of(Path(lora.file)))
        return fingerprint_of((self._slot.loaded_from, own, adapter))

    def held(self, chain: Chain) -> int:
        """Return how many characters of a prompt are known to be there now, whatever runs."""
        return self.state.match(chain, self._knowledge.facts_of(self._slot.wanted)).known

    def expected(self, chain: Chain, file: Restorable | None = None) -> Match:
        """Return what of a prompt will be there when it is submitted now, or with a file loaded before."""
        facts = self._knowledge.facts_of(self._slot.wanted)
        state = self.state
        for tracked in self._pending:
            chain_before = tracked.chain
            if chain_before is None:
                state = UNKNOWN
            else:
                state = state.after(Passed(chain_before, chain_before.chars, aborted=False), facts)
        return _loading(state, file, facts).match(chain, facts)

    @property
    def upcoming(self) -> Upcoming | None:
        """Return what will be there; None where that is not known, or not by its text alone."""
        last = self._pending[-1] if self._pending else self._last
        if last is None or last.chain is None or not self._is_raw:
            return None
        order = last.run.order
        if self._pending:
            chars = len(order.prompt)
            return Upcoming(order.prompt, last.chain, last.tokens, chars, last.owner, order.lora)
        state, facts = self.state, self._knowledge.facts_of(self._slot.wanted)
        if state.held is None or not self.text:
            return None
        tokens = sum(state.tokens) if state.tokens else last.tokens
        held = state.match(state.held, facts).known
        return Upcoming(self.text, state.held, tokens, held, last.owner, order.lora)

    @property
    def _is_raw(self) -> bool:
        model = self._slot.catalogue.settings(self._slot.wanted)
        return model is None or model.template != "runtime"

    def follow(
        self,
        run: Run,
        chain: Chain | None,
        file: Restorable | None = None,
        *,
        owner: str = "",
        tokens: int = 0,
    ) -> Tracked:
        """Follow a run that was just submitted.

        Args:
            run: In the worker.
            chain: Of its prompt; None: behind it nobody knows what is there (a batch, another mode).
            file: The prompt-cache file that it loads.
            owner: The client whose prompt it is.
            tokens: Of its prompt, estimated.
        """
        match = NOTHING if chain is None else self.expected(chain, file)
        tracked = Tracked(run, chain, file, owner, tokens, match)
        self.on_followed(tracked)
        self._pending.append(tracked)
        run.started.add_done_callback(lambda started: None if started.cancelled() else self._begin(tracked))
        run.ended.add_done_callback(lambda _: self._settle(tracked))
        return tracked

    def forget(self) -> None:
        """Nothing is known of the KV cache any more."""
        self._state, self._last, self.text = UNKNOWN, None, ""

    def _begin(self, tracked: Tracked) -> None:
        facts = self._knowledge.facts_of(self._slot.wanted)
        tracked.before = self.state
        if tracked.chain is not None:
            tracked.match = _loading(tracked.before, tracked.file, facts).match(tracked.chain, facts)

    def _settle(self, tracked: Tracked) -> None:
        self._pending.remove(tracked)
        ended = tracked.run.ended
        end = None if ended.cancelled() or ended.exception() is not None else ended.result()
        if end is None or end.reason in _UNKNOWING:
            self.forget()
        elif end.reason is not EndReason.REVOKED and tracked.run.started_at is not None:
            self._look()
            if tracked.chain is None:
                self.forget()
            else:
                self._advance(tracked, tracked.chain, end)
        self.on_settled(tracked, end)

    def _advance(self, tracked: Tracked, asked: Chain, end: RunEnd) -> None:
        """Take over what a run has left."""
        run, restored = tracked.run, tracked.run.restored
        facts = self._knowledge.facts_of(self._slot.wanted)
        if restored is not None and not restored.ok:  # it began with what was there before
            tracked.match = replace(tracked.before, loaded=None).match(asked, facts)
        text, prompt_chars = _computed(run, end)
        chain = Chain.of(text, asked.fingerprint, prompt_chars)
        file = tracked.file if restored is not None and restored.ok else None
        passed = Passed(
            chain,
            prompt_chars,
            aborted=not end.clean,
            restored=file.chain if file else None,
            restored_tokens=file.tokens if file else None,
            tokens=_tokens(tracked, end),
            refused=restored is not None and not restored.ok,
        )
        self._state = self._state.after(passed, facts)
        self._last, self.text = tracked, text

    def _look(self) -> None:
        """Notice that the worker is another one."""
        if self._slot.pid != self._pid:
            self._pid = self._slot.pid
            self.forget()


def _loading(state: KvState, file: Restorable | None, facts: CacheFacts) -> KvState:
    return state if file is None else state.restored(file.chain, file.tokens, facts)


def _tokens(tracked: Tracked, end: RunEnd) -> tuple[int, int] | None:
    """Return the tokens of the prompt and of the answer, as far as the runtime and earlier runs tell."""
    cached = tracked.match.tokens if tracked.match.likely else 0
    if end.computed_tokens is None or cached is None:
        return None
    return cached + end.computed_tokens, end.tokens - tracked.run.order.carried_tokens


def _computed(run: Run, end: RunEnd) -> tuple[str, int]:
    """Return the text of which keys and values were computed, and how much of it is the prompt."""
    prompt = run.order.prompt
    if run.order.prime or end.prefill_ms is None:  # ended in its prefill: only the chunks are there for sure
        return prompt[: end.reached], end.reached
    carried = "".join(run.order.carried)
    written = end.written if end.written is not None else carried + "".join(run.raw)
    asked = prompt[: len(prompt) - len(carried.rstrip())]
    return asked + written, len(prompt)
