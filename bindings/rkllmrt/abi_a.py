"""ABI group A: rkllm.h of 1.1.0, 1.1.1, 1.1.2, 1.1.3 and 1.1.4, which are the same byte for byte."""

from rkllmrt.abi import Abi, Functions, Structs

_UNIONS: Structs = {
    "RKLLMInputValue": (
        ("prompt_input", "string"),
        ("embed_input", "RKLLMEmbedInput"),
        ("token_input", "RKLLMTokenInput"),
        ("multimodal_input", "RKLLMMultiModalInput"),
    ),
}

_STRUCTS: Structs = {
    "RKLLMExtendParam": (
        ("base_domain_id", "int32"),
        ("reserved", "uint8[112]"),
    ),
    "RKLLMParam": (
        ("model_path", "string"),
        ("max_context_len", "int32"),
        ("max_new_tokens", "int32"),
        ("top_k", "int32"),
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
    "RKLLMLoraAdapter": (
        ("lora_adapter_path", "string"),
        ("lora_adapter_name", "string"),
        ("scale", "float"),
    ),
    "RKLLMEmbedInput": (
        ("embed", "pointer"),
        ("n_tokens", "size_t"),
    ),
    "RKLLMTokenInput": (
        ("input_ids", "pointer"),
        ("n_tokens", "size_t"),
    ),
    "RKLLMMultiModalInput": (
        ("prompt", "string"),
        ("image_embed", "pointer"),
        ("n_image_tokens", "size_t"),
    ),
    "RKLLMInputValue": _UNIONS["RKLLMInputValue"],
    "RKLLMInput": (
        ("input_type", "enum"),
        ("", "RKLLMInputValue"),
    ),
    "RKLLMLoraParam": (("lora_adapter_name", "string"),),
    "RKLLMPromptCacheParam": (
        ("save_prompt_cache", "int32"),
        ("prompt_cache_path", "string"),
    ),
    "RKLLMInferParam": (
        ("mode", "enum"),
        ("lora_params", "pointer"),
        ("prompt_cache_params", "pointer"),
    ),
    "RKLLMResultLastHiddenLayer": (
        ("hidden_states", "pointer"),
        ("embd_size", "int32"),
        ("num_tokens", "int32"),
    ),
    "RKLLMResult": (
        ("text", "string"),
        ("token_id", "int32"),
        ("last_hidden_layer", "RKLLMResultLastHiddenLayer"),
    ),
}

_FUNCTIONS: Functions = {
    "rkllm_createDefaultParam": ("RKLLMParam", ()),
    "rkllm_init": ("int", ("handle*", "pointer", "callback")),
    "rkllm_load_lora": ("int", ("handle", "pointer")),
    "rkllm_load_prompt_cache": ("int", ("handle", "string")),
    "rkllm_release_prompt_cache": ("int", ("handle",)),
    "rkllm_destroy": ("int", ("handle",)),
    "rkllm_run": ("int", ("handle", "pointer", "pointer", "pointer")),
    "rkllm_run_async": ("int", ("handle", "pointer", "pointer", "pointer")),
    "rkllm_abort": ("int", ("handle",)),
    "rkllm_is_running": ("int", ("handle",)),
}

ABI = Abi("A", _STRUCTS, _UNIONS, _FUNCTIONS, pauses=False, callback_struct=False)
