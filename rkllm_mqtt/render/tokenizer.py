"""Count and name tokens exactly, with the tokenizer.json that came with the model."""

from pathlib import Path
from typing import Any

from rkllm_mqtt.render.errors import RenderError


class ExactTokenizer:
    """A model's own tokenizer, read by Hugging Face's `tokenizers`.

    Raises:
        RenderError: The library is not installed, or the file is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as exc:
            raise RenderError(
                "`tokenizer` needs the library `tokenizers`", "pip install 'rkllm-mqtt[tokenizer]'"
            ) from exc
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as exc:  # the library raises plain Exception for whatever is wrong
            raise RenderError(
                f"{path} is no tokenizer: {exc}", "Take tokenizer.json from the model."
            ) from exc

    def count(self, text: str) -> int:
        """Return the tokens of a rendered prompt, special tokens counted as one each."""
        return len(self._ids(text))

    def behind(self, prompt: str, text: str) -> tuple[int, ...] | None:
        """Return the tokens of a text behind a prompt; None where they are one across the border."""
        before, whole = self._ids(prompt), self._ids(prompt + text)
        return tuple(whole[len(before) :]) if whole[: len(before)] == before else None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
