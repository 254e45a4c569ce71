"""Make prompts fit the windows of their models: count, leave out old turns, cap the answer.

Rule 1: what surely does not fit is refused with numbers, before the slot sees it; what may fit is tried.
Rule 2: an answer never runs into the end of the window, where the runtime would silently shift it.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from rkllm_mqtt.core.tokens import Estimate, TokenEstimator, exactly
from rkllm_mqtt.core.turns import Message, fit, split_turns
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Rendered
from rkllm_mqtt.render.tokenizer import ExactTokenizer
from rkllm_mqtt.runtime.order import ReadoutOrder

_ANSWER_SHARE = 16
"""An answer needs a sixteenth of the window, or what the request allows if that is less."""

Render = Callable[[Sequence[Message]], Rendered]


class Prompt(Struct, frozen=True):
    """A prompt that fits, as far as anybody can tell before the run."""

    rendered: Rendered
    tokens: Estimate
    max_tokens: int
    """Of the answer; what the window leaves, if that is less than what was asked."""
    left_out: int = 0
    """Messages of the conversation that were left out, the oldest."""
    readout: ReadoutOrder | None = None
    """What is to be read behind it instead of an answer."""


class Windows:
    """The windows of all models, and what is known of their tokenizers.

    Args:
        limit_of: Tokens in a model's window, by model id.
        estimator_of: What is known of a model's tokenizer, by model id.
        tokenizers: Of the models that came with theirs; the others are estimated.
    """

    def __init__(
        self,
        limit_of: Callable[[str], int],
        estimator_of: Callable[[str], TokenEstimator],
        tokenizers: Mapping[str, ExactTokenizer],
    ) -> None:
        self._limit_of = limit_of
        self._estimator_of = estimator_of
        self._tokenizers = tokenizers

    def count(self, model_id: str, text: str) -> Estimate:
        """Return the tokens of a text."""
        tokenizer = self._tokenizers.get(model_id)
        if tokenizer is not None:
            return exactly(tokenizer.count(text))
        return self._estimator_of(model_id).estimate(text)

    def tokens_behind(self, model_id: str, prompt: str, text: str) -> tuple[int, ...] | None:
        """Return the tokens of a text behind a prompt; None where they are not certain."""
        tokenizer = self._tokenizers.get(model_id)
        return None if tokenizer is None else tokenizer.behind(prompt, text) or None

    def checked(self, model_id: str, texts: Sequence[str]) -> Estimate:
        """Return the tokens of the longest of some texts, which are not to be cut.

        Raises:
            RenderError: `context_overflow`: it surely does not fit.
        """
        limit = self._limit_of(model_id)
        longest = max((self.count(model_id, text) for text in texts), key=lambda found: found.tokens)
        if longest.low >= limit:
            raise _overflow(longest, limit, is_long=False)
        return longest

    def fitted(self, model_id: str, messages: Sequence[Message], max_tokens: int, render: Render) -> Prompt:
        """Return the prompt of a conversation, its oldest turns left out where it is too long.

        Args:
            model_id: Whose window.
            messages: The whole conversation.
            max_tokens: Asked for.
            render: Makes the prompt of a part of it.

        Raises:
            RenderError: `context_overflow`, with the numbers: not even the last question fits.
        """
        limit = self._limit_of(model_id)
        room = limit - min(max_tokens, max(1, limit // _ANSWER_SHARE))
        prompts: dict[int, tuple[Rendered, Estimate]] = {}

        def fits(part: Sequence[Message]) -> bool:
            rendered = render(part)
            prompts[len(part)] = rendered, self.count(model_id, rendered.text)
            return prompts[len(part)][1].tokens <= room

        found = fit(messages, fits)
        if found is None:
            head, turns = split_turns(messages)
            kept = len(head) + len(turns[-1] if turns else ())
        else:
            kept = len(found.messages)
        rendered, tokens = prompts[kept]
        if found is None and tokens.low >= limit:
            raise _overflow(tokens, limit, is_long=kept > 1)
        left = max(1, limit - tokens.tokens)
        return Prompt(rendered, tokens, min(max_tokens, left), len(messages) - kept)


def _overflow(tokens: Estimate, limit: int, *, is_long: bool) -> RenderError:
    about = "" if tokens.low == tokens.high else "about "
    what = "last question with its system prompt" if is_long else "prompt"
    return RenderError(
        f"the {what} has {about}{tokens.tokens} tokens, the window of the model {limit}",
        "Shorten it, or raise `context_tokens` of the model up to what it was converted for.",
        "context_overflow",
    )
