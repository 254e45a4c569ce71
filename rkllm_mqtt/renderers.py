"""What makes the prompts of each model, from its settings."""

from collections.abc import Mapping

from rkllm_mqtt.config import ConfigError
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.orders import Orders
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.fence import FencedRenderer, open_renderer
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.render.tokenizer import ExactTokenizer
from rkllm_mqtt.runtime.order import DEMO_CONTEXT_TOKENS, LoraOrder
from rkllm_mqtt.runtime.slot import Slot
from rkllm_mqtt.windows import Windows


def build_orders(slot: Slot, paces: Mapping[str, Pace], limit_s: float) -> Orders:
    """Return what makes the orders of runs; a template file may take `limit_s` for a prompt, seconds.

    Raises:
        ConfigError: A template or a tokenizer cannot be used.
    """
    return Orders(
        build_renderers(slot, limit_s), build_windows(slot, paces), thinking_budgets(slot), adapters(slot)
    )


def build_windows(slot: Slot, paces: Mapping[str, Pace]) -> Windows:
    """Return the windows of all models.

    Raises:
        ConfigError: A tokenizer cannot be used.
    """
    tokenizers = {}
    for model_id in slot.model_ids:
        model = slot.model(model_id)
        if model is not None and model.tokenizer is not None:
            try:
                tokenizers[model_id] = ExactTokenizer(model.tokenizer)
            except RenderError as exc:
                raise ConfigError(f"models: {model_id}: tokenizer: {exc}", exc.hint) from exc

    def limit_of(model_id: str) -> int:
        model = slot.model(model_id)
        return DEMO_CONTEXT_TOKENS if model is None else model.context_tokens

    return Windows(limit_of, {model_id: pace.tokenizer for model_id, pace in paces.items()}, tokenizers)


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


def adapters(slot: Slot) -> Mapping[tuple[str, str], LoraOrder]:
    """Return the LoRA adapters of all models, by the model's id and their own."""
    models = filter(None, map(slot.model, slot.model_ids))
    return {
        (model.id, lora.id): LoraOrder(lora.id, str(lora.file), lora.scale)
        for model in models
        for lora in model.loras
    }
