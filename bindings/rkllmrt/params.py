"""The parameters of a model and of one run, under the runtime's own names."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace


class Sampling(Struct, frozen=True):
    """How the next token is drawn; None takes the value the model was loaded with.

    There is no seed, no min_p, no stop string and no grammar in any release.
    """

    top_k: int | None = None
    top_p: float | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None

    def filled(self, loaded: Mapping[str, object]) -> "Sampling":
        """Return a copy without None: the runtime takes all nine fields, a zero would count as a wish."""
        absent = {name: loaded[name] for name in self.__struct_fields__ if getattr(self, name) is None}
        return replace(self, **absent)


class ModelParams(Struct, frozen=True, kw_only=True):
    """RKLLMParam and its extend_param; None leaves the library's default.

    What the loaded release has no field for is refused by `Model.load`, unless it is the neutral value.
    """

    model_path: str | Path
    max_context_len: int | None = None
    """Tokens of the window; at most the limit of the converted model (itself at most 16384)."""
    max_new_tokens: int | None = None
    """Tokens a run may add; -1 is no limit but the window, which then shifts without an end: set one."""
    n_keep: int | None = None
    """Tokens at the front that survive a shift of the window (B+)."""
    top_k: int | None = None
    top_p: float | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    skip_special_token: bool | None = None
    """True hides the text of special tokens."""
    ignore_eos_token: bool | None = None
    """Go on after the end-of-sequence token (E+)."""
    img_start: str | bytes | None = None
    """Tags around image tokens (A–D); later they travel with the input."""
    img_end: str | bytes | None = None
    img_content: str | bytes | None = None
    base_domain_id: int | None = None
    """First IOMMU domain, 0 to 15, of 4 GB address space each; distinct for models loaded side by side."""
    embed_flash: bool | None = None
    """Read rows of the vocabulary embedding from flash instead of keeping it in memory (B+)."""
    enabled_cpus_num: int | None = None
    """Helper threads, 1 to 8 (B+). When this and the mask are None, `cores.choose_cpus` decides."""
    enabled_cpus_mask: int | None = None
    """Bit n allows CPU n (B+)."""
    n_batch: int = 1
    """Runs at once, 1 to 100, at most 8 recommended (D+). Above 1 only `Model.generate_batch` runs."""
    use_cross_attn: bool = False
    """For models converted for it (D+)."""


class RunParams(Struct, frozen=True, kw_only=True):
    """RKLLMInferParam: what one run may say for itself."""

    max_new_tokens: int | None = None
    """At least 1 (E+); None takes the model's."""
    sampling: Sampling | None = None
    """E+."""
    keep_history: bool = False
    """Keep this run's tokens as the beginning of the next (B+). Off, each run stands for itself."""
    lora_name: str | None = None
    """A LoRA adapter loaded before; None is the bare model."""
    save_prompt_cache: Path | None = None
    """Where the run leaves its KV cache as a file."""
