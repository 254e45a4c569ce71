"""Draw the screen of `top`; pure: a state goes in, a picture comes out."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rkllm_mqtt.commands.terminal import harmless
from rkllm_mqtt.commands.top_state import TopState, members, number

SMALLEST = (60, 20)
_BLOCKS = " ▁▂▃▄▅▆▇█"
_STATE_COLOURS = {"idle": "green", "busy": "cyan", "paused": "yellow", "draining": "yellow"}
_HEALTH_COLOURS = {"healthy": "green", "degraded": "yellow", "unhealthy": "red"}
_CLASSES = (("interactive", "magenta"), ("normal", "cyan"), ("background", "blue"))


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
        (_plain(state.node), "bold cyan"),
        "  ",
        _availability(state, now),
    )
    if runtime.get("simulated") is True:
        first.append("  ")
        first.append(" SIMULATED ", "black on yellow")
    where = Text(f"{_plain(state.broker)} · MQTT {state.protocol} ", style="dim", justify="right")
    facts = [
        ("", _model(state)),
        ("runtime ", runtime.get("version")),
        ("driver ", runtime.get("driver")),
        ("", runtime.get("platform")),
        ("up ", _duration(number(state.stats.get("uptime_s")))),
        ("version ", state.info.get("version")),
    ]
    second = " · ".join(f"{name}{_plain(value)}" for name, value in facts if value)
    top = Table.grid(expand=True)
    top.add_column(ratio=1, no_wrap=True)
    top.add_column(justify="right", no_wrap=True)
    top.add_row(first, where)
    return Group(top, Text(f" {second}", style="dim", no_wrap=True, overflow="ellipsis"))


def alarm(state: TopState, now: float) -> RenderableType | None:
    """Return what the person must know before believing the rest; None when all is well."""
    if state.broker_lost is not None:
        text = f"The broker is away ({_plain(state.broker_lost)}). What you see is old."
    elif not state.status:
        text = f"No daemon has shown itself as {state.base}/{_plain(state.node)} at this broker."
    elif not state.is_online:
        text = "The daemon is offline. What you see is what it said last."
    elif state.is_stale(now):
        text = "Its status is online, but it has been silent for 90 s: it probably died."
    else:
        return None
    return Panel(Text(text, style="bold red", no_wrap=True, overflow="ellipsis"), border_style="red")


def slot_panel(state: TopState, now: float, width: int, rows: int) -> RenderableType:
    """Return the slot's state and the prompts that run in it."""
    word = _plain(state.queue.get("state")) or "unknown"
    first = Text(word, style=f"bold {_STATE_COLOURS.get(word, 'white')}")
    if state.queue.get("accepting") is False:
        first.append("  takes no new prompts", "yellow")
    lines: list[RenderableType] = [first]
    for job in state.running()[: max(1, rows // 3)]:
        tokens = int(number(job.get("tokens")) or 0)
        alive = state.is_online and state.broker_lost is None
        elapsed_s = (number(job.get("elapsed_s")) or 0.0) + (
            max(0.0, now - state.queue_came) if alive else 0.0
        )
        attempt = int(number(job.get("attempt")) or 1)
        name = Text.assemble(
            (_plain(job.get("client")), "bold"),
            "  ",
            (_plain(job.get("id")), "dim"),
            f"  {_plain(job.get('priority'))}",
        )
        counted = (
            f"{tokens:,} tokens  {elapsed_s:.1f} s" if tokens else f"reading the prompt  {elapsed_s:.1f} s"
        )
        most = number(job.get("max_tokens"))
        share = min(1.0, tokens / most) if most else None
        work = Text(counted)
        if attempt > 1:
            work.append(f"  attempt {attempt}", "yellow")
        lines += [_line(name), _line(work), moving_bar(share, elapsed_s, width)]
    if not state.running():
        lines.append(Text("nothing runs", style="dim"))
    if rows >= 5:
        busy = number(state.stats.get("slot_busy_percent"))
        if busy is not None:
            lines.append(Text(f"busy {busy:.0f} % of the time", style="dim"))
    return Group(*lines)


def waiting_panel(state: TopState, width: int) -> RenderableType:
    """Return how many prompts wait, by class."""
    length, limit = number(state.queue.get("length")), number(state.queue.get("limit"))
    by_class = members(state.queue.get("waiting_by_priority"))
    most = max((number(by_class.get(name)) or 0.0 for name, _ in _CLASSES), default=0.0)
    grid = Table.grid(padding=(0, 1))
    for name, colour in _CLASSES:
        count = number(by_class.get(name)) or 0.0
        cells = round(count / most * max(1, width - 20)) if most else 0
        grid.add_row(
            Text(name), Text(f"{count:,.0f}", justify="right"), Text("█" * max(cells, int(count > 0)), colour)
        )
    total = Text(f"{length or 0:,.0f}", style="bold")
    if limit is not None and width >= 50:
        total.append(f" of {limit:,.0f}", "dim")
    oldest_s, eta_s = number(state.queue.get("oldest_wait_s")), number(state.queue.get("eta_s"))
    if length and oldest_s is not None:
        total.append(f"   oldest {_duration(oldest_s)}", "dim")
    if eta_s:
        total.append(f"   all done in {_duration(eta_s)}", "dim")
    return Group(_line(total), grid)


def speed_panel(state: TopState, width: int, rows: int) -> RenderableType:
    """Return tokens/s and time to the first token, and the history of the last minutes."""
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in range(4):
        grid.add_column(justify="right", ratio=1)
    grid.columns[0].justify = "left"
    grid.columns[0].ratio = None
    grid.add_row(*(Text(word, style="dim") for word in ("", "last", "p50", "p95")))
    for name, key, scale, digits in (
        ("tokens/s", "tokens_per_s", 1, 1),
        ("first token s", "ttft_ms", 1000, 2),
    ):
        values = (number(state.stats.get(f"{key}_{column}")) for column in ("last", "p50", "p95"))
        grid.add_row(name, *("–" if value is None else f"{value / scale:,.{digits}f}" for value in values))
    top = max(state.rates, default=0.0)
    lines = chart(list(state.rates), width, max(1, rows - 4), top)
    now = Text(f"now {state.rate:.1f} tokens/s", style="bold cyan")
    if state.rates:
        seen = f", seen {_duration(float(len(state.rates)))}" if width >= 50 else ""
        now.append(f"   highest {top:.1f}{seen}", "dim")
    return Group(grid, *(Text(line, style="cyan", no_wrap=True) for line in lines), _line(now))


def npu_panel(state: TopState, width: int) -> RenderableType:
    """Return load, frequency and temperature."""
    npu = members(state.health.get("npu"))
    load = npu.get("load_percent")
    lines: list[RenderableType] = []
    for core, value in enumerate(load if isinstance(load, list) else []):
        percent = min(100.0, max(0.0, number(value) or 0.0))
        cells = max(4, width - 14)
        filled = round(percent / 100 * cells)
        lines.append(
            Text.assemble(
                f"core {core} ",
                ("█" * filled, _load_colour(percent)),
                ("░" * (cells - filled), "dim"),
                f" {percent:3.0f} %",
            )
        )
    frequency, celsius = number(npu.get("frequency_mhz")), number(npu.get("celsius"))
    clock = Text(f"{frequency:,.0f} MHz" if frequency is not None else "")
    if celsius is not None:
        clock.append("   " if frequency is not None else "")
        clock.append(f"{celsius:.0f} °C", "red" if celsius >= 85 else "yellow" if celsius >= 75 else "green")
    if clock.plain:
        lines.append(clock)
    if not lines:
        simulated = members(state.info.get("runtime")).get("simulated") is True
        lines.append(Text("no readings: simulated" if simulated else "no readings", style="dim"))
    worker = members(state.health.get("worker"))
    restarts, up_s = number(worker.get("restarts")), number(worker.get("uptime_s"))
    text = Text("worker", style="dim")
    text.append(f" up {_duration(up_s)}" if up_s is not None else "")
    if restarts is not None:
        text.append(
            f", {restarts:.0f} restart{'' if restarts == 1 else 's'}", "yellow" if restarts else "dim"
        )
    return Group(*lines, _line(text))


def totals_panel(state: TopState, width: int) -> RenderableType:
    """Return the counters since the daemon's start."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim")
    for label, counters in _TOTALS:
        values = [(word, number(state.stats.get(key, state.health.get(key)))) for word, key in counters]
        text = _counted(values, width - 8)
        if text.plain:
            grid.add_row(label, text)
    return grid


def health_panel(state: TopState) -> RenderableType:
    """Return the verdict, and each reason with what to do."""
    word = _plain(state.health.get("status")) or "unknown"
    lines = [Text(word, style=f"bold {_HEALTH_COLOURS.get(word, 'white')}")]
    reasons = state.health.get("reasons")
    for reason in reasons if isinstance(reasons, list) else []:
        facts = members(reason)
        lines.append(Text(f"• {_plain(facts.get('message') or facts.get('code'))}"))
        if facts.get("hint"):
            lines.append(Text(f"  {_plain(facts['hint'])}", style="dim"))
    if len(lines) == 1 and word == "healthy":
        lines.append(Text("nothing to do", style="dim"))
    return Group(*lines)


def chart(values: Sequence[float], width: int, rows: int, top: float) -> list[str]:
    """Return `rows` lines of block characters, the newest value at the right edge.

    Args:
        values: Oldest first; only the last `width` are shown.
        width: Columns.
        rows: Lines; each shows eight levels.
        top: The value that fills all rows.
    """
    shown = list(values)[-width:]
    levels = [round(min(value, top) / top * rows * 8) if top > 0 else 0 for value in shown]
    # A value that is not zero stays visible, however small beside the highest.
    levels = [max(level, 1) if value > 0 else level for level, value in zip(levels, shown, strict=True)]
    lines = []
    for row in reversed(range(rows)):
        cells = "".join(_BLOCKS[min(8, max(0, level - row * 8))] for level in levels)
        lines.append(cells.rjust(width))
    return lines


def moving_bar(share: float | None, elapsed_s: float, width: int) -> Text:
    """Return a bar filled to `share`, or one with a moving light when the end is not known."""
    cells = max(4, min(width, 60))
    if share is not None:
        filled = round(share * cells)
        return Text.assemble(("━" * filled, "cyan"), ("━" * (cells - filled), "bright_black"))
    light = max(2, cells // 5)
    # To and fro, one way in about three seconds.
    phase = elapsed_s / 3 % 2
    start = round((phase if phase <= 1 else 2 - phase) * (cells - light))
    return Text.assemble(
        ("━" * start, "bright_black"), ("━" * light, "cyan"), ("━" * (cells - light - start), "bright_black")
    )


_TOTALS = (
    (
        "prompts",
        (
            ("done", "jobs_succeeded_total"),
            ("failed", "jobs_failed_total"),
            ("cancelled", "jobs_cancelled_total"),
            ("expired", "jobs_expired_total"),
            ("refused", "jobs_rejected_total"),
            ("retried", "jobs_retried_total"),
            ("redelivered", "jobs_redelivered_total"),
        ),
    ),
    (
        "tokens",
        (
            ("made", "tokens_generated_total"),
            ("read", "tokens_prompt_total"),
            ("cached", "tokens_cached_total"),
        ),
    ),
    ("memory", (("MB daemon", "rss_mb"), ("MB worker", "worker_rss_mb"))),
    (
        "disk",
        (
            ("MB free", "disk_free_mb"),
            ("ms a commit", "journal_commit_ms_last"),
            ("answers unsent", "outbox_pending"),
        ),
    ),
)
_QUIET_AT_ZERO = frozenset(
    {"cancelled", "expired", "refused", "retried", "redelivered", "cached", "answers unsent"}
)
_BAD = frozenset({"failed", "answers unsent"})


def _counted(parts: Iterable[tuple[str, float | None]], width: int) -> Text:
    """Return `12 done · 3 failed`, broken into lines only between two counters."""
    text, used = Text(), 0
    for word, value in parts:
        if value is None or (value == 0 and word in _QUIET_AT_ZERO):
            continue
        shown = f"{value:,.2f}" if word.startswith("ms") else f"{value:,.0f}"
        size = len(shown) + 1 + len(word)
        if used:
            fits = used + 3 + size <= width
            text.append(" · " if fits else "\n", "dim")
            used = used + 3 if fits else 0
        text.append(shown, "bold red" if word in _BAD and value > 0 else "bold")
        text.append(f" {word}")
        used += size
    return text


def _availability(state: TopState, now: float) -> Text:
    if state.broker_lost is not None:
        return Text("● broker away", style="red")
    if not state.is_online:
        return Text(f"● {_plain(state.status) or 'unknown'}", style="red")
    if state.is_stale(now):
        return Text("● stale", style="yellow")
    return Text("● online", style="green")


def _model(state: TopState) -> str:
    models = state.info.get("models")
    found = [members(model) for model in models] if isinstance(models, list) else []
    chosen = next((model for model in found if model.get("loaded") is True), found[0] if found else {})
    if not chosen.get("id"):
        return ""
    text = _plain(chosen["id"])
    if chosen.get("loaded") is False:
        text += " (not loaded)"
    context = number(chosen.get("context_tokens"))
    return f"{text}, {context:,.0f} tokens" if context else text


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def _load_colour(percent: float) -> str:
    return "green" if percent < 50 else "cyan" if percent < 85 else "magenta"


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _panel(title: str, content: RenderableType) -> RenderableType:
    return Panel(content, title=f"[dim]{title}[/dim]", title_align="left", border_style="bright_black")


def _plain(value: Any) -> str:
    return harmless("" if value is None else str(value)).replace("\n", " ")[:200]
