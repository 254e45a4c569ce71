"""Turn a request for numbers instead of an answer, `evaluate` or `embed`, into a `ChatRequest`."""

from collections.abc import Mapping
from typing import Any, Literal

from rkllm_mqtt.config import ClientConfig, ModelConfig
from rkllm_mqtt.core.chat import ChatRequest
from rkllm_mqtt.core.errors import Code, RequestError
from rkllm_mqtt.intake.wire import WireRequest, clean, conversation, user_message
from rkllm_mqtt.render.markers import Neutraliser

_NEEDS: Mapping[str, tuple[str, ...]] = {"evaluate": ("arrays", "logits"), "embed": ("arrays",)}
"""Capabilities of the loaded runtime, by task."""


def readout_request(
    wire: WireRequest,
    settings: ClientConfig,
    wanted: tuple[str, ModelConfig | None, str | None],
    capabilities: Mapping[str, bool] | None,
) -> ChatRequest:
    """Return the request of a task that is no chat.

    Args:
        wire: With a `task`.
        settings: Of its sender.
        wanted: The model's id, its settings, and the adapter.
        capabilities: Of the loaded runtime; None when it is not known yet.

    Raises:
        RequestError: With a code and a hint for the sender.
    """
    model_id, model, lora = wanted
    task: Literal["evaluate", "embed"] = "evaluate" if wire.task == "evaluate" else "embed"
    _check(task, model_id, model, capabilities)
    if task == "evaluate":
        messages = conversation(wire)
        if settings.system is not None and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": settings.system}, *messages)
    else:
        messages = _texts(wire, raw=model is not None and model.template == "raw")
    reply_bytes = [size for size in (wire.reply_bytes, settings.reply_bytes) if size is not None]
    return ChatRequest(
        messages=messages,
        model=model_id,
        lora=lora,
        max_tokens=1,
        task=task,
        options=_options(wire) if task == "evaluate" else (),
        pooling=wire.pooling or "mean",
        retain=settings.last if wire.retain is None else wire.retain,
        reply_qos=1 if wire.reply_qos is None else wire.reply_qos,
        reply_bytes=min(reply_bytes) if reply_bytes else None,
    )


def _check(
    task: str, model_id: str, model: ModelConfig | None, capabilities: Mapping[str, bool] | None
) -> None:
    """Refuse what this model or this runtime cannot do."""
    if model is not None and model.template == "runtime":
        raise RequestError(
            Code.UNSUPPORTED,
            f"{task}: what the template 'runtime' of model {model_id!r} makes of a prompt is not known",
            "Configure another template for the model.",
        )
    if model is not None and model.n_batch > 1:
        raise RequestError(
            Code.UNSUPPORTED,
            f"{task}: model {model_id!r} runs {model.n_batch} prompts at once, and this mode takes one",
            "Ask another model, or configure an entry of this one without `n_batch`.",
        )
    missing = [name for name in _NEEDS[task] if capabilities and not capabilities.get(name, True)]
    if missing:
        hint = "Install runtime 1.2.0 or newer."
        if missing[0] == "arrays":
            hint = "On the board: pip install 'rkllm-mqtt[arrays]'."
        what = {"arrays": "numpy is not installed", "logits": "the runtime gives no logits"}[missing[0]]
        raise RequestError(Code.UNSUPPORTED, f"{task}: {what}", hint)


def _options(wire: WireRequest) -> tuple[str, ...]:
    options = tuple(clean(option) for option in wire.options or ())
    if not options:
        message = "options: there is nothing to choose from"
        raise RequestError(Code.INVALID_REQUEST, message, 'Give them, such as ["Yes", "No"].')
    if any(option != option.strip() for option in options):
        message = "options: one begins or ends with a blank"
        raise RequestError(Code.INVALID_REQUEST, message, "Send options without blanks around them.")
    if len(set(options)) < len(options):
        raise RequestError(Code.INVALID_REQUEST, "options: two are equal", "Send each one once.")
    return options


def _texts(wire: WireRequest, *, raw: bool) -> tuple[dict[str, Any], ...]:
    """Return the texts, each as a message; special tokens stay in those for a model without a template."""
    if wire.input is None:
        message = "input: there is no text"
        raise RequestError(Code.INVALID_REQUEST, message, "Give `input`, a text or a list of texts.")
    texts = [wire.input] if isinstance(wire.input, str) else wire.input
    messages = tuple(map(user_message, texts))
    if not raw:
        harmless = Neutraliser()
        messages = tuple({**message, "content": harmless.text(message["content"])} for message in messages)
    return messages
