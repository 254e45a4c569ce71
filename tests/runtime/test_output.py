"""The promise of `runtime/output.py`: what the library prints is understood, and content is never logged."""

import pytest

from rkllm_mqtt.runtime.output import LibraryOutput

# The shape of a load as the runtime prints it.
LOAD = b"""I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3588
I rkllm: loading rkllm model from /models/qwen.rkllm
I rkllm: rkllm-toolkit version: 1.2.1, max_context_limit: 4096, npu_core_num: 3, target_platform: RK3588, \
model_dtype: W8A8
I rkllm: Enabled cpus: [4, 5, 6, 7]
"""


@pytest.fixture
def logged():
    return []


@pytest.fixture
def output(logged):
    return LibraryOutput(lambda level, line: logged.append((level, line)))


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_the_facts_of_a_load_are_learned_however_the_pipe_cuts_it(output, logged, size):
    for start in range(0, len(LOAD), size):
        output.feed(LOAD[start : start + size])
    assert output.facts == {
        "runtime": "1.2.3",
        "driver": "0.9.8",
        "platform": "RK3588",
        "toolkit": "1.2.1",
        "context_limit": "4096",
        "npu_cores": "3",
        "dtype": "W8A8",
    }
    assert {level for level, _ in logged} == {"info"}
    assert len(logged) == 4


def test_warnings_and_errors_are_kept_and_logged_at_their_level(output, logged):
    output.feed(b"W rkllm: the driver is old\nE rkllm: it failed\nE RKNN: failed to submit\n")
    assert list(output.warnings) == ["the driver is old"]
    assert list(output.errors) == ["it failed", "failed to submit"]
    assert logged == [
        ("warning", "the driver is old"),
        ("error", "it failed"),
        ("error", "failed to submit"),
    ]


def test_what_the_raw_template_makes_the_library_say_each_time_is_no_warning(output, logged):
    output.feed(b"W rkllm: Calling rkllm_set_chat_template will disable the internal automatic parsing\n")
    assert not output.warnings
    assert logged[0][0] == "info"


@pytest.mark.parametrize(
    "line",
    [
        b"Turn on the light in the bedroom\n",
        b"E: my password is 1234\n",
        b" E rkllm in the middle: secret\n"[1:],
        b"rkllm: secret\n",
        b"----------------------\n",
        b"\xff\xfe\x00\n",
    ],
)
def test_a_line_that_is_no_log_line_is_never_logged(output, logged, line):
    output.feed(line)
    assert logged == []
    assert not output.errors


@pytest.mark.parametrize(
    "line",
    [
        "/src/ggml.c:12: GGML_ASSERT(mask->ne[0] == a->ne[0]) failed",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "double free or corruption (!prev)",
    ],
)
def test_the_last_words_of_a_crash_are_an_error(output, line):
    output.feed(line.encode() + b"\n")
    assert output.why() == (line, "")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("max_context[8192] must be less than the model's max_context_limit[4096]", "context_tokens"),
        ("The number of enabled CPUs must be greater than or equal to the number of NPU cores.", "enabled_"),
        ("The n_batch must be between 1 and 100, but got 0", "n_batch"),
        ("failed to malloc npu memory, size: 233373696", "npu_domain"),
        ("failed to allocate handle, ret: -1, errno: 14, errstr: Bad address", "npu_domain"),
        ("matmul(w8a8) run failed", "driver"),
    ],
)
def test_an_error_that_a_person_can_mend_brings_its_hint(output, line, hint):
    output.feed(f"E rkllm: {line}\nE rkllm: Model failed to initialize\n".encode())
    said, what_to_do = output.why()
    assert said == line
    assert hint in what_to_do


def test_without_a_known_cause_the_last_error_is_told(output):
    assert output.why() == ("", "")
    output.feed(b"E rkllm: rkllm_init failed\n")
    assert output.why() == ("rkllm_init failed", "")
    output.feed(b"E rkllm: first\nE rkllm: last\nE rkllm: Model failed to initialize!\n")
    assert output.why() == ("last", "")


def test_only_the_newest_errors_are_kept(output):
    output.feed(b"".join(b"E rkllm: number %d\n" % number for number in range(100)))
    assert list(output.errors) == [f"number {number}" for number in range(92, 100)]


def test_endless_output_without_a_line_end_takes_no_memory(output, logged):
    for _ in range(100):
        output.feed(b"x" * 10_000)
    assert len(output._held) <= 4096
    output.feed(b"\nE rkllm: still listening\n")
    assert logged == [("error", "still listening")]
