"""Where a chat template comes from: our own of a family, or the file that came with the model."""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from msgspec import Struct, field

from rkllm_mqtt.content.dialects import Dialect, dialect_of

from .errors import RenderError
from .markers import CALL_MARKERS, TURN_ENDS, TURN_STARTS

MAX_FILE_BYTES = 16 * 1024 * 1024  # the largest tokenizer_config.json in use (Gemma 3) has 1.2 MB


class ChatTemplate(Struct, frozen=True):
    """The text of a template and what belongs to it."""

    label: str
    """For messages to people: the family or the path."""
    source: str
    stops: tuple[str, ...] = ()
    """Strings that end an answer."""
    specials: tuple[str, ...] = ()
    """Strings to be dropped from an answer; none of them is a stop."""
    tool_source: str | None = None
    """A second template that the model's file keeps for conversations with tools."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Template variables such as `bos_token`."""

    @property
    def takes_tools(self) -> bool:
        """Return whether the template writes the tools that it is given."""
        return "tools" in (self.tool_source or self.source)

    @property
    def takes_calls(self) -> bool:
        """Return whether the template writes the calls of earlier answers, and their results."""
        return "tool_calls" in (self.tool_source or self.source)

    @property
    def dialect(self) -> Dialect:
        """Return how the model writes a tool call; where its template knows no tools, how its family does."""
        dialect = dialect_of(self.tool_source or self.source)
        if dialect is Dialect.PLAIN and not self.takes_tools and "<|im_start|>" in self.source:
            return Dialect.HERMES
        return dialect


_FAMILIES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "chatml": (
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
        ("<|object_ref_start|>", "<|object_ref_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    ),
    # Not <|python_tag|>: it is how Llama 3 begins some tool calls, so whoever parses calls must see it.
    "llama3": (
        ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|start_header_id|>"),
        ("<|begin_of_text|>", "<|end_header_id|>", "<|finetune_right_pad_id|>"),
    ),
    "gemma": (("<end_of_turn>", "<eos>", "<start_of_turn>"), ("<bos>", "<pad>", "<start_of_image>")),
    "phi": (("<|end|>", "<|endoftext|>", "<|user|>"), ("<|assistant|>", "<|system|>")),
}

FAMILIES = tuple(_FAMILIES)
"""Names of our own templates."""


def open_template(name: str) -> ChatTemplate:
    """Return the template of a family, or read the one in a file.

    Args:
        name: One of `FAMILIES`, or the path of a `.jinja` file, a `tokenizer_config.json` or a
            `chat_template.json`. Special tokens are read from the `tokenizer_config.json` beside it, if any.

    Raises:
        RenderError: No such family or file, or the file holds no template.
    """
    if name in _FAMILIES:
        stops, specials = _FAMILIES[name]
        return ChatTemplate(name, family_source(f"{name}.jinja"), stops, specials)
    path = Path(name)
    if not path.is_file():
        raise RenderError(
            f"there is no chat template {name!r}",
            f"use {', '.join(FAMILIES)}, raw, runtime, or the path of the model's tokenizer_config.json "
            "or chat_template.jinja",
        )
    return _read_model_files(path)


def family_source(file_name: str) -> str:
    """Return the text of one of our template files."""
    return (resources.files(__package__) / "templates" / file_name).read_text(encoding="utf-8")


def _read_model_files(path: Path) -> ChatTemplate:
    named: object = None
    settings: Mapping[str, object] = {}
    if path.suffix == ".json":
        settings = _read_json(path)
        named = settings.get("chat_template")
    else:
        named = _read_text(path)
    if path.name != "tokenizer_config.json":
        beside = path.with_name("tokenizer_config.json")
        settings = _read_json(beside) if beside.is_file() else settings
    elif named is None and (beside := path.with_name("chat_template.jinja")).is_file():
        named = _read_text(beside)  # newer model folders keep it outside the JSON
    source, tool_source = _choose(named, path)
    tokens, specials = _special_tokens(settings)
    # The turn's end is often not the file's eos_token (Gemma: <end_of_turn> beside <eos>): look for it.
    known = [marker for marker in (*TURN_ENDS, *TURN_STARTS) if marker in source or marker in specials]
    stops = tuple(dict.fromkeys([token for name, token in tokens.items() if name == "eos_token"] + known))
    return ChatTemplate(
        label=str(path),
        source=source,
        stops=stops,
        specials=tuple(token for token in specials if token not in stops and token not in CALL_MARKERS),
        tool_source=tool_source,
        tokens=tokens,
    )


def _choose(named: object, path: Path) -> tuple[str, str | None]:
    """Return the default template and the one for tools: a file holds one text, or a list of named ones."""
    if isinstance(named, str):
        return named, None
    by_name: dict[str, str] = {}
    if isinstance(named, list):
        for entry in named:
            if isinstance(entry, Mapping):
                by_name[str(entry.get("name"))] = str(entry.get("template", ""))
    if not by_name:
        raise RenderError(
            f"{path} holds no chat template",
            "take the files of the instruct or chat version of the model: a base model has no template",
        )
    tool_source = by_name.get("tool_use")
    return by_name.get("default") or next(iter(by_name.values())), tool_source


def _special_tokens(settings: Mapping[str, object]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the named tokens (`bos_token`, ...) and every special token, in the file's order."""
    named: dict[str, str] = {}
    found: list[str] = []
    for key, value in settings.items():
        if key.endswith("_token") and (token := _token_text(value)):
            named[key] = token
            found.append(token)
    for key in ("additional_special_tokens", "extra_special_tokens"):
        found += map(_token_text, _values(settings.get(key)))
    for entry in _values(settings.get("added_tokens_decoder")):
        if isinstance(entry, Mapping) and entry.get("special") is True:
            found.append(_token_text(entry))
    return named, tuple(dict.fromkeys(token for token in found if len(token.strip()) > 1))


def _token_text(value: object) -> str:
    """Return the text of a token, which stands in the files bare or as an object with its properties."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _values(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _read_json(path: Path) -> Mapping[str, object]:
    text = _read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise RenderError(f"{path} is not valid JSON: {exc}", "download the file again") from exc
    if not isinstance(value, dict):
        raise RenderError(f"{path} is not a JSON object", "download the file again")
    return value


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RenderError(
                f"{path} is larger than {MAX_FILE_BYTES} bytes", "name the template, not the model"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RenderError(
            f"{path} cannot be read: {exc}", "check that it is a text file and its permissions"
        ) from exc
