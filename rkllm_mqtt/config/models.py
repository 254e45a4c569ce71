"""Settings of one language model and of named sampling parameters."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class PresetConfig(BaseModel):
    """Sampling parameters; an absent one is the model's or the runtime's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float | None = Field(None, ge=0, le=5, description="0 picks the likeliest token.")
    top_p: float | None = Field(None, gt=0, le=1, description="Probability mass that is sampled from.")
    top_k: int | None = Field(None, ge=1, le=100_000, description="Likeliest tokens that are sampled from.")
    repeat_penalty: float | None = Field(None, gt=0, le=5, description="1 does not punish repetition.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="As in the OpenAI API.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="As in the OpenAI API.")
    mirostat: Literal[0, 1, 2] | None = Field(None, description="Mirostat sampling; 0 is off.")
    mirostat_tau: float | None = Field(None, gt=0, le=100, description="Target entropy of mirostat.")
    mirostat_eta: float | None = Field(None, gt=0, le=10, description="Learning rate of mirostat.")


class LoraConfig(BaseModel):
    """A LoRA adapter, converted together with its model; a request chooses it as `<model>:<id>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        description="Name behind the model's in requests."
    )
    file: Path = Field(description="The adapter's .rkllm file.")
    scale: float = Field(1.0, ge=0, le=10, description="Weight of the adapter.")


class ModelConfig(BaseModel):
    """One language model file and how it is spoken to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] = Field(
        description="Name used in requests."
    )
    file: Path = Field(description="The .rkllm file, or a .sim file of the simulator.")
    pinned: bool = Field(
        False,
        description="Keep it in the slot: another model is loaded only after `runtime.unpin_after_s` without "
        "interactive prompts for this one, and it comes back when the others have nothing to do.",
    )
    context_tokens: int = Field(
        4096,
        ge=64,
        le=16_384,
        description="Window in tokens, at most what the model was converted for. The default becomes that "
        "where it is less.",
    )
    template: str = Field(
        "chatml",
        description="chatml, llama3, gemma, phi, raw, runtime (its own), or the path of a template.",
    )
    tokenizer: Path | None = Field(
        None, description="Its tokenizer.json, to count prompts exactly; default: estimated, and learned."
    )
    thinking: Literal["none", "switch", "always"] = Field(
        "none", description="Whether the model thinks: never, when a request asks, or always."
    )
    thinking_tokens: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Most tokens of thoughts; then they are closed and the model has to answer.",
    )
    system: str | None = Field(None, description="System prompt when a request brings none.")
    max_tokens: int = Field(512, ge=1, le=65_536, description="Answer length when a request names none.")
    loras: tuple[LoraConfig, ...] = Field(
        (),
        max_length=16,
        description="LoRA adapters; each is loaded when it is asked for first: `model: <this id>:<its id>`.",
    )
    n_batch: int = Field(
        1,
        ge=1,
        le=8,
        description="Experimental: runs so many prompts at once, for throughput (runtime 1.2.1 or newer). It "
        "never serves interactive requests: give it an entry of its own.",
    )
    sampling: PresetConfig = Field(
        default_factory=PresetConfig, description="Sampling parameters when a request names none."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Return what requests may ask for: the model, and the model with each of its adapters."""
        return (self.id, *(f"{self.id}:{lora.id}" for lora in self.loras))
