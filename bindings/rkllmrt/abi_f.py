"""ABI group F: 1.3.1, told as the change from group E: audio in the multimodal input.

Its header was not at hand. The layout is 1.3.0 plus the member that third-party bindings with a layout
self-check declare; later releases are read with this table, with a warning.
"""

from rkllmrt.abi import Abi, Structs
from rkllmrt.abi_e import ABI as E

_NEW: Structs = {
    "RKLLMAudioInput": (
        ("audio_embed", "pointer"),
        ("n_audio_tokens", "size_t"),
        ("n_audio", "size_t"),
        ("audio_start", "string"),
        ("audio_end", "string"),
        ("audio_content", "string"),
    ),
}

_CHANGED: Structs = {
    "RKLLMMultiModalInput": (
        ("prompt", "string"),
        ("image", "RKLLMImageInput"),
        ("video", "RKLLMVideoInput"),
        ("audio", "RKLLMAudioInput"),
    ),
}

ABI = Abi(
    "F",
    {**_NEW, **E.structs, **_CHANGED},
    E.unions,
    E.functions,
    pauses=True,
    callback_struct=True,
)
