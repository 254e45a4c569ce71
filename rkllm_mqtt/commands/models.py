"""`rkllm-mqtt models`: the configured models, what is wrong with them, and files that nobody configured."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from rkllm_mqtt.commands.terminal import Terminal, harmless
from rkllm_mqtt.config import Config, ModelConfig, load_config
from rkllm_mqtt.config.catalogue import Entry
from rkllm_mqtt.config.folder import Listing, read_listing
from rkllm_mqtt.host.modelfile import ModelFile, inspect_model, size_for_people

MODELS_FOLDER = Path("/var/lib/rkllm-mqtt/models")
"""Where the packaged service keeps its models."""
SUFFIXES = frozenset({".rkllm", ".sim"})
_MOST_FOUND = 200
_NAMES_TELL = (("-vl", "vision"), ("vision", "vision"), ("embed", "embeddings"), ("coder", "code"))


class ModelLine(Struct, frozen=True):
    """One model as it is shown."""

    id: str | None
    """None: found, but not configured."""
    file: str
    size_bytes: int
    context_tokens: int | None
    template: str | None
    capabilities: tuple[str, ...]
    """Guessed from the configuration and the file's name."""
    platform: str | None
    simulated: bool
    usable: bool
    problems: tuple[dict[str, str], ...]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration of the daemon")
    parser.add_argument(
        "--folder", type=Path, action="append", metavar="FOLDER", help="look for model files here as well"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object: configured, found")


def run(args: Namespace) -> int:
    """List the models; return 1 when a configured one cannot be loaded.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    config = load_config(args.config)
    listing = read_listing(config)
    configured = [listed(entry) for entry in listing.entries] or [demo_model()]
    found = [left_out(line, listing) for line in unconfigured(config, args.folder or [], listing)]
    if args.json:
        lists = {
            "configured": [asdict(line) for line in configured],
            "found": [asdict(line) for line in found],
        }
        print(json.dumps(lists, ensure_ascii=False, indent=2))
    else:
        _show(configured, found, Terminal(sys.stdout))
    return 0 if all(line.usable for line in configured) else 1


def describe(model: ModelConfig | None, file: ModelFile) -> ModelLine:
    """Return the line of a file, configured or not."""
    return ModelLine(
        id=model.id if model else None,
        file=str(file.path),
        size_bytes=file.size_bytes,
        context_tokens=model.context_tokens if model else file.context_tokens,
        template=model.template if model else None,
        capabilities=capabilities(model, file.path.name),
        platform=file.platform,
        simulated=file.simulated,
        usable=file.loadable,
        problems=tuple(
            {"code": problem.code, "message": problem.sentence, "hint": problem.hint}
            for problem in file.problems
        ),
    )


def listed(entry: Entry) -> ModelLine:
    """Return the line of a model of the configuration or its folder."""
    assert entry.settings is not None  # only the demonstration model has none, and it is not in a listing
    line = describe(entry.settings, inspect_model(entry.settings.file))
    if entry.fault is None:
        return line
    fault = {"code": "settings", "message": f"has a mistake: {entry.fault.message}", "hint": entry.fault.hint}
    return replace(line, usable=False, problems=(fault, *line.problems))


def left_out(line: ModelLine, listing: Listing) -> ModelLine:
    """Return the line of a file that nobody configured, with why the folder's list has it not."""
    why = listing.left_out.get(Path(line.file))
    if why is None:
        return line
    problem = {"code": "left_out", "message": f"is left out: {why}", "hint": "Rename it."}
    return replace(line, problems=(problem, *line.problems))


def demo_model() -> ModelLine:
    """Return the line of the simulator's own model, which is used when none is configured."""
    from rkllmrt import simulator

    file = inspect_model(simulator.demo_model())
    return describe(ModelConfig(id="demo", file=file.path, context_tokens=file.context_tokens or 4096), file)


def capabilities(model: ModelConfig | None, name: str) -> tuple[str, ...]:
    """Guess what a model can do: the file itself does not say."""
    told = [word for part, word in _NAMES_TELL if part in name.lower()]
    thinks = ["thinking"] if model is not None and model.thinking != "none" else []
    chats = [] if "embeddings" in told else ["chat"]
    return tuple(dict.fromkeys([*chats, *thinks, *told]))


def unconfigured(config: Config, folders: Iterable[Path], listing: Listing) -> list[ModelLine]:
    """Return model files beside the configured ones, in the service's folder and in `folders`."""
    models = [entry.settings for entry in listing.entries if entry.settings is not None]
    files = [*(model.file for model in models), *(lora.file for model in models for lora in model.loras)]
    known = set(map(_real, files))
    folders = [*folders, *filter(None, [config.models_folder])]
    places = [*(model.file.parent for model in config.models), MODELS_FOLDER, *folders]
    lines: list[ModelLine] = []
    for place in dict.fromkeys(_real(place) for place in places):
        for path in _model_files(place):
            if _real(path) not in known and len(lines) < _MOST_FOUND:
                known.add(_real(path))
                lines.append(describe(None, inspect_model(path)))
    return lines


def _model_files(folder: Path) -> list[Path]:
    try:
        # One level of subfolders: downloads keep a folder per model.
        names = [*folder.glob("*"), *folder.glob("*/*")]
        return sorted(path for path in names if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError:
        return []


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _show(configured: Sequence[ModelLine], found: Sequence[ModelLine], terminal: Terminal) -> None:
    terminal.write("Configured\n", "bold")
    for line in configured:
        _show_model(line, terminal)
    if found:
        terminal.write("\nFound, not configured\n", "bold")
        for line in found:
            _show_model(line, terminal)


def _show_model(line: ModelLine, terminal: Terminal) -> None:
    symbol, style = ("✓", "green") if not line.problems else ("!", "yellow") if line.usable else ("✗", "red")
    facts = [
        size_for_people(line.size_bytes) if line.size_bytes else "",
        f"{line.context_tokens} tokens" if line.context_tokens else "",
        f"template {line.template}" if line.template else "",
        "simulated" if line.simulated else f"for {line.platform}" if line.platform else "",
        ", ".join(line.capabilities),
    ]
    name = line.id or Path(line.file).name
    terminal.write(f"  {symbol} ", style)
    terminal.write(f"{name}\n", "bold")
    terminal.write(f"    {' · '.join(fact for fact in facts if fact)}\n")
    terminal.write(f"    {line.file}\n", "dim")
    for problem in line.problems:
        terminal.write(f"    It {harmless(problem['message'])}.\n", style)
        terminal.write(f"    → {problem['hint']}\n")
