"""Settings of who goes first."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=0.4)]


class PolicyConfig(BaseModel):
    """How the slot is shared; interactive prompts go first, then normal, then background ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    normal_share: Share = Field(
        0.15, description="Part of the slot time that normal prompts keep while they wait; 0: none."
    )
    background_share: Share = Field(
        0.05, description="Part of the slot time that background prompts keep while they wait; 0: none."
    )
    window_s: float = Field(
        600, ge=5, le=86_400, description="Any so many seconds of waiting give a class its share."
    )
    prefix_affinity: bool = Field(
        True,
        description="Let a prompt whose beginning is cached pass others of its class, at most twice and 2 s.",
    )
    prefill_chunk_tokens: int = Field(
        256,
        ge=0,
        le=16_384,
        description="Long normal and background prompts are computed in pieces of so many tokens, between "
        "which an interactive one gets the slot; 0: in one piece.",
    )
    trace: Path | None = Field(
        None,
        description="File to which every decision is written as JSON, without any content; for reports.",
    )
