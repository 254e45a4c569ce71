"""What a run is given: text, token ids, embeddings, or text with pictures, video and sound.

Embeddings are float32 in C order, any object with the buffer interface (numpy arrays, array('f'), bytes).
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

FloatBuffer = Any
"""float32 values behind the buffer interface; copied when the run starts."""


class PromptInput(Struct, frozen=True):
    """Text, to which the runtime applies its chat template unless that was replaced."""

    text: str | bytes
    role: str = "user"
    """`user`, or `tool` (D+): then `text` is JSON, one result for each call, in order."""
    enable_thinking: bool = False
    """Ask a thinking model to think (D+); only with the runtime's own template."""


class TokenInput(Struct, frozen=True):
    """Token ids; neither tokeniser nor template is applied."""

    ids: Sequence[int]


class EmbedInput(Struct, frozen=True):
    """Embeddings of `n_tokens` tokens, each as wide as the model."""

    embed: FloatBuffer
    n_tokens: int


class ImageEmbeds(Struct, frozen=True, kw_only=True):
    """What a vision encoder made of `n_images` images of one size."""

    embed: FloatBuffer
    n_tokens: int
    """Tokens of each image."""
    n_images: int = 1
    """More than one from group C on."""
    width: int = 0
    height: int = 0
    start: str | bytes | None = None
    """Tags (E+); before, they are the model's `img_start`, `img_end` and `img_content`."""
    end: str | bytes | None = None
    content: str | bytes | None = None


class VideoEmbeds(Struct, frozen=True, kw_only=True):
    """What a vision encoder made of `n_videos` videos (E+)."""

    embed: FloatBuffer
    n_frame_tokens: int
    n_frames: int
    """Frames of each video."""
    n_videos: int = 1
    width: int = 0
    height: int = 0
    start: str | bytes = b""
    end: str | bytes = b""
    content: str | bytes = b""


class AudioEmbeds(Struct, frozen=True, kw_only=True):
    """What an audio encoder made of `n_audios` recordings (F)."""

    embed: FloatBuffer
    n_tokens: int
    n_audios: int = 1
    start: str | bytes = b""
    end: str | bytes = b""
    content: str | bytes = b""


class MultimodalInput(Struct, frozen=True, kw_only=True):
    """Text with one `<image>` for each image and one `<video>` for each video, and their embeddings."""

    prompt: str | bytes
    images: ImageEmbeds | None = None
    video: VideoEmbeds | None = None
    audio: AudioEmbeds | None = None
    role: str = "user"
    enable_thinking: bool = False


Input = PromptInput | TokenInput | EmbedInput | MultimodalInput
