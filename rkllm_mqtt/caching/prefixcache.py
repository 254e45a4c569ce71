"""Prompt-cache files in the way of runs: which to load before one, which to leave behind one.

Rule 1: a file is loaded only where that is clearly cheaper than computing, and saved only where it pays;
    where nobody has probed the library neither is done.
Rule 2: a load that fails, helps nothing or kills the worker removes its file, and costs no job an attempt.
Rule 3: a file is saved by a prime run whose prompt is just what it holds: behind the last run in an idle
    slot, in front of foreign work that would replace it, or by a warm.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.caching.ledger import Counts, Ledger
from rkllm_mqtt.caching.shelf import MB, CacheFile, Shelf
from rkllm_mqtt.caching.tracker import KvTracker, Restorable, Tracked, Upcoming
from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.comebacks import Comebacks
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.core.prefix import Chain
from rkllm_mqtt.core.worth import Plan, plan_of, restore_gain_s
from rkllm_mqtt.host.disk import MB as BINARY_MB
from rkllm_mqtt.host.disk import free_mb
from rkllm_mqtt.knowledge import Knowledge
from rkllm_mqtt.logs import get_logger
from rkllm_mqtt.runtime.order import RunOrder, prime_order
from rkllm_mqtt.runtime.run import RunEnd
from rkllm_mqtt.runtime.slot import Slot

log = get_logger(__name__)

_LEAST_TOKENS = 64
"""Shorter beginnings are computed about as fast as a file is opened."""
_CRASHES = 2
"""Loads that kill a worker, after which no file is loaded for this model and runtime."""
_PAUSE_S = 60.0
"""After a file that could not be written."""
_WEIGHT = 0.3
"""Of one load in the learned rate."""
_SHORT = 0.5
"""A file with so little of the bytes that its tokens take is not whole; their number is an estimate."""
_USELESS = 0.5
"""A load after which the library computes so much of what the file holds has helped nothing."""


class Beginning(Struct, frozen=True):
    """A beginning of a prompt that could be saved."""

    chain: Chain
    tokens: int
    owner: str
    plan: Plan


class PrefixCache:
    """The prompt-cache files of the loaded model."""

    def __init__(
        self,
        slot: Slot,
        tracker: KvTracker,
        knowledge: Knowledge,
        paces: Mapping[str, Pace],
        tiers: Mapping[str, Shelf],
        ledger: Ledger,
    ) -> None:
        """Keep the arguments, and follow the runs of the tracker.

        Args:
            slot: Where the runs are.
            tracker: Knows what is in the KV cache.
            knowledge: What the library does with files.
            paces: The speed of the models.
            tiers: The folders, by name; empty: no files are used.
            ledger: What may be written on the disk.
        """
        self._slot = slot
        self._tracker = tracker
        self._knowledge = knowledge
        self._paces = paces
        self.tiers = tiers
        self.ledger = ledger
        self.comebacks = Comebacks()
        self.counts = Counts()
        self._rates_of_tier: dict[tuple[str, str], float] = {}
        """Seconds for a megabyte, by the names of fact and tier, as loads and saves have shown."""
        self._loading: dict[int, tuple[Shelf, CacheFile]] = {}
        """By the number of the run."""
        self._saving: dict[str, tuple[Shelf, Beginning]] = {}
        """By the path that a run in the worker writes."""
        self._crashes: dict[str, int] = {}
        """By fingerprint."""
        self._not_before = 0.0
        tracker.on_followed, tracker.on_settled = self._followed, self._settled

    # in front of a run

    def furnish(self, order: RunOrder, chain: Chain, tokens: int) -> tuple[RunOrder, Restorable | None]:
        """Return the order with the file to load before it, if that is worth it, and what the file holds.

        Args:
            order: Of a prompt that is wholly ours.
            chain: Of its prompt.
            tokens: Of its prompt.
        """
        found = self._best(chain)
        if found is None or not self._may_load(chain):
            return order, None
        shelf, file, chars = found
        match = self._tracker.expected(chain)
        share = tokens / max(1, chain.chars)
        held = round(chars * share)
        cached = round(match.known * share)
        load_s = file.mb * self._seconds_per_mb(shelf.tier)
        if not restore_gain_s(self._rates, tokens, cached, held, load_s):
            return order, None
        return replace(order, restore=str(file.path)), file.held

    def _followed(self, tracked: Tracked) -> None:
        """Take note of a run that was submitted."""
        run, chain = tracked.run, tracked.chain
        if tracked.owner and chain is not None and not run.order.prime and not run.order.carried_tokens:
            self.comebacks.asked(tracked.owner, chain)
        if run.order.restore is None:
            return
        found = self._at(run.order.restore)
        if found is not None:
            found[0].begin_load(found[1])
            self._loading[run.generation] = found

    def held_by(self, path: str | None) -> Restorable | None:
        """Return what the file at a path holds; None where there is none."""
        found = self._at(path)
        return None if found is None else found[1].held

    # behind a run

    def idle(self) -> RunOrder | None:
        """Return the save that is worth most in an idle slot: of what is in the KV cache now."""
        return self._save(self._tracker.upcoming, in_front=False)

    def in_front(self) -> RunOrder | None:
        """Return a save that pays although foreign work waits, which will replace what is in the KV cache."""
        return self._save(self._tracker.upcoming, in_front=True)

    def piggyback(self, order: RunOrder, chain: Chain, tokens: int, tier: str) -> RunOrder:
        """Return the order of a prime run, which leaves a file of its prompt if nobody has one.

        Args:
            order: Of the prime run.
            chain: Of its prompt.
            tokens: Of its prompt.
            tier: `disk` for what clients have registered, if that may be written; else `memory`.
        """
        if not self._may_save(chain) or any(shelf.find(chain) for shelf in self.tiers.values()):
            return order
        beginning = Beginning(chain, tokens, "", Plan(0.0, 0.0))
        path = self._reserve(beginning, tier) or self._reserve(beginning, "memory")
        return order if path is None else replace(order, save=path)

    def close(self) -> None:
        """Give the memory back; what is on the disk stays."""
        for shelf in self.tiers.values():
            if shelf.tier == "memory":
                shelf.clear()

    # what administrators see

    def told(self) -> list[dict[str, Any]]:
        """Return all files, the last used first."""
        files = sorted(self._files(), key=lambda each: -each[1].used_at)
        return [
            {
                "file": file.path.stem,
                "tier": shelf.tier,
                "bytes": file.size,
                "tokens": file.held.tokens,
                "client": file.owner or None,
                "loads": file.loads,
                "used_at": int(file.used_at),
            }
            for shelf, file in files
        ]

    def remove(self, name: str) -> bool:
        """Remove a file by the name that `told` gave it; False: there is none, or it is being loaded."""
        found = self.find(name)
        if found is None or found[1].in_use:
            return False
        found[0].remove(found[1])
        return True

    def forget(self, chain: Chain) -> None:
        """Remove the files of just this beginning, but one that is being loaded."""
        for shelf in self.tiers.values():
            file = shelf.find(chain)
            if file is not None and not file.in_use:
                shelf.remove(file)

    def find(self, name: str) -> tuple[Shelf, CacheFile] | None:
        """Return a file by the name that `told` gave it."""
        return next((found for found in self._files() if found[1].path.stem == name), None)

    @property
    def mb(self) -> float:
        """Return the size of all files, megabytes."""
        return round(sum(shelf.size for shelf in self.tiers.values()) / MB, 1)

    # inside

    def _files(self) -> Iterator[tuple[Shelf, CacheFile]]:
        return ((shelf, file) for shelf in self.tiers.values() for file in shelf)

    def _at(self, path: str | None) -> tuple[Shelf, CacheFile] | None:
        return next((found for found in self._files() if str(found[1].path) == path), None)

    @property
    def _facts(self) -> CacheFacts:
        return self._knowledge.facts_of(self._slot.wanted)

    @property
    def _rates(self) -> Any:
        return self._paces[self._slot.wanted].rates

    def _may_load(self, chain: Chain) -> bool:
        return self._facts.can_restore and self._crashes.get(chain.fingerprint, 0) < _CRASHES

    @property
    def may_save(self) -> bool:
        """Return whether any file may be written now."""
        facts = self._facts
        able = self._slot.facts.capabilities.get("per_run_max_new_tokens") or facts.aborted_saves is True
        return facts.can_restore and bool(able) and bool(self.tiers) and time.monotonic() >= self._not_before

    def _may_save(self, chain: Chain) -> bool:
        return self._may_load(chain) and self.may_save

    def _seconds_per_mb(self, tier: str) -> float:
        learned = self._rates_of_tier.get(("load_s_per_mb", tier))
        return self._facts.load_s(1) / (self._facts.bytes_per_token or 1) * MB if learned is None else learned

    def _load_s(self, tokens: int) -> float:
        return tokens * (self._facts.bytes_per_token or 0) / MB * self._seconds_per_mb("memory")

    def _best(self, chain: Chain) -> tuple[Shelf, CacheFile, int] | None:
        found = [(shelf, *best) for shelf in self.tiers.values() if (best := shelf.best(chain)) is not None]
        return max(found, key=lambda each: each[2], default=None)

    def _save(self, there: Upcoming | None, *, in_front: bool) -> RunOrder | None:
        """Return the prime run that saves the most useful beginning of what is in the KV cache."""
        if there is None or not self._may_save(there.chain):
            return None
        beginnings = (self._beginning(there, chars, chance) for chars, chance in self._places(there))
        best = max(filter(None, beginnings), key=lambda each: each.plan.gain_s, default=None)
        if best is None or not best.plan.pays(in_front=in_front):
            return None
        path = self._reserve(best, "memory")
        if path is None:
            return None
        return prime_order(there.text[: best.chain.chars], lora=there.lora, save=path)

    def _places(self, there: Upcoming) -> list[tuple[int, float]]:
        """Return where what is in the KV cache could be cut, characters, and how likely that comes again."""
        return [
            (there.chain.chars, self.comebacks.chance(there.owner)),
            *self.comebacks.branches(there.chain),
        ]

    def _beginning(self, there: Upcoming, chars: int, chance: float) -> Beginning | None:
        chain = there.chain.cut(chars)
        tokens = round(there.tokens * chain.chars / max(1, there.chain.chars))
        covered = self._best(chain)
        covered_chars = covered[2] if covered else 0
        if tokens < _LEAST_TOKENS or covered_chars >= chain.chars:
            return None
        held = self._facts.matched(round(tokens * min(1.0, there.chars_held / chain.chars)))
        plan = plan_of(
            self._rates,
            tokens,
            round(tokens * covered_chars / chain.chars),
            chance=chance,
            left=tokens - held,
            load_s=self._load_s,
            save_s=self._facts.save_s,
        )
        return Beginning(chain, tokens, there.owner if chain.chars == there.chain.chars else "", plan)

    def _reserve(self, beginning: Beginning, tier: str) -> str | None:
        """Return the path to write, there being room for it; None when there is none."""
        shelf = self.tiers.get(tier)
        size = beginning.tokens * (self._facts.bytes_per_token or 0)
        if shelf is None or (tier == "disk" and not self.ledger.may_write(size)):
            return None
        path = str(shelf.path_of(beginning.chain))
        self._drop_superseded(shelf, beginning)
        if path in self._saving or not shelf.make_room(size):
            return None
        try:
            shelf.prepare()
            needed, free = size // BINARY_MB, free_mb(shelf.folder)
            if free is not None and free < needed:
                raise OSError(f"{free} MB are free, {needed} are needed")
        except OSError as exc:
            self._fail_write(shelf, str(exc))
            return None
        self._saving[path] = shelf, beginning
        return path

    def _drop_superseded(self, shelf: Shelf, beginning: Beginning) -> None:
        """Remove the earlier states of the same conversation."""
        for file in list(shelf):
            mine = file.owner and file.owner == beginning.owner and not file.in_use
            if mine and file.held.chain.begins(beginning.chain):
                shelf.remove(file)

    def _settled(self, tracked: Tracked, end: RunEnd | None) -> None:
        run = tracked.run
        if run.order.restore is not None and run.generation in self._loading:
            self._take_load(tracked, end, *self._loading.pop(run.generation))
        if run.order.save is not None and run.order.save in self._saving:
            self._take_save(end, *self._saving.pop(run.order.save))
        held = self._tracker.state.held
        if tracked.owner and held is not None and end is not None and end.tokens:
            self.comebacks.left(tracked.owner, held, self._tracker.state.prompt_chars)

    def _take_load(self, tracked: Tracked, end: RunEnd | None, shelf: Shelf, file: CacheFile) -> None:
        """Learn from a load, and remove a file that is of no use."""
        run = tracked.run
        shelf.end_load(file)
        problem = ""
        if end is None and run.killed_by_restore:
            problem = "the worker was lost"
            self._crashes[file.held.chain.fingerprint] = self._crashes.get(file.held.chain.fingerprint, 0) + 1
        elif run.restored is not None and not run.restored.ok:
            problem = run.restored.message
        elif run.restored is not None:
            self.counts.restores += 1
            file.loads += 1
            self._learn("load_s_per_mb", shelf.tier, file.mb, run.restored.ms)
            held = tracked.match.tokens or 0
            if end is not None and (end.computed_tokens or 0) > _USELESS * held > _LEAST_TOKENS:
                likely = round(held * len(run.order.prompt) / max(1, tracked.match.likely)) - held
                problem = (
                    "it was computed again" if (end.computed_tokens or 0) - likely > _USELESS * held else ""
                )
        if problem:
            self.counts.failures += 1
            log.warning("prompt_cache_removed", file=file.path.name, tier=shelf.tier, reason=problem)
            shelf.remove(file)

    def _learn(self, name: str, tier: str, mb: float, ms: float) -> None:
        """Learn a rate of a tier; what files in memory show is kept, with what the probe has found."""
        rate, old = ms / 1000 / max(0.001, mb), self._rates_of_tier.get((name, tier))
        if old is None and tier == "memory":
            old = getattr(self._facts, name)
        learned = rate if old is None else old + _WEIGHT * (rate - old)
        self._rates_of_tier[name, tier] = learned
        if tier == "memory":
            self._knowledge.learn(self._slot.wanted, **{name: learned})

    def _take_save(self, end: RunEnd | None, shelf: Shelf, beginning: Beginning) -> None:
        whole = beginning.tokens * (self._facts.bytes_per_token or 0)
        if end is not None and 0 < (end.saved_bytes or 0) < _SHORT * whole:
            # The library tells nobody that its writes failed, and would load it when it is needed.
            shelf.path_of(beginning.chain).unlink(missing_ok=True)
            self._fail_write(shelf, "the file was cut short: is the disk full?")
        elif end is not None and end.saved_bytes:
            self.counts.saves += 1
            self._learn("save_s_per_mb", shelf.tier, end.saved_bytes / MB, end.save_ms)
            if shelf.tier == "disk":
                self.ledger.write(end.saved_bytes)
            shelf.add(beginning.chain, end.saved_bytes, beginning.tokens, beginning.owner)
        elif end is None:  # what the worker had written of it
            path = shelf.path_of(beginning.chain)
            path.with_name(f"{path.name}.part").unlink(missing_ok=True)
        elif end.reached >= beginning.chain.chars:
            self._fail_write(shelf, "the library has left no file")

    def _fail_write(self, shelf: Shelf, reason: str) -> None:
        self.counts.failures += 1
        self._not_before = time.monotonic() + _PAUSE_S
        log.warning("prompt_cache_not_written", tier=shelf.tier, reason=reason)
