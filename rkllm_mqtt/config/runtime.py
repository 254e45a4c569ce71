"""Settings of the native library: where it is, what it may use, how long it may take."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class RuntimeConfig(BaseModel):
    """The native library and how its process is watched."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    library: Path | None = Field(
        None, description="Path of librkllmrt.so; default: searched in the usual folders, else the simulator."
    )
    version: str | None = Field(
        None, description="Runtime version to believe against the file's own string, such as 1.2.3."
    )
    simulator: bool | None = Field(
        None, description="true: always the simulator; false: never; default: when no library is found."
    )
    simulator_version: str = Field("1.3.1", description="Which runtime release the simulator plays.")
    enabled_cpus: int | None = Field(
        None, ge=1, le=8, description="CPU threads of the runtime; default: the big cores of the board."
    )
    cpu_mask: int | None = Field(None, ge=1, le=255, description="Bit mask of the CPUs to use.")
    npu_domain: int | None = Field(
        None, ge=0, le=15, description="IOMMU domain of 4 GB; another one than other users of the NPU."
    )
    embed_flash: bool | None = Field(None, description="Read embedding rows from storage to save memory.")
    log_level: int = Field(
        0, ge=0, le=2, description="RKLLM_LOG_LEVEL of the library; 2 prints details into the log at debug."
    )
    load_timeout_s: Seconds = Field(300, description="Longest load of a model, seconds.")
    stall_timeout_s: Seconds = Field(30, description="Longest silence between two tokens, seconds.")
    run_timeout_s: Seconds = Field(1800, description="Longest run of one prompt, seconds.")
    abort_grace_s: Seconds = Field(
        5, description="Wait for a run to end after an abort, beside twice its remaining prefill, seconds."
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="A prompt in whose runs the worker was lost so often is given up."
    )
    restart_max_s: Seconds = Field(30, description="Longest pause before a worker is started again, seconds.")
    unpin_after_s: Seconds = Field(
        60,
        description="Silence of the pinned model's interactive prompts after which another model may be "
        "loaded, seconds.",
    )
    idle_unload_s: float = Field(
        0,
        ge=0,
        le=31_536_000,
        description="Idleness after which the model is unloaded, unless it is pinned, seconds; 0: never.",
    )
    probe_idle_s: Seconds | None = Field(
        3,
        description="Idleness after which the runtime is asked what it does with caches, once for each model "
        "file and release, seconds; null: never by itself.",
    )
    ram_cache_mb: int | None = Field(
        None,
        ge=0,
        le=1_048_576,
        description="Memory for saved beginnings of prompts, megabytes; 0: none; default: 15 % of what is "
        "available at the start.",
    )
    ram_cache_folder: Path | None = Field(
        None, description="Folder in memory (tmpfs) for them; default: in /dev/shm, or the service's own."
    )
    disk_write_mb_per_day: int = Field(
        500,
        ge=0,
        le=1_048_576,
        description="What may be written on the disk a day for beginnings that clients have registered, "
        "megabytes; flash wears; 0: nothing.",
    )
    batch_window_ms: float = Field(
        10,
        ge=0,
        le=10_000,
        description="How long a prompt for a model with `n_batch` waits for others, milliseconds.",
    )
    max_worker_growth_mb: int = Field(
        512,
        ge=0,
        le=1_048_576,
        description="Growth of the worker since its first run beyond which it is replaced between two jobs, "
        "megabytes; 0: never.",
    )
