"""ABI group E: rkllm.h of 1.3.0, told as the changes from group D."""

from rkllmrt.abi import Abi, Structs
from rkllmrt.abi_d import ABI as D

_NEW: Structs = {
    "RKLLMImageInput": (
        ("image_embed", "pointer"),
        ("n_image_tokens", "size_t"),
        ("n_image", "size_t"),
        ("image_start", "string"),
        ("image_end", "string"),
        ("image_content", "string"),
        ("image_width", "size_t"),
        ("image_height", "size_t"),
    ),
    "RKLLMVideoInput": (
        ("video_embed", "pointer"),
        ("n_frame_tokens", "size_t"),
        ("n_frame_per_video", "size_t"),
        ("n_video", "size_t"),
        ("video_start", "string"),
        ("video_end", "string"),
        ("video_content", "string"),
        ("frame_width", "size_t"),
        ("frame_height", "size_t"),
    ),
    "RKLLMSamplingParam": (
        ("top_k", "int32"),
        ("top_p", "float"),
        ("temperature", "float"),
        ("repeat_penalty", "float"),
        ("frequency_penalty", "float"),
        ("presence_penalty", "float"),
        ("mirostat", "int32"),
        ("mirostat_tau", "float"),
        ("mirostat_eta", "float"),
    ),
    "RKLLMCallback": (
        ("result_callback", "pointer"),
        ("result_userdata", "pointer"),
        ("tokenizer_callback", "pointer"),
        ("tokenizer_userdata", "pointer"),
        ("embed_callback", "pointer"),
        ("embed_userdata", "pointer"),
    ),
}

# The header declares image and video as unnamed structs inside RKLLMMultiModalInput; the names are ours.
_CHANGED: Structs = {
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
        ("ignore_eos_token", "bool"),
        ("is_async", "bool"),
        ("extend_param", "RKLLMExtendParam"),
    ),
    "RKLLMMultiModalInput": (
        ("prompt", "string"),
        ("image", "RKLLMImageInput"),
        ("video", "RKLLMVideoInput"),
    ),
    "RKLLMInferParam": (
        ("mode", "enum"),
        ("lora_params", "pointer"),
        ("prompt_cache_params", "pointer"),
        ("sampling_params", "pointer"),
        ("keep_history", "int32"),
        ("max_new_tokens", "int32"),
    ),
}

ABI = Abi(
    "E",
    {**_NEW, **D.structs, **_CHANGED},
    D.unions,
    D.functions,
    pauses=True,
    callback_struct=True,
)
