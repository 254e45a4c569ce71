"""The renderer of each model, from its settings."""

from collections.abc import Mapping

from rkllm_mqtt.config import ConfigError
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.runtime.slot import Slot


def build_renderers(slot: Slot) -> Mapping[str, Renderer]:
    """Return the renderer of each model.

    Raises:
        ConfigError: A template cannot be used.
    """
    renderers = {}
    for model_id in slot.model_ids:
        model = slot.model(model_id)
        try:
            if model is None:
                renderers[model_id] = Renderer("chatml", thinking="switch")
            else:
                renderers[model_id] = Renderer(model.template, thinking=model.thinking, system=model.system)
        except RenderError as exc:
            raise ConfigError(f"models: {model_id}: template: {exc}", exc.hint) from exc
    return renderers
