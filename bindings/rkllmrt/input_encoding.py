"""Write the inputs of a run into one contiguous array of RKLLMInput, or refuse them."""

import json
from collections.abc import Sequence
from typing import Any

from rkllmrt.abi import EMBED, MULTIMODAL, PROMPT, TOKEN
from rkllmrt.block import Block
from rkllmrt.cstring import c_text
from rkllmrt.errors import InvalidInput
from rkllmrt.inputs import (
    AudioEmbeds,
    EmbedInput,
    ImageEmbeds,
    Input,
    MultimodalInput,
    PromptInput,
    TokenInput,
    VideoEmbeds,
)
from rkllmrt.library import Library

_ROLES = ("user", "tool")


def encode_inputs(library: Library, inputs: Sequence[Input], *, own_template: bool) -> Block:
    """Return an array of exactly `inputs`, with the stride of the loaded release.

    The library takes no count: it reads n_batch structs, whatever was passed.

    With `own_template` the runtime's chat template was replaced, and its thinking switch with it.

    Raises:
        Unsupported: an input that this release cannot take.
        InvalidInput: one that it would misread.
    """
    block = Block(library.structs["RKLLMInput"], len(inputs))
    for item, target in zip(inputs, block.items, strict=True):
        match item:
            case PromptInput():
                _write_role(library, target, item, item.text, own_template=own_template)
                target.input_type = PROMPT
                target.prompt_input = c_text(item.text, "the prompt")
            case TokenInput():
                _write_tokens(library, block, target, item)
            case EmbedInput():
                _write_embeddings(library, block, target, item)
            case MultimodalInput():
                _write_role(library, target, item, item.prompt, own_template=own_template)
                _write_multimodal(library, block, target, item)
    return block


def _write_role(
    library: Library,
    target: Any,
    item: PromptInput | MultimodalInput,
    text: str | bytes,
    *,
    own_template: bool,
) -> None:
    if item.role not in _ROLES:
        hint = "system text and history belong into the prompt, rendered by the caller"
        raise InvalidInput(f"role {item.role!r} does not exist, only user and tool", hint)
    if item.role == "tool":
        library.require("roles", "the role tool")
        _require_json(text, "the prompt of the role tool", "pass a JSON array of results, one for each call")
    if item.enable_thinking:
        library.require("thinking_switch", "enable_thinking")
        if own_template:
            hint = "write the thinking switch of the model into the prompt"
            raise InvalidInput("enable_thinking has no effect once the chat template was replaced", hint)
    if library.capabilities.roles:
        target.role = item.role.encode()
        target.enable_thinking = item.enable_thinking


def _require_json(text: str | bytes, what: str, hint: str) -> object:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"{what} is not JSON", hint) from exc


def require_json_array(text: str | bytes, what: str) -> None:
    """Raise `InvalidInput` unless `text` is a JSON array."""
    hint = "pass a JSON array of tools in the OpenAI shape"
    if not isinstance(_require_json(text, what, hint), list):
        raise InvalidInput(f"{what} is no JSON array", hint)


def _write_tokens(library: Library, block: Block, target: Any, item: TokenInput) -> None:
    if not item.ids:
        raise InvalidInput("no token ids")
    if min(item.ids) < 0:
        raise InvalidInput("a token id is negative")
    _write_user_role(library, target)
    target.input_type = TOKEN
    target.token_input.input_ids = block.keep_int32(item.ids)
    target.token_input.n_tokens = len(item.ids)


def _write_embeddings(library: Library, block: Block, target: Any, item: EmbedInput) -> None:
    if item.n_tokens < 1:
        raise InvalidInput("no embeddings")
    _write_user_role(library, target)
    target.input_type = EMBED
    target.embed_input.embed = block.copy_floats(item.embed, "embed", at_least=item.n_tokens)
    target.embed_input.n_tokens = item.n_tokens


def _write_user_role(library: Library, target: Any) -> None:
    # Every published example sets a role, also where no template is applied; NULL is nowhere allowed.
    if library.capabilities.roles:
        target.role = b"user"


def _write_multimodal(library: Library, block: Block, target: Any, item: MultimodalInput) -> None:
    prompt = c_text(item.prompt, "the prompt")
    _require_places(prompt, b"<image>", item.images.n_images if item.images else 0)
    target.input_type = MULTIMODAL
    native = target.multimodal_input
    native.prompt = prompt
    if library.capabilities.image_tags:
        _write_tags(native.image, "image", b"", b"", b"")
    if item.images is not None:
        _write_images(library, block, native, item.images)
    if library.capabilities.video:
        _require_places(prompt, b"<video>", item.video.n_videos if item.video else 0)
        _write_video(block, native.video, item.video)
    elif item.video is not None:
        library.require("video", "video")
    if library.capabilities.audio:
        _write_audio(block, native.audio, item.audio)
    elif item.audio is not None:
        library.require("audio", "audio")


def _require_places(prompt: bytes, tag: bytes, number: int) -> None:
    places = prompt.count(tag)
    if places != number:
        raise InvalidInput(f"the prompt has {places} {tag.decode()} for {number} of them", "make them equal")


def _write_images(library: Library, block: Block, native: Any, images: ImageEmbeds) -> None:
    if images.n_images < 1 or images.n_tokens < 1:
        raise InvalidInput("no images")
    address = block.copy_floats(images.embed, "images.embed", at_least=images.n_images * images.n_tokens)
    tags = (images.start, images.end, images.content)
    if library.capabilities.image_tags:
        target = native.image
        _write_tags(target, "image", *(tag or b"" for tag in tags))
    elif any(tag is not None for tag in tags):
        library.require("image_tags", "image tags of one input; set img_start, img_end and img_content")
    else:
        target = native
    target.image_embed = address
    target.n_image_tokens = images.n_tokens
    if library.capabilities.many_images:
        target.n_image = images.n_images
        target.image_width, target.image_height = images.width, images.height
    elif images.n_images > 1:
        library.require("many_images", "more than one image")


def _write_video(block: Block, native: Any, video: VideoEmbeds | None) -> None:
    if video is None:
        _write_tags(native, "video", b"", b"", b"")
        return
    tokens = video.n_videos * video.n_frames * video.n_frame_tokens
    if tokens < 1:
        raise InvalidInput("no video")
    native.video_embed = block.copy_floats(video.embed, "video.embed", at_least=tokens)
    native.n_frame_tokens = video.n_frame_tokens
    native.n_frame_per_video = video.n_frames
    native.n_video = video.n_videos
    native.frame_width, native.frame_height = video.width, video.height
    _write_tags(native, "video", video.start, video.end, video.content)


def _write_audio(block: Block, native: Any, audio: AudioEmbeds | None) -> None:
    if audio is None:
        _write_tags(native, "audio", b"", b"", b"")
        return
    tokens = audio.n_audios * audio.n_tokens
    if tokens < 1:
        raise InvalidInput("no audio")
    native.audio_embed = block.copy_floats(audio.embed, "audio.embed", at_least=tokens)
    native.n_audio_tokens = audio.n_tokens
    native.n_audio = audio.n_audios
    _write_tags(native, "audio", audio.start, audio.end, audio.content)


def _write_tags(native: Any, kind: str, start: str | bytes, end: str | bytes, content: str | bytes) -> None:
    """Set the three tag strings; an empty one points to "": older releases crash on NULL."""
    for name, value in (("start", start), ("end", end), ("content", content)):
        setattr(native, f"{kind}_{name}", c_text(value, f"{kind}_{name}"))
