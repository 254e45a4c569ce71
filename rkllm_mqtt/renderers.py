"""What makes the prompts of each model, from its settings; it comes and goes with its model."""

from collections.abc import Mapping

from msgspec import Struct

from rkllm_mqtt.config import ConfigError, ModelConfig
from rkllm_mqtt.config.catalogue import Catalogue, Change
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.orders import Orders
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.fence import FencedRenderer, open_renderer
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.render.tokenizer import ExactTokenizer
from rkllm_mqtt.runtime.order import DEMO_CONTEXT_TOKENS
from rkllm_mqtt.windows import Windows


class Kit(Struct, frozen=True):
    """What one model's prompts are made with, and counted."""

    renderer: Renderer | FencedRenderer
    tokenizer: ExactTokenizer | None

    def close(self) -> None:
        """End the process that renders, if there is one."""
        if isinstance(self.renderer, FencedRenderer):
            self.renderer.close()


def open_kit(model: ModelConfig | None, limit_s: float) -> Kit:
    """Return what a model's prompts are made with; a template file may take `limit_s` for one, seconds.

    Raises:
        ConfigError: A template or a tokenizer cannot be used.
    """
    if model is None:
        return Kit(Renderer("chatml", thinking="switch"), None)
    try:
        renderer = open_renderer(
            model.template, thinking=model.thinking, system=model.system, limit_s=limit_s
        )
    except RenderError as exc:
        raise ConfigError(f"models: {model.id}: template: {exc}", exc.hint) from exc
    kit = Kit(renderer, None)
    if model.tokenizer is None:
        return kit
    try:
        return Kit(renderer, ExactTokenizer(model.tokenizer))
    except RenderError as exc:
        kit.close()
        raise ConfigError(f"models: {model.id}: tokenizer: {exc}", exc.hint) from exc


class Kits:
    """What the prompts of all models are made with.

    Args:
        catalogue: The models.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.renderers: dict[str, Renderer | FencedRenderer] = {}
        """By model."""
        self.tokenizers: dict[str, ExactTokenizer] = {}
        """By model, where it has one."""

    def put(self, model_id: str, kit: Kit) -> None:
        """Use a kit for a model from now on."""
        self._take_away(model_id)
        self.renderers[model_id] = kit.renderer
        if kit.tokenizer is not None:
            self.tokenizers[model_id] = kit.tokenizer

    def models_changed(self, change: Change) -> None:
        """Hear which models there are now."""
        for model_id in change.removed:
            self._take_away(model_id)

    def build_orders(self, paces: Mapping[str, Pace]) -> Orders:
        """Return what makes the orders of runs; `paces` knows the tokens of each model."""
        windows = Windows(self._limit_of, lambda model_id: paces[model_id].tokenizer, self.tokenizers)
        return Orders(self.renderers, windows, self._catalogue.settings)

    def _limit_of(self, model_id: str) -> int:
        model = self._catalogue.settings(model_id)
        return DEMO_CONTEXT_TOKENS if model is None else model.context_tokens

    def _take_away(self, model_id: str) -> None:
        tokenizer = self.tokenizers.pop(model_id, None)
        if (renderer := self.renderers.pop(model_id, None)) is not None:
            Kit(renderer, tokenizer).close()


def open_kits(catalogue: Catalogue, limit_s: float) -> Kits:
    """Return the kits of all models of a catalogue.

    Raises:
        ConfigError: A template or a tokenizer cannot be used.
    """
    kits = Kits(catalogue)
    for entry in catalogue.entries:
        kits.put(entry.id, open_kit(entry.settings, limit_s))
    return kits
