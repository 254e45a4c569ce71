"""The renderers of the configured models."""

from collections.abc import Mapping

from rkllm_mqtt.config import ConfigError
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.fence import FencedRenderer, open_renderer
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.runtime.slot import Slot


def build_renderers(slot: Slot, limit_s: float) -> Mapping[str, Renderer | FencedRenderer]:
    """Return the renderer of each model; a template file may take `limit_s` for a prompt, seconds.

    Raises:
        ConfigError: A template cannot be used.
    """
    renderers: dict[str, Renderer | FencedRenderer] = {}
    for model_id in slot.model_ids:
        model = slot.model(model_id)
        try:
            if model is None:
                renderers[model_id] = Renderer("chatml", thinking="switch")
            else:
                renderers[model_id] = open_renderer(
                    model.template, thinking=model.thinking, system=model.system, limit_s=limit_s
                )
        except RenderError as exc:
            raise ConfigError(f"models: {model_id}: template: {exc}", exc.hint) from exc
    return renderers


def thinking_budgets(slot: Slot) -> Mapping[str, int]:
    """Return the most tokens of thoughts of each model that has a limit."""
    models = {model_id: slot.model(model_id) for model_id in slot.model_ids}
    return {name: model.thinking_tokens for name, model in models.items() if model and model.thinking_tokens}
