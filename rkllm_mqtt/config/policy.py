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
    hold_max_s: float = Field(
        10,
        ge=0,
        le=30,
        description="Longest time for which the slot is kept free for a question that was announced, "
        "seconds; 0: never.",
    )
    hold_share: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="Part of any `window_s` for which holds may keep others waiting; one "
        "client has at most half of it. 0: none.",
    )
    tool_linger_s: float = Field(
        1,
        ge=0,
        le=1,
        description="Longest time for which the slot waits for a client's next round after an interactive "
        "answer with tool calls, seconds; less where that round is known to come sooner, or never.",
    )
    idle_warm: bool = Field(
        True, description="Make the prefix that is most likely needed next ready while the slot is idle."
    )
    trace: Path | None = Field(
        None,
        description="File to which every decision is written as JSON, without any content; for reports.",
    )
