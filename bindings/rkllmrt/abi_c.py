"""ABI group C: rkllm.h of 1.2.1b1, told as the change from group B: several images of a stated size."""

from rkllmrt.abi import Abi, Structs
from rkllmrt.abi_b import ABI as B

_CHANGED: Structs = {
    "RKLLMMultiModalInput": (
        ("prompt", "string"),
        ("image_embed", "pointer"),
        ("n_image_tokens", "size_t"),
        ("n_image", "size_t"),
        ("image_width", "size_t"),
        ("image_height", "size_t"),
    ),
}

ABI = Abi(
    "C",
    {**B.structs, **_CHANGED},
    B.unions,
    B.functions,
    pauses=False,
    callback_struct=False,
)
