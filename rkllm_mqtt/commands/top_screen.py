"""Draw the screen of `top`; pure: a state goes in, a picture comes out."""

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rkllm_mqtt.commands.top_drawing import duration, plain
from rkllm_mqtt.commands.top_panels import (
    health_panel,
    npu_panel,
    slot_panel,
    speed_panel,
    totals_panel,
    waiting_panel,
)
from rkllm_mqtt.commands.top_state import TopState, members, number

SMALLEST = (60, 20)

"""Columns and rows below which only a sentence is shown."""


def screen(state: TopState, now: float, width: int, height: int) -> RenderableType:
    """Return the whole screen for a terminal of that size, in characters."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return Text(f"{state.node}: {state.status or 'unknown'}. The window is too small to show more.")
    spare = max(0, height - 24)
    slot_rows = 6 + min(spare // 4, 1 + 3 * max(0, len(state.running()) - 1))
    speed_rows = 7 + min(spare // 2, 9)
    layout = Layout()
    rows = [Layout(header(state, now, width), size=2)]
    trouble = alarm(state, now)
    if trouble is not None:
        rows.append(Layout(trouble, size=3))
        speed_rows = max(5, speed_rows - 3)
    slot, waiting, speed, npu, totals, health = (Layout() for _ in range(6))
    left = width // 2 + width % 2
    slot.update(_panel("slot", slot_panel(state, now, left - 4, slot_rows - 2)))
    waiting.update(_panel("waiting", waiting_panel(state, width - left - 4)))
    speed.update(_panel("speed", speed_panel(state, left - 4, speed_rows - 2)))
    npu.update(_panel("NPU", npu_panel(state, width - left - 4)))
    totals.update(_panel("since start", totals_panel(state, left - 4)))
    health.update(_panel("health", health_panel(state)))
    for size, pair in ((slot_rows, (slot, waiting)), (speed_rows, (speed, npu)), (None, (totals, health))):
        row = Layout(size=size)
        row.split_row(*pair)
        rows.append(row)
    rows.append(Layout(Text(" q quit", style="dim"), size=1))
    layout.split_column(*rows)
    return layout


def header(state: TopState, now: float, width: int) -> RenderableType:
    """Return two lines: who and where; what it runs on."""
    runtime = members(state.info.get("runtime"))
    first = Text.assemble(
        (" rkllm-mqtt " if width >= 72 else " ", "bold"),
        (plain(state.node), "bold cyan"),
        "  ",
        _availability(state, now),
    )
    if runtime.get("simulated") is True:
        first.append("  ")
        first.append(" SIMULATED ", "black on yellow")
    where = Text(f"{plain(state.broker)} · MQTT {state.protocol} ", style="dim", justify="right")
    facts = [
        ("", _model(state)),
        ("runtime ", runtime.get("version")),
        ("driver ", runtime.get("driver")),
        ("", runtime.get("platform")),
        ("up ", duration(number(state.stats.get("uptime_s")))),
        ("version ", state.info.get("version")),
    ]
    second = " · ".join(f"{name}{plain(value)}" for name, value in facts if value)
    top = Table.grid(expand=True)
    top.add_column(ratio=1, no_wrap=True)
    top.add_column(justify="right", no_wrap=True)
    top.add_row(first, where)
    return Group(top, Text(f" {second}", style="dim", no_wrap=True, overflow="ellipsis"))


def alarm(state: TopState, now: float) -> RenderableType | None:
    """Return what the person must know before believing the rest; None when all is well."""
    if state.broker_lost is not None:
        text = f"The broker is away ({plain(state.broker_lost)}). What you see is old."
    elif not state.status:
        text = f"No daemon has shown itself as {state.base}/{plain(state.node)} at this broker."
    elif not state.is_online:
        text = "The daemon is offline. What you see is what it said last."
    elif state.is_stale(now):
        text = "Its status is online, but it has been silent for 90 s: it probably died."
    else:
        return None
    return Panel(Text(text, style="bold red", no_wrap=True, overflow="ellipsis"), border_style="red")


def _availability(state: TopState, now: float) -> Text:
    if state.broker_lost is not None:
        return Text("● broker away", style="red")
    if not state.is_online:
        return Text(f"● {plain(state.status) or 'unknown'}", style="red")
    if state.is_stale(now):
        return Text("● stale", style="yellow")
    return Text("● online", style="green")


def _model(state: TopState) -> str:
    models = state.info.get("models")
    found = [members(model) for model in models] if isinstance(models, list) else []
    chosen = next((model for model in found if model.get("loaded") is True), found[0] if found else {})
    if not chosen.get("id"):
        return ""
    text = plain(chosen["id"])
    if chosen.get("loaded") is False:
        text += " (not loaded)"
    context = number(chosen.get("context_tokens"))
    return f"{text}, {context:,.0f} tokens" if context else text


def _panel(title: str, content: RenderableType) -> RenderableType:
    return Panel(content, title=f"[dim]{title}[/dim]", title_align="left", border_style="bright_black")
