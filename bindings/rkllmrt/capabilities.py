"""What a release can do, read off its ABI table."""

from msgspec import Struct

from rkllmrt.abi import Abi


class Capabilities(Struct, frozen=True):
    """One flag for each thing that some releases lack; all other calls exist since 1.1.0."""

    per_run_sampling: bool
    """`RunParams.sampling` (E+); before, sampling is fixed when the model is loaded."""
    per_run_max_new_tokens: bool
    """`RunParams.max_new_tokens` (E+)."""
    keep_history: bool
    """`RunParams.keep_history` (B+)."""
    n_keep: bool
    """`ModelParams.n_keep` (B+)."""
    cpu_selection: bool
    """`ModelParams.enabled_cpus_num`, `enabled_cpus_mask` and `embed_flash` (B+)."""
    logits: bool
    """`Model.logits` (B+)."""
    clear_kv_cache: bool
    """`Model.clear_kv_cache` (B+)."""
    chat_template: bool
    """`Model.set_chat_template` (B+); before, the template is always part of the prompt."""
    prefix_reuse: bool
    """A run computes only what differs from the tokens already in the KV cache (B+)."""
    many_images: bool
    """Several images of a stated size (C+); before, exactly one."""
    n_batch: bool
    """Several runs at once, and the stride of their arrays is certain (D+)."""
    roles: bool
    """`PromptInput.role` (D+)."""
    thinking_switch: bool
    """`PromptInput.enable_thinking` (D+)."""
    function_tools: bool
    """`Model.set_function_tools` (D+)."""
    cross_attention: bool
    """`Model.set_cross_attention` (D+)."""
    perf: bool
    """`RunOutcome.perf` (D+)."""
    kv_cache_size: bool
    """`Model.kv_cache_size` (D+)."""
    pause: bool
    """A token callback may pause the run (D+)."""
    ranges: bool
    """`Model.clear_kv_cache` takes position ranges (D+)."""
    ignore_eos_token: bool
    """`ModelParams.ignore_eos_token` (E+)."""
    tokenizer_callback: bool
    """A model without a tokenizer may ask ours (E+)."""
    embed_callback: bool
    """A model without an embedding layer may ask ours (E+)."""
    image_tags: bool
    """The image tags travel with the input (E+) instead of with the model's parameters (A–D)."""
    video: bool
    """Video embeddings (E+)."""
    audio: bool
    """Audio embeddings (F)."""
    release_output: bool
    """A callback may have hidden states and logits freed at once (E+)."""


def capabilities_of(abi: Abi, *, stride_known: bool) -> Capabilities:
    """Return what `abi` allows; arrays only when the size of RKLLMInput is certain (`stride_known`)."""
    functions = abi.functions
    return Capabilities(
        per_run_sampling=abi.has("RKLLMInferParam", "sampling_params"),
        per_run_max_new_tokens=abi.has("RKLLMInferParam", "max_new_tokens"),
        keep_history=abi.has("RKLLMInferParam", "keep_history"),
        n_keep=abi.has("RKLLMParam", "n_keep"),
        cpu_selection=abi.has("RKLLMExtendParam", "enabled_cpus_mask"),
        logits=abi.has("RKLLMResult", "logits"),
        clear_kv_cache="rkllm_clear_kv_cache" in functions,
        chat_template="rkllm_set_chat_template" in functions,
        prefix_reuse=abi.group != "A",
        many_images=abi.group != "A" and abi.group != "B",
        n_batch=abi.has("RKLLMExtendParam", "n_batch") and stride_known,
        roles=abi.has("RKLLMInput", "role"),
        thinking_switch=abi.has("RKLLMInput", "enable_thinking"),
        function_tools="rkllm_set_function_tools" in functions,
        cross_attention="rkllm_set_cross_attn_params" in functions,
        perf=abi.has("RKLLMResult", "perf"),
        kv_cache_size="rkllm_get_kv_cache_size" in functions,
        pause=abi.pauses,
        ranges=len(functions.get("rkllm_clear_kv_cache", ("", ()))[1]) == 4,
        ignore_eos_token=abi.has("RKLLMParam", "ignore_eos_token"),
        tokenizer_callback=abi.has("RKLLMCallback", "tokenizer_callback"),
        embed_callback=abi.has("RKLLMCallback", "embed_callback"),
        image_tags=abi.has("RKLLMImageInput", "image_start"),
        video=abi.has("RKLLMMultiModalInput", "video"),
        audio=abi.has("RKLLMMultiModalInput", "audio"),
        release_output=abi.callback_struct,
    )
