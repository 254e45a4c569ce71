"""What a run is given: text, token ids, embeddings, or text with pictures, video and sound.

Embeddings are float32 in C order, any object with the buffer interface (numpy arrays, array('f'), bytes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FloatBuffer = Any
"""float32 values behind the buffer interface; copied when the run starts."""


@dataclass(frozen=True, slots=True)
class PromptInput:
    """Text, to which the runtime applies its chat template unless that was replaced."""

    text: str | bytes
    role: str = "user"
    """`user`, or `tool` (D+): then `text` is JSON, one result for each call, in order."""
    enable_thinking: bool = False
    """Ask a thinking model to think (D+); only with the runtime's own template."""


@dataclass(frozen=True, slots=True)
class TokenInput:
    """Token ids; neither tokeniser nor template is applied."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class EmbedInput:
    """Embeddings of `n_tokens` tokens, each as wide as the model."""

    embed: FloatBuffer
    n_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEmbeds:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEmbeds:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioEmbeds:
    """What an audio encoder made of `n_audios` recordings (F)."""

    embed: FloatBuffer
    n_tokens: int
    n_audios: int = 1
    start: str | bytes = b""
    end: str | bytes = b""
    content: str | bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultimodalInput:
    """Text with one `<image>` for each image and one `<video>` for each video, and their embeddings."""

    prompt: str | bytes
    images: ImageEmbeds | None = None
    video: VideoEmbeds | None = None
    audio: AudioEmbeds | None = None
    role: str = "user"
    enable_thinking: bool = False


Input = PromptInput | TokenInput | EmbedInput | MultimodalInput
