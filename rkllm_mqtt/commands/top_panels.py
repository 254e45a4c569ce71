"""The six panels of `top`'s screen; pure: a state goes in, a picture comes out."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rkllm_mqtt.commands.top_drawing import chart, counted, duration, moving_bar, one_line, plain
from rkllm_mqtt.commands.top_state import TopState, members, number

_STATE_COLOURS = {"idle": "green", "busy": "cyan", "paused": "yellow", "draining": "yellow"}
_HEALTH_COLOURS = {"healthy": "green", "degraded": "yellow", "unhealthy": "red"}
_CLASSES = (("interactive", "magenta"), ("normal", "cyan"), ("background", "blue"))
_TOTALS = (
    (
        "prompts",
        (
            ("done", "jobs_succeeded_total"),
            ("failed", "jobs_failed_total"),
            ("cancelled", "jobs_cancelled_total"),
            ("expired", "jobs_expired_total"),
            ("refused", "jobs_rejected_total"),
            ("gave way", "jobs_preempted_total"),
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


def slot_panel(state: TopState, now: float, width: int, rows: int) -> RenderableType:
    """Return the slot's state and the prompts that run in it."""
    word = plain(state.queue.get("state")) or "unknown"
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
            (plain(job.get("client")), "bold"),
            "  ",
            (plain(job.get("id")), "dim"),
            f"  {plain(job.get('priority'))}",
        )
        counted = (
            f"{tokens:,} tokens  {elapsed_s:.1f} s" if tokens else f"reading the prompt  {elapsed_s:.1f} s"
        )
        most = number(job.get("max_tokens"))
        share = min(1.0, tokens / most) if most else None
        work = Text(counted)
        if attempt > 1:
            work.append(f"  attempt {attempt}", "yellow")
        lines += [one_line(name), one_line(work), moving_bar(share, elapsed_s, width)]
    if not state.running():
        lines.append(Text("nothing runs", style="dim"))
    if rows >= 5:
        busy = number(state.stats.get("slot_busy_percent"))
        if busy is not None:
            lines.append(one_line(Text(f"busy {busy:.0f} % of the time{_reuse(state)}", style="dim")))
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
        total.append(f"   oldest {duration(oldest_s)}", "dim")
    if eta_s:
        total.append(f"   all done in {duration(eta_s)}", "dim")
    return Group(one_line(total), grid)


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
        seen = f", seen {duration(float(len(state.rates)))}" if width >= 50 else ""
        now.append(f"   highest {top:.1f}{seen}", "dim")
    return Group(grid, *(Text(line, style="cyan", no_wrap=True) for line in lines), one_line(now))


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
    text.append(f" up {duration(up_s)}" if up_s is not None else "")
    if restarts is not None:
        text.append(
            f", {restarts:.0f} restart{'' if restarts == 1 else 's'}", "yellow" if restarts else "dim"
        )
    return Group(*lines, one_line(text))


def totals_panel(state: TopState, width: int) -> RenderableType:
    """Return the counters since the daemon's start."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim")
    for label, counters in _TOTALS:
        values = [(word, number(state.stats.get(key, state.health.get(key)))) for word, key in counters]
        text = counted(values, width - 8)
        if text.plain:
            grid.add_row(label, text)
    return grid


def health_panel(state: TopState) -> RenderableType:
    """Return the verdict, and each reason with what to do."""
    word = plain(state.health.get("status")) or "unknown"
    lines = [Text(word, style=f"bold {_HEALTH_COLOURS.get(word, 'white')}")]
    reasons = state.health.get("reasons")
    for reason in reasons if isinstance(reasons, list) else []:
        facts = members(reason)
        lines.append(Text(f"• {plain(facts.get('message') or facts.get('code'))}"))
        if facts.get("hint"):
            lines.append(Text(f"  {plain(facts['hint'])}", style="dim"))
    if len(lines) == 1 and word == "healthy":
        lines.append(Text("nothing to do", style="dim"))
    return Group(*lines)


def _reuse(state: TopState) -> str:
    """Return how much of the prompts was not computed again, and what that has saved."""
    share, saved_s = (
        number(state.stats.get("prefix_hit_percent")),
        number(state.stats.get("prefix_saved_s_total")),
    )
    if share is None or not saved_s:
        return ""
    return f", {share:.0f} % of prompts reused: {duration(saved_s)} saved"


def _load_colour(percent: float) -> str:
    return "green" if percent < 50 else "cyan" if percent < 85 else "magenta"
