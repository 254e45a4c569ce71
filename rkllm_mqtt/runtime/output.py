"""Read what the native library prints: versions, limits, warnings, and why something failed.

Source: log lines of librkllmrt 1.1 to 1.3 on stdout: `I rkllm: ...`, `W rkllm: ...`, `E RKNN: ...`.
A line that is not known to be a log line is never logged: it may hold a part of a prompt.
"""

import re
from collections import deque
from collections.abc import Callable

from msgspec import Struct, field

_LINE = re.compile(r"^([IWE]) (rkllm|RKNN):\s*(.*)$")
# We set the raw template on purpose, and this is what the library says to it each time.
_EXPECTED = re.compile(r"Calling rkllm_set_chat_template will disable")
_CRASH = re.compile(r"GGML_ASSERT|Assertion|terminate called|double free|corrupted|Segmentation")
# Comes after the line with the cause.
_TELLS_NOTHING = re.compile(r"^(rkllm_\w+ failed|Model failed to initialize)\W*$", re.IGNORECASE)
_FACTS = {
    "runtime": re.compile(r"rkllm-runtime version:\s*([^\s,]+)"),
    "driver": re.compile(r"rknpu driver version:\s*([^\s,]+)"),
    "platform": re.compile(r"(?<!target_)platform:\s*([^\s,]+)"),
    "toolkit": re.compile(r"rkllm-toolkit version:\s*([^\s,]+)"),
    "context_limit": re.compile(r"max_context_limit:\s*(\d+)"),
    "npu_cores": re.compile(r"npu_core_num:\s*(\d+)"),
    "dtype": re.compile(r"model_dtype:\s*([^\s,]+)"),
}
_HINTS = (
    (
        re.compile(r"max_context\[\d+\] must be less"),
        "Lower `context_tokens` of the model to the limit it names.",
    ),
    (re.compile(r"number of enabled CPUs"), "Raise `runtime.enabled_cpus` to the number of NPU cores."),
    (re.compile(r"n_batch must be between"), "Set `n_batch` between 1 and 8."),
    (
        re.compile(r"malloc npu memory|allocate IOVA|allocate handle"),
        "The NPU's memory is full: end its other users, or set `runtime.npu_domain` to another number.",
    ),
    (re.compile(r"driver version is too low"), "Upgrade the kernel of the board: the driver must be 0.9.8."),
    (re.compile(r"matmul\(.*\) run failed"), "The NPU driver is too old for this runtime."),
)
_MAX_LINE = 4096


class LibraryOutput(Struct):
    """The output of one worker process."""

    log: Callable[[str, str], None]
    """Takes a level (`info`, `warning`, `error`) and a line that is safe to show."""
    facts: dict[str, str] = field(default_factory=dict)
    """What the lines said, by the names in _FACTS."""
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    """The newest error lines."""
    warnings: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    _held: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        *lines, rest = (self._held + data).split(b"\n")
        self._held = rest[:_MAX_LINE]
        for line in lines:
            self._read(line[:_MAX_LINE].decode("utf-8", "replace").strip())

    def why(self) -> tuple[str, str]:
        """Return the last error line that tells a cause, and what to do about it; two empties if none."""
        for line in reversed(self.errors):
            for pattern, hint in _HINTS:
                if pattern.search(line):
                    return line, hint
        telling = [line for line in self.errors if not _TELLS_NOTHING.search(line)] or list(self.errors)
        return (telling[-1], "") if telling else ("", "")

    def _read(self, line: str) -> None:
        for name, pattern in _FACTS.items():
            found = pattern.search(line)
            if found:
                self.facts[name] = found[1]
        known = _LINE.match(line)
        if (known and known[1] == "I") or (known and _EXPECTED.match(known[3])):
            self.log("info", known[3])
        elif known and known[1] == "W":
            self.warnings.append(known[3])
            self.log("warning", known[3])
        elif known or _CRASH.search(line):
            text = known[3] if known else line
            self.errors.append(text)
            self.log("error", text)
