"""What the library prints, in the formats of the real one."""

import re

import pytest


def lines_of(log: str) -> list[str]:
    return [line.rstrip() for line in log.splitlines()]


def test_init_prints_versions_model_and_cpus(play) -> None:
    played = play(
        lines="platform: RK3576\ndtype: W4A16_G128\nnpu_core_num: 2\nmax_context: 2048", version="1.2.3"
    )
    lines = lines_of(played.log)
    assert lines[0] == "I rkllm: rkllm-runtime version: 1.2.3, rknpu driver version: 0.9.8, platform: RK3576"
    assert re.fullmatch(r"I rkllm: loading rkllm model from /.*/test\.sim", lines[1])
    assert lines[2:] == [
        "I rkllm: rkllm-toolkit version: 1.2.3, max_context_limit: 2048, npu_core_num: 2, "
        "target_platform: RK3576, model_dtype: W4A16_G128",
        "I rkllm: Enabled cpus: [4, 5, 6, 7]",
        "I rkllm: Enabled cpus num: 4",
    ]


def test_releases_before_1_2_print_the_versions_only(play) -> None:
    played = play(version="1.1.4")
    assert lines_of(played.log) == [
        "I rkllm: rkllm-runtime version: 1.1.4, rknpu driver version: 0.9.8, platform: RK3588"
    ]


def test_an_old_driver_is_a_warning_and_init_goes_on(play) -> None:
    played = play("run", "hello", lines="driver_version: 0.8.2")
    expected = "W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7"
    assert expected in lines_of(played.log)
    assert played.of("init")[0]["status"] == 0


@pytest.mark.parametrize(
    ("version", "headings"),
    [("1.2.0", ["Stage", "Init", "Prefill", "Generate", "Memory Usage (GB)"]),
     ("1.3.1", ["Model init time (ms)", "Stage", "Prefill", "Generate", "Peak Memory Usage (GB)"])],
)  # fmt: skip
def test_log_level_1_prints_the_table_of_the_release(play, version: str, headings: list[str]) -> None:
    played = play("run", "hello", version=version, RKLLM_LOG_LEVEL=1)
    table = [line.removeprefix("I rkllm:").strip() for line in lines_of(played.log)]
    found = [next((h for h in headings if line.startswith(h)), None) for line in table]
    assert [h for h in found if h] == headings
    memory_gb = float(table[-2])
    assert memory_gb < 1
    prefill = next(line for line in table if line.startswith("Prefill"))
    assert re.fullmatch(r"Prefill\s+\d+\.\d\d\s+\d+\s+\d+\.\d\d\s+\d+\.\d\d", prefill)


def test_log_level_0_prints_nothing_about_a_run(play) -> None:
    assert "Prefill" not in play("run", "hello").log


@pytest.mark.parametrize(("version", "line"), [("1.2.3", "EOS token: "), ("1.3.0", "EOS token[0]: ")])
def test_log_level_2_names_the_eos_token(play, version: str, line: str) -> None:
    assert line in play(version=version, RKLLM_LOG_LEVEL=2).log


def test_setting_a_template_is_logged_with_its_warning(play) -> None:
    played = play("template", "SYS\n", "<u>", "</u>\n")
    assert lines_of(played.log)[-5:] == [
        "I rkllm: reset chat template:",
        "I rkllm: system_prompt: SYS\\n",
        "I rkllm: prompt_prefix: <u>",
        "I rkllm: prompt_postfix: </u>\\n",
        "W rkllm: Calling rkllm_set_chat_template will disable the internal automatic chat template parsing, "
        "including enable_thinking. Make sure your custom prompt is complete and valid.",
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["context", 8192], "max_context[8192] must be less than the model's max_context_limit[4096]"),
        (["context", 0], "max_context[0] must be positive"),
        (["cpus", 2], "The number of enabled CPUs must be greater than or equal to the number of NPU cores."),
        (["batch", 0], "The n_batch must be between 1 and 100, but got 0"),
        (["batch", 101], "The n_batch must be between 1 and 100, but got 101"),
    ],
)
def test_wrong_parameters_fail_init_with_their_line(play, words: list, line: str) -> None:
    played = play(*words)
    assert played.of("init") == [{"event": "init", "status": -1, "null": True}]
    assert lines_of(played.log)[-2:] == [f"E rkllm: {line}", "E rkllm: rkllm_init failed"]


def test_a_missing_model_file_fails_init(play, tmp_path) -> None:
    played = play(path=tmp_path / "absent.sim")
    assert played.of("init")[0]["status"] == -1
    assert "E rkllm: failed to open model file" in played.log


def test_absent_image_tags_kill_the_process_up_to_1_2_3(play) -> None:
    assert play("no-tags", version="1.2.3").status == -11
    assert play(version="1.2.3").status == 0
