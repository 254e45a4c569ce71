"""Build the policy that the configuration asks for, and write down its decisions where that is wanted."""

from pathlib import Path

from msgspec.structs import replace

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.policy import Policy, Rules
from rkllm_mqtt.core.queue import WaitingJobs
from rkllm_mqtt.core.trace import recorder
from rkllm_mqtt.logs import get_logger

log = get_logger(__name__)

_TRACE_BYTES = 64 * 1024 * 1024


def build_policy(config: Config) -> Policy:
    """Return the policy that the configuration asks for; where it is asked to, it writes a trace."""
    wanted = config.policy
    shares = (0.0, wanted.normal_share, wanted.background_share)
    rules = Rules(window_s=wanted.window_s, shares=shares, hold_share=wanted.hold_share)
    if not wanted.prefix_affinity:
        rules = replace(rules, passes=0)
    policy = Policy(rules, WaitingJobs(config.limits.client_states))
    if wanted.trace is not None:
        policy.note = recorder(_TraceFile(wanted.trace).write)
    return policy


class _TraceFile:
    """Takes lines up to a bound; what is beyond it, or cannot be written, is not worth a failure."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mode = "w"
        self._left = _TRACE_BYTES

    def write(self, line: str) -> None:
        """Append a line; the first one begins the file anew."""
        self._left -= len(line) + 1
        if self._left < 0:
            return
        try:
            with self._path.open(self._mode, encoding="utf-8") as file:
                file.write(line + "\n")
            self._mode = "a"
        except OSError as exc:
            self._left = 0
            log.warning("trace_failed", path=str(self._path), reason=str(exc))
