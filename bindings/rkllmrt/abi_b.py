"""ABI group B: rkllm.h of 1.2.0, told as the changes from group A."""

from rkllmrt.abi import Abi, Functions, Structs
from rkllmrt.abi_a import ABI as A

_NEW: Structs = {
    "RKLLMResultLogits": (
        ("logits", "pointer"),
        ("vocab_size", "int32"),
        ("num_tokens", "int32"),
    ),
}

_CHANGED: Structs = {
    "RKLLMExtendParam": (
        ("base_domain_id", "int32"),
        ("embed_flash", "int8"),
        ("enabled_cpus_num", "int8"),
        ("enabled_cpus_mask", "uint32"),
        ("reserved", "uint8[106]"),
    ),
    "RKLLMParam": (
        ("model_path", "string"),
        ("max_context_len", "int32"),
        ("max_new_tokens", "int32"),
        ("top_k", "int32"),
        ("n_keep", "int32"),
        ("top_p", "float"),
        ("temperature", "float"),
        ("repeat_penalty", "float"),
        ("frequency_penalty", "float"),
        ("presence_penalty", "float"),
        ("mirostat", "int32"),
        ("mirostat_tau", "float"),
        ("mirostat_eta", "float"),
        ("skip_special_token", "bool"),
        ("is_async", "bool"),
        ("img_start", "string"),
        ("img_end", "string"),
        ("img_content", "string"),
        ("extend_param", "RKLLMExtendParam"),
    ),
    "RKLLMInferParam": (
        ("mode", "enum"),
        ("lora_params", "pointer"),
        ("prompt_cache_params", "pointer"),
        ("keep_history", "int32"),
    ),
    "RKLLMResult": (
        ("text", "string"),
        ("token_id", "int32"),
        ("last_hidden_layer", "RKLLMResultLastHiddenLayer"),
        ("logits", "RKLLMResultLogits"),
    ),
}

_FUNCTIONS: Functions = {
    "rkllm_clear_kv_cache": ("int", ("handle", "int")),
    "rkllm_set_chat_template": ("int", ("handle", "string", "string", "string")),
}

ABI = Abi(
    "B",
    {**_NEW, **A.structs, **_CHANGED},
    A.unions,
    {**A.functions, **_FUNCTIONS},
    pauses=False,
    callback_struct=False,
)
