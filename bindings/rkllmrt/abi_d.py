"""ABI group D: rkllm.h of 1.2.1, 1.2.2 and 1.2.3, told as the changes from group C.

The three differ by a rename only: RKLLMMultiModelInput became RKLLMMultiModalInput in 1.2.3.
"""

from rkllmrt.abi import Abi, Functions, Structs
from rkllmrt.abi_c import ABI as C

_NEW: Structs = {
    "RKLLMPerfStat": (
        ("prefill_time_ms", "float"),
        ("prefill_tokens", "int32"),
        ("generate_time_ms", "float"),
        ("generate_tokens", "int32"),
        ("memory_usage_mb", "float"),
    ),
    "RKLLMCrossAttnParam": (
        ("encoder_k_cache", "pointer"),
        ("encoder_v_cache", "pointer"),
        ("encoder_mask", "pointer"),
        ("encoder_pos", "pointer"),
        ("num_tokens", "int32"),
    ),
}

_CHANGED: Structs = {
    "RKLLMExtendParam": (
        ("base_domain_id", "int32"),
        ("embed_flash", "int8"),
        ("enabled_cpus_num", "int8"),
        ("enabled_cpus_mask", "uint32"),
        ("n_batch", "uint8"),
        ("use_cross_attn", "int8"),
        ("reserved", "uint8[104]"),
    ),
    "RKLLMInput": (
        ("role", "string"),
        ("enable_thinking", "bool"),
        ("input_type", "enum"),
        ("", "RKLLMInputValue"),
    ),
    "RKLLMResult": (
        ("text", "string"),
        ("token_id", "int32"),
        ("last_hidden_layer", "RKLLMResultLastHiddenLayer"),
        ("logits", "RKLLMResultLogits"),
        ("perf", "RKLLMPerfStat"),
    ),
}

_FUNCTIONS: Functions = {
    "rkllm_clear_kv_cache": ("int", ("handle", "int", "pointer", "pointer")),
    "rkllm_get_kv_cache_size": ("int", ("handle", "pointer")),
    "rkllm_set_function_tools": ("int", ("handle", "string", "string", "string")),
    "rkllm_set_cross_attn_params": ("int", ("handle", "pointer")),
}

ABI = Abi(
    "D",
    {**_NEW, **C.structs, **_CHANGED},
    C.unions,
    {**C.functions, **_FUNCTIONS},
    pauses=True,
    callback_struct=False,
)
