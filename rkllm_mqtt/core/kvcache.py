"""What the slot's KV cache holds between two runs, as far as the known facts allow to say.

Pure. Every run replaces what was there; after anything that makes it unknown the state is `UNKNOWN`.

Rule 1: `known` is what can be built on: what is unprobed does not count.
Rule 2: `likely` is what explains a figure of the runtime: only what is known to be wrong does not count.
"""

from msgspec import Struct
from msgspec.structs import replace

from rkllm_mqtt.core.cachefacts import CacheFacts
from rkllm_mqtt.core.prefix import Chain


class Match(Struct, frozen=True):
    """How much of a prompt is not computed again, characters of its beginning."""

    known: int = 0
    likely: int = 0
    tokens: int | None = None
    """What is likely, in tokens; None where nobody has counted."""


NOTHING = Match()


class Passed(Struct, frozen=True):
    """A run that has left the library, without an error."""

    chain: Chain
    """All that it computed: prompt and answer."""
    prompt_chars: int
    """Of it, the prompt's; what comes behind was generated."""
    aborted: bool
    """It did not end by itself: a stop string, a limit of ours, a job that gave way."""
    restored: Chain | None = None
    """The prompt-cache file that was loaded before it."""
    restored_tokens: int | None = None
    tokens: tuple[int, int] | None = None
    """Of the prompt, and of the answer; None where the runtime does not say."""
    refused: bool = False
    """A prompt-cache file was not loaded: nobody knows what the attempt has left."""


class KvState(Struct, frozen=True):
    """The KV cache, and the prompt-cache file that is loaded beside it."""

    held: Chain | None = None
    prompt_chars: int = 0
    tokens: tuple[int, int] | None = None
    """Of the prompt, and of what was generated."""
    aborted: bool = False
    loaded: Chain | None = None
    loaded_tokens: int | None = None
    is_fresh: bool = False
    """No run has come behind the load."""

    def match(self, prompt: Chain, facts: CacheFacts) -> Match:
        """Return how much of a prompt is there."""
        if facts.reuses_finished is False:
            return NOTHING
        held, loaded = self._held(prompt, facts), self._loaded(prompt, facts)
        likely = held if held.likely >= loaded.likely else loaded
        return Match(max(held.known, loaded.known), likely.likely, likely.tokens)

    def after(self, run: Passed, facts: CacheFacts) -> "KvState":
        """Return the state that a run has left."""
        loaded = None
        if run.restored is not None:
            loaded = run.restored
        elif not run.refused:
            loaded = self.loaded
        if facts.loaded_stays is False:
            loaded = None
        loaded_tokens = run.restored_tokens if run.restored is not None else self.loaded_tokens
        return KvState(run.chain, run.prompt_chars, run.tokens, run.aborted, loaded, loaded_tokens)

    def restored(self, file: Chain, tokens: int | None, facts: CacheFacts) -> "KvState":
        """Return the state behind the load of a prompt-cache file of so many tokens, in front of the run."""
        before = self if facts.load_replaces is False else KvState()
        return replace(before, loaded=file, loaded_tokens=tokens, is_fresh=True)

    def _held(self, prompt: Chain, facts: CacheFacts) -> Match:
        shared = prompt.shared(self.held)
        likely = known = shared
        if facts.holds_generated is not True:
            known = min(known, self.prompt_chars)
        if facts.holds_generated is False:
            likely = known
        if facts.reuses_finished is not True or (self.aborted and facts.reuses_aborted is not True):
            known = 0
        if self.aborted and facts.reuses_aborted is False:
            likely = 0
        return Match(known, likely, self._tokens(likely))

    def _loaded(self, prompt: Chain, facts: CacheFacts) -> Match:
        shared = prompt.shared(self.loaded)
        is_known = facts.can_restore and (self.is_fresh or facts.loaded_stays is True)
        tokens = self.loaded_tokens
        if tokens is not None and self.loaded is not None:
            tokens = round(tokens * shared / self.loaded.chars)
        return Match(shared if is_known else 0, shared, tokens)

    def _tokens(self, chars: int) -> int | None:
        """Return the tokens of a beginning of what is held, each text's in proportion."""
        if self.tokens is None or self.held is None or not self.prompt_chars:
            return None
        prompt, generated = self.tokens
        behind = max(0, chars - self.prompt_chars) / max(1, self.held.chars - self.prompt_chars)
        return round(prompt * min(1.0, chars / self.prompt_chars) + generated * behind)


UNKNOWN = KvState()
"""Behind a lost worker, an error, a batch, another model."""
