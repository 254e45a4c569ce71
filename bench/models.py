"""The simulated models of the bench, and prompts whose answers are known beforehand.

`say: X` is answered with X, and `count to N` with the numbers up to N: so every answer can be checked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PREFILL_MS = 295.0
STEP_MS = 64.14
"""The pace at which other servers were measured: prefill whatever the prompt, then a step for each token."""

Writer = Callable[[Path], Path]
"""Writes a model into a folder and returns its file."""

_HEAD = "rkllm-simulator 1\nname: Bench\nmax_context: 16384\nvocab_size: 4096\n"
_CRASHES = 20


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, the answer to expect and how many steps it takes, the end-of-sequence step not counted."""

    prompt: str
    answer: str
    tokens: int


# Each of these words is one token of the simulator with the blank before it.
_WORDS = ("one", "two", "six", "ten", "sun", "sea", "sky", "oak", "elm", "fox")


def say(number: int, tokens: int = 5) -> Question:
    """Return a question with an answer of its own for each number below 10**tokens."""
    digits = [_WORDS[number // 10**place % 10] for place in reversed(range(tokens))]
    answer = " ".join(digits)
    return Question(f"say: {answer}", answer, tokens)


def count(last: int) -> Question:
    """Return a question with a long answer that never repeats itself; a digit, comma or blank is a token."""
    answer = ", ".join(map(str, range(1, last + 1))) + "."
    return Question(f"count to {last}", answer, len(answer))


def buried(number: int, words: int) -> Question:
    """Return a question behind a long text of its own, about 1.4 tokens a word."""
    text = " ".join(f"{_WORDS[(number + n) % 10]}-{n % 97}" for n in range(words // 2))
    asked = say(number, 3)
    return Question(f"{number}: {text}. {asked.prompt}", asked.answer, asked.tokens)


def slot_s(question: Question) -> float:
    """Return what a question takes at the pace of `origin`, seconds."""
    return (PREFILL_MS + question.tokens * STEP_MS) / 1000


def board(folder: Path) -> Path:
    """Write a model with the pace of Qwen2.5 1.5B on an RK3588."""
    return _write(
        folder / "board.sim", "profile: qwen2.5-1.5b\nmax_context: 16384\nthermal_after_s: 0\nload_ms: 0\n"
    )


def origin(folder: Path) -> Path:
    """Write a model with the pace of an RK3588; the library's RKLLM_SIM_SPEED divides its times."""
    return _write(folder / "origin.sim", f"floor_ms: {PREFILL_MS}\ndecode_ms_per_token: {STEP_MS}\n")


def instant(folder: Path) -> Path:
    """Write a model as fast as the machine."""
    return _write(folder / "instant.sim", "")


def brief(folder: Path) -> Path:
    """Write a model with 9 ms of slot time for an answer of 5 tokens."""
    return _write(folder / "brief.sim", "floor_ms: 4\ndecode_ms_per_token: 1\n")


BATCH_FLOOR_MS = 97.0
BATCH_PREFILL_MS = 3.92
BATCH_STEP_MS = 60.0


def batching(folder: Path, slope: float) -> Path:
    """Write a model with linear prefill whose steps cost so much more for each further column."""
    pace = f"floor_ms: {BATCH_FLOOR_MS:g}\nprefill_ms_per_token: {BATCH_PREFILL_MS:g}\n"
    pace += f"decode_ms_per_token: {BATCH_STEP_MS:g}\nbatch_slope: {slope:g}\n"
    return _write(folder / "batching.sim", pace)


def asserting(folder: Path) -> Path:
    """Write a model that ends the process in every batch; it loads in 400 ms."""
    pace = f"floor_ms: 20\ndecode_ms_per_token: 5\nload_ms: {LOAD_MS:g}\n"
    return _write(folder / "asserting.sim", f"{pace}batch: asserts\n")


HOME_FLOOR_MS = 97.0
HOME_PREFILL_MS = 3.92
HOME_STEP_MS = 60.0
"""Measured by others on an Orange Pi 5 Max with runtime 1.3.0."""


def home(folder: Path, *, reuse: bool) -> Path:
    """Write the model of a home, on a library that reuses a common beginning or does not."""
    pace = f"floor_ms: {HOME_FLOOR_MS:g}\nprefill_ms_per_token: {HOME_PREFILL_MS:g}\n"
    pace += f"decode_ms_per_token: {HOME_STEP_MS:g}\ncache_save_mb_s: 150\ncache_load_mb_s: 400\n"
    return _write(folder / "home.sim", f"{pace}reuse: {'yes' if reuse else 'no'}\n")


@dataclass(frozen=True, slots=True)
class Board:
    """A profile of the simulator, as its sources have it: milliseconds."""

    profile: str
    floor_ms: float
    prefill_ms: float
    squared_ms: float = 0.0

    def first_ms(self, computed: int, cached: int = 0) -> float:
        """Return the time to the first token."""
        whole = cached + computed
        return self.floor_ms + self.prefill_ms * computed + self.squared_ms * (whole**2 - cached**2)

    def write(self, folder: Path, *lines: str) -> Path:
        """Write a model with this profile; its files are as large as real ones, without the bytes."""
        keys = [f"profile: {self.profile}", "max_context: 16384", "thermal_after_s: 0", "load_ms: 0"]
        keys += ["cache_file: sparse", "thinking: no"]  # thoughts come before the first word
        text = "".join(f"{line}\n" for line in (*keys, *lines))
        return _write(folder / "profile.sim", text)


def of_table(profile: str, ttft_ms: float, tokens_per_s: float) -> Board:
    """Return a row of Rockchip's table, with the shape that the simulator gives to longer prompts."""
    floor_ms, bend = 1250 / tokens_per_s, 0.5 / 4096
    prefill_ms = (ttft_ms - floor_ms) / (128 + bend * 128**2)
    return Board(profile, floor_ms, prefill_ms, prefill_ms * bend)


CACHED_PREFIX = Board("cached-prefix", 97.0, 3.92)
BOARDS = (
    of_table("qwen2-0.5b", 145.90, 41.58),
    of_table("qwen2.5-1.5b", 378.31, 16.69),
    of_table("qwen3-0.6b", 199.09, 32.91),
)

CRASH_TOKENS = 3
LOAD_MS = 400.0


def crashing(folder: Path) -> Path:
    """Write a model that dies of SIGSEGV in the answer to `crash(N)`, once for each N; it loads in 400 ms."""
    rules = (
        f'when "run {number:02}": reply "{crash(number).answer}", '
        f"fault segv after {CRASH_TOKENS} tokens first 1 times\n"
        for number in range(_CRASHES)
    )
    pace = f"floor_ms: 20\ndecode_ms_per_token: 5\nload_ms: {LOAD_MS:g}\n"
    return _write(folder / "crashing.sim", pace + "fault_state: strikes\n" + "".join(rules))


def crash(number: int) -> Question:
    """Return a question that kills the library the first time; number 0 to 19."""
    if not 0 <= number < _CRASHES:
        raise ValueError(f"there are {_CRASHES} crashes")
    answer = say(number, 6).answer
    return Question(f"crash of run {number:02}", answer, 6)


def _write(path: Path, lines: str) -> Path:
    path.write_text(_HEAD + lines)
    return path
