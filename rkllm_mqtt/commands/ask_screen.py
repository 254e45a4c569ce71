"""Show one answer on a terminal as it comes: a live line while nothing comes, then the text."""

import time
from collections.abc import Mapping
from typing import Any

from rkllm_mqtt.commands.client import Asking
from rkllm_mqtt.commands.client_exchange import Exchange, Piece, Stage, Step, Voided
from rkllm_mqtt.commands.terminal import Terminal

_PAUSE_S = 1.5
"""An answer that gave way for longer says so."""
_PHASES = {"load": "loading the model", "model_load": "loading the model", "prefill": "reading the prompt"}


class AskScreen:
    """What the person sees of one request. On a pipe only the text of the answer is written."""

    def __init__(self, terminal: Terminal, *, stream: bool) -> None:
        self._terminal = terminal
        self._stream = stream
        self._doing = (Stage.SENT, "")
        self._since = time.monotonic()
        self._kind = ""
        self._at_line_start = True
        self._broken = False  # its line was ended to say that another goes first
        self._held = ""  # trailing white space of thoughts, shown only if more thoughts follow

    def show(self, asking: Asking, step: Step | None) -> None:
        """Show a step; None moves the clock of the live line."""
        self._note_times(asking.exchange)
        if isinstance(step, Piece):
            self._append(step)
        elif isinstance(step, Voided) and self._stream:
            self._start_anew(step)
        elif self._kind and self._terminal.is_terminal:
            self._tell_pause(asking)
        elif asking.exchange.stage is not Stage.DONE:
            self._terminal.live(self.waiting_line(asking))

    def waiting_line(self, asking: Asking) -> str:
        """Return what is going on while there is no text."""
        exchange = asking.exchange
        elapsed_s = time.monotonic() - self._since
        if asking.broker_lost:
            return "the broker is away; connecting again …"
        if exchange.stage is Stage.SENT:
            if asking.daemon_online is False:
                return f"{exchange_wait(elapsed_s)}the daemon is offline; waiting for it (Ctrl-C gives up)"
            again = f", asked {asking.sent} times" if asking.sent > 1 else ""
            return f"no receipt yet after {elapsed_s:.0f} s{again}" if elapsed_s >= 1 else "sending …"
        if exchange.stage is Stage.WAITING:
            paused = ", the queue is paused" if asking.queue_state == "paused" else ""
            return waiting_text(exchange) + paused
        if exchange.stage is Stage.ANSWERING:
            return f"answering … {elapsed_s:.1f} s"
        what = _PHASES.get(exchange.phase, exchange.phase.replace("_", " ") or "reading the prompt")
        eta = f", about {exchange.eta_s:.0f} s more" if exchange.eta_s else ""
        return f"{what} {elapsed_s:.1f} s{eta}"

    def close(self, final: Mapping[str, Any]) -> None:
        """End the answer's line and, on a terminal, add the numbers."""
        self.end_line()
        if self._terminal.is_terminal and final.get("status") == "ok":
            self._terminal.write(numbers(final) + "\n", "dim")

    def end_line(self) -> None:
        """Go to the beginning of a line: a live line would wipe out the text before it."""
        self._terminal.clear_live()
        if not self._at_line_start:
            self._terminal.write("\n")
            self._at_line_start = True

    def _note_times(self, exchange: Exchange) -> None:
        doing = (exchange.stage, exchange.phase)
        if doing != self._doing:
            # The daemon says how long a phase lasts already; everything else begins now.
            already_s = exchange.phase_s if exchange.stage is Stage.RUNNING else 0.0
            self._doing, self._since = doing, time.monotonic() - already_s

    def _tell_pause(self, asking: Asking) -> None:
        """Say that the answer has given way to another; for a moment it is not worth breaking its line."""
        exchange = asking.exchange
        if exchange.stage is Stage.WAITING and time.monotonic() - self._since >= _PAUSE_S:
            self._broken = self._broken or not self._at_line_start
            self.end_line()
            self._terminal.live(f"another goes first; {waiting_text(exchange)}")
        elif exchange.stage is Stage.RUNNING and self._broken:
            self._terminal.live(self.waiting_line(asking))

    def _append(self, piece: Piece) -> None:
        if piece.kind == "thinking" and not self._terminal.is_terminal:
            return
        text = piece.text
        if piece.kind != self._kind:
            text = text.lstrip("\n")
            if self._kind == "thinking" and text:
                self._terminal.write("\n\n")
            if text:
                self._kind, self._held = piece.kind, ""
        if not text:
            return
        styles: tuple[str, ...] = ()
        if piece.kind == "thinking":
            text = self._held + text
            body = text.rstrip()
            text, self._held = body, text[len(body) :]
            styles = ("dim",)
        if self._broken:
            text, self._broken = text.lstrip(" "), False
        self._terminal.write(text, *styles)
        self._at_line_start = text.endswith("\n") if text else self._at_line_start

    def _start_anew(self, step: Voided) -> None:
        if not self._kind:
            return
        mark = "(restarted)" if step.restarted else "(corrected)"
        self.end_line()
        if self._terminal.is_terminal:
            self._terminal.write(mark + "\n", "yellow")
        self._kind, self._held, self._at_line_start = "", "", True


def exchange_wait(elapsed_s: float) -> str:
    """Return how long we wait already, once that is worth saying."""
    return f"{elapsed_s:.0f} s: " if elapsed_s >= 1 else ""


def waiting_text(exchange: Exchange) -> str:
    """Return `waiting: place 3 of 7, about 12 s`."""
    if exchange.position is None:
        return "waiting"
    length = exchange.queue_length
    # The length is of the moment of acceptance; a place beyond it would look wrong.
    of = f" of {length}" if length is not None and length >= exchange.position else ""
    eta = f", about {exchange.eta_s:.0f} s" if exchange.eta_s is not None and exchange.eta_s >= 0.5 else ""
    return f"waiting: place {exchange.position}{of}{eta}"


def numbers(final: Mapping[str, Any]) -> str:
    """Return the closing line: tokens, tokens/s, time to the first token, cached tokens."""
    usage, timing = final.get("usage"), final.get("timing")
    parts: list[str] = []
    if isinstance(usage, Mapping) and isinstance(usage.get("completion_tokens"), int):
        parts.append(f"{usage['completion_tokens']:,} tokens")
    if isinstance(timing, Mapping):
        if isinstance(timing.get("tokens_per_s"), int | float):
            parts.append(f"{timing['tokens_per_s']:.1f} tokens/s")
        if isinstance(timing.get("ttft_ms"), int | float):
            parts.append(f"first token {timing['ttft_ms'] / 1000:.2f} s")
    if isinstance(usage, Mapping) and isinstance(usage.get("prompt_tokens"), int):
        cached = usage.get("cached_tokens")
        parts.append(f"prompt {usage['prompt_tokens']:,} tokens, {cached or 0:,} cached")
    reason = final.get("finish_reason")
    if reason not in (None, "stop"):
        parts.append({"length": "cut at the token limit"}.get(str(reason), str(reason)))
    if final.get("truncated") is True:
        parts.append("truncated")
    if isinstance(final.get("model"), str) and final["model"]:
        parts.append(final["model"])
    return " · ".join(parts)
