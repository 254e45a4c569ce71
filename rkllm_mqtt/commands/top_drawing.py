"""Small pieces of `top`'s screen: charts, bars, counters and durations as text."""

from collections.abc import Iterable, Sequence

from rich.text import Text

from rkllm_mqtt.commands.terminal import harmless

_BLOCKS = " ▁▂▃▄▅▆▇█"
_QUIET_AT_ZERO = frozenset(
    {"cancelled", "expired", "refused", "gave way", "retried", "redelivered", "cached", "answers unsent"}
)
_BAD = frozenset({"failed", "answers unsent"})


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
    # There and back, one way in about three seconds.
    phase = elapsed_s / 3 % 2
    start = round((phase if phase <= 1 else 2 - phase) * (cells - light))
    return Text.assemble(
        ("━" * start, "bright_black"), ("━" * light, "cyan"), ("━" * (cells - light - start), "bright_black")
    )


def counted(parts: Iterable[tuple[str, float | None]], width: int) -> Text:
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


def duration(seconds: float | None) -> str:
    """Return `45 s`, `12 min`, `3 h 5 min` or `4 days`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def one_line(text: Text) -> Text:
    """Return the text, set to be cut with an ellipsis instead of wrapped."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def plain(value: object) -> str:
    """Return a value from elsewhere as one harmless line; empty for None."""
    return harmless("" if value is None else str(value)).replace("\n", " ")[:200]
