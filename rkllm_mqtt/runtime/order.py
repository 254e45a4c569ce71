"""What the daemon asks of the worker: load this, run that; plain values that become frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import asdict

from rkllm_mqtt.config import Config, ModelConfig

LIBRARY_PATHS = (
    Path("/usr/lib/librkllmrt.so"),
    Path("/usr/local/lib/librkllmrt.so"),
    Path("/usr/lib/aarch64-linux-gnu/librkllmrt.so"),
    Path("/opt/rkllm/librkllmrt.so"),
)
"""Where a library is looked for when none is configured."""


DEMO_CONTEXT_TOKENS = 4096
"""Window of the simulator's demonstration model."""


class LoadOrder(Struct, frozen=True):
    """The first frame of a worker: which library, which model, how."""

    library: str | None
    """Path of the shared library; None builds and loads the simulator."""
    version: str | None
    simulator_version: str
    model_id: str
    file: str | None
    """Model file; None is the simulator's demonstration model."""
    raw: bool
    """Render the chat template ourselves and switch off the runtime's own."""
    params: Mapping[str, int | float | bool]
    """Fields of rkllmrt.ModelParams."""
    orphan_grace_s: float = 10.0
    """How long a worker whose daemon is gone may still take to end in order."""

    def frame(self) -> Mapping[str, Any]:
        """Return the `load` frame."""
        return {"op": "load", **asdict(self)}


class CallOrder(Struct, frozen=True):
    """How the tool calls of an answer are found."""

    tools: Mapping[str, Mapping[str, Any]]
    """JSON schema of the parameters by name; what else is called is no call."""
    begun: str = ""
    """The end of the prompt that begins the call already."""
    only_one: bool = False
    """The first call ends the run."""


class LoraOrder(Struct, frozen=True):
    """The adapter that a run is computed with; the worker loads it when it has not."""

    id: str
    file: str
    scale: float = 1.0


class ChunkOrder(Struct, frozen=True):
    """How a long prompt is computed in pieces, between which the run can give way."""

    start: int
    """Characters that are cached already, as far as is known."""
    tokens: int
    """Of a piece."""
    chars: int
    """Of the first piece, as far as is known; the others follow what it turned out to be."""
    borders: tuple[str, ...] = ()
    """Strings that begin a message."""


class OptionOrder(Struct, frozen=True):
    """One option that the model is to weigh."""

    text: str
    ids: tuple[int, ...] | None = None
    """Its tokens behind the prompt, by the model's own tokenizer; None where that is not known."""
    echo: str | None = None
    """The prompt that makes the model repeat it, where they are not."""


class ReadoutOrder(Struct, frozen=True):
    """Numbers that are read out of the model instead of an answer: of options, or of texts."""

    options: tuple[OptionOrder, ...] = ()
    texts: tuple[str, ...] = ()
    pooling: str = "mean"


class RunOrder(Struct, frozen=True):
    """One run of the slot."""

    prompt: str
    """Whole: what was carried is at its end already, white space at the end of that excepted."""
    max_tokens: int
    sampling: Mapping[str, float] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    """Markers of the model's family that end the run; none of their characters is delivered."""
    text_stops: tuple[str, ...] = ()
    """The sender's stop strings: they end the answer, not the thoughts before it."""
    specials: tuple[str, ...] = ()
    """Strings that are dropped from the text while the run goes on."""
    opens_thinking: bool = False
    """The prompt ends inside an open `<think>`."""
    thinking: bool = False
    """For the runtime's own template only."""
    thinking_tokens: int | None = None
    """After so many tokens of thoughts they are closed and the model goes on with the answer; None: never."""
    calls: CallOrder | None = None
    """How to tell tool calls from text; None where everything is text."""
    carried: tuple[str, ...] = ()
    """Text that the model made in earlier runs, a piece for each token: read again, but not shown again."""
    carried_tokens: int = 0
    """Of `max_tokens`, so many are made."""
    chunks: ChunkOrder | None = None
    """How to compute the prompt in pieces; None: at once."""
    lora: LoraOrder | None = None
    prime: bool = False
    """Only compute the prompt, so that it is in the KV cache: there is no answer."""
    restore: str | None = None
    """Prompt-cache file that is loaded first; where that fails the run is computed all the same."""
    save: str | None = None
    """Of a prime run: the prompt-cache file that it leaves, which holds this prompt and nothing else."""
    readout: ReadoutOrder | None = None
    """Read numbers instead of an answer."""
    first_token_limit_s: float = 60
    """Longest silence before the first token, and of a restore before that."""

    def frame(self, generation: int) -> Mapping[str, Any]:
        """Return the `run` frame."""
        return {
            "op": "run",
            "gen": generation,
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "sampling": self.sampling,
            "stops": self.stops,
            "text_stops": self.text_stops,
            "specials": self.specials,
            "opens_thinking": self.opens_thinking,
            "thinking": self.thinking,
            "thinking_tokens": self.thinking_tokens,
            "calls": None if self.calls is None else asdict(self.calls),
            "carried": self.carried,
            "carried_tokens": self.carried_tokens,
            "chunks": None if self.chunks is None else asdict(self.chunks),
            "lora": None if self.lora is None else asdict(self.lora),
            "prime": self.prime,
            "restore": self.restore,
            "save": self.save,
            "readout": None if self.readout is None else to_builtins(self.readout),
        }


def prime_order(
    prompt: str,
    *,
    chunks: ChunkOrder | None = None,
    lora: LoraOrder | None = None,
    restore: str | None = None,
    save: str | None = None,
) -> RunOrder:
    """Return the order of a run that only computes a prompt.

    Args:
        prompt: The beginning of prompts to come, whole.
        chunks: How to compute it in pieces, between which it can be stopped.
        lora: The adapter that computes it.
        restore: Prompt-cache file to begin with.
        save: Prompt-cache file to leave.
    """
    return RunOrder(prompt, 1, chunks=chunks, lora=lora, prime=True, restore=restore, save=save)


class ProbeOrder(RunOrder, frozen=True, kw_only=True):
    """One step of a probe: runs of its own, and no answer."""

    prompt: str = ""
    max_tokens: int = 1
    step: str
    """Of `core.probes.STEPS`."""
    granularity: int
    """What is known of it, at least 1."""
    raw: bool
    """Prompts are taken as they are."""
    folder: str
    """For its files; exists, and is removed afterwards."""

    def frame(self, generation: int) -> Mapping[str, Any]:
        """Return the `probe` frame."""
        return {
            "op": "probe",
            "gen": generation,
            "step": self.step,
            "granularity": self.granularity,
            "raw": self.raw,
            "folder": self.folder,
        }


def find_library(config: Config, models: Sequence[ModelConfig] | None = None) -> Path | None:
    """Return the native library to load; None means the simulator.

    Where the simulator is forbidden and nothing is installed, the usual path: its load says what is missing.

    Args:
        config: The whole configuration.
        models: All that can be asked for; None: those of the configuration.
    """
    runtime = config.runtime
    if runtime.simulator:
        return None
    if runtime.library is not None:
        return runtime.library
    if runtime.simulator is False:
        return next((path for path in LIBRARY_PATHS if path.is_file()), LIBRARY_PATHS[0])
    # Without a model of one's own there is nothing that a real library could load.
    if all(model.file.suffix == ".sim" for model in (config.models if models is None else models)):
        return None
    return next((path for path in LIBRARY_PATHS if path.is_file()), None)


def load_order(
    config: Config,
    model: ModelConfig | None,
    columns: int = 1,
    models: Sequence[ModelConfig] | None = None,
) -> LoadOrder:
    """Return how to load a configured model; None is the demonstration model.

    Args:
        config: The whole configuration.
        model: Its settings.
        columns: Prompts that it runs at once.
        models: All that can be asked for; None: those of the configuration.
    """
    runtime = config.runtime
    library = find_library(config, models)
    params: dict[str, int | float | bool] = {
        # Special tokens stay in the text: the daemon guards the family's stop markers itself.
        "skip_special_token": False,
        "max_context_len": model.context_tokens if model else DEMO_CONTEXT_TOKENS,
    }
    if model is not None:
        params["max_new_tokens"] = min(config.limits.max_tokens, model.context_tokens)
        params.update(model.sampling.model_dump(exclude_none=True))
    if columns > 1:
        params["n_batch"] = columns
    if runtime.enabled_cpus is not None:
        params["enabled_cpus_num"] = runtime.enabled_cpus
    if runtime.cpu_mask is not None:
        params["enabled_cpus_mask"] = runtime.cpu_mask
    if runtime.npu_domain is not None:
        params["base_domain_id"] = runtime.npu_domain
    if runtime.embed_flash is not None:
        params["embed_flash"] = runtime.embed_flash
    return LoadOrder(
        library=str(library) if library else None,
        version=runtime.version if library else None,
        simulator_version=runtime.simulator_version,
        model_id=model.id if model else "demo",
        file=str(model.file) if model else None,
        raw=model is None or model.template != "runtime",
        params=params,
        orphan_grace_s=2 * runtime.abort_grace_s,
    )
