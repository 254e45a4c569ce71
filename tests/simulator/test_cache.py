"""Prompt-cache files: real size, real speed, refused where they do not belong."""

import time

import pytest

PROMPT = "Here is a long text about a house and all the lamps in it. " * 3
FACTS = "layers: 2\nkv_bytes_per_token: 4096\njoins: stable\n"


def prefilled(played) -> list[int]:
    return [perf["prefill_tokens"] for perf in played.perfs()]


@pytest.fixture
def saved(play, tmp_path):
    """A cache file of the prompt's run, made by another process."""
    played = play("max", 1, "save", tmp_path / "cache.bin", "run", PROMPT, lines=FACTS)
    return tmp_path / "cache.bin", prefilled(played)[0]


def test_a_file_has_the_size_of_its_keys_and_values(saved) -> None:
    path, tokens = saved
    assert tokens * 4096 <= path.stat().st_size <= tokens * 4096 + 64
    assert path.stat().st_blocks * 512 >= tokens * 4096


def test_a_sparse_file_is_possible_only_by_the_switch(play, tmp_path) -> None:
    played = play("save", tmp_path / "sparse.bin", "run", PROMPT, lines=FACTS + "cache_file: sparse")
    assert played.status == 0
    status = (tmp_path / "sparse.bin").stat()
    assert status.st_size > 100_000
    assert status.st_blocks * 512 < status.st_size // 2


def test_a_loaded_file_spares_the_prefill_from_the_first_token(play, saved) -> None:
    path, tokens = saved
    played = play("load", path, "run", PROMPT, "run", "no match at all", lines=FACTS)
    assert played.of("load")[0]["status"] == 0
    assert prefilled(played)[0] == 0
    assert 0 < prefilled(played)[1] < tokens


def test_a_file_of_another_model_release_or_size_is_refused(play, saved, tmp_path) -> None:
    path, _ = saved
    other_model = play("load", path, lines=FACTS + "name: other")
    assert other_model.of("load")[0]["status"] == -1
    assert f"E rkllm: failed to load prompt cache file {path}" in other_model.log
    assert play("load", path, lines=FACTS, version="1.3.0").of("load")[0]["status"] == -1
    torn = tmp_path / "torn.bin"
    torn.write_bytes(path.read_bytes()[:-1000])
    assert play("load", torn, "load", tmp_path / "absent", lines=FACTS).of("load") == [
        {"event": "load", "status": -1},
        {"event": "load", "status": -1},
    ]


def test_one_file_at_a_time(play, saved) -> None:
    path, _ = saved
    played = play("load", path, "load", path, "release", "load", path, lines=FACTS)
    assert [event["status"] for event in played.of("load")] == [0, -1, 0]


def test_a_released_file_is_no_longer_matched(play, saved) -> None:
    path, tokens = saved
    assert prefilled(play("load", path, "release", "run", PROMPT, lines=FACTS)) == [tokens]


def test_what_a_loaded_file_does_to_the_kv_is_a_switch(play, saved) -> None:
    path, _ = saved
    words = ["run", "first of all", "load", path, "run", "first of all"]
    assert prefilled(play(*words, lines=FACTS + "cache_load_replaces: no"))[1] == 0
    assert prefilled(play(*words, lines=FACTS + "cache_load_replaces: yes"))[1] > 0


def test_whether_a_loaded_file_stays_matchable_is_a_switch(play, saved) -> None:
    path, tokens = saved
    words = ["load", path, "run", "first of all", "run", PROMPT]
    assert prefilled(play(*words, lines=FACTS))[1] == 0
    assert prefilled(play(*words, lines=FACTS + "cache_stays: no"))[1] > tokens // 2


def test_whether_an_aborted_run_writes_its_file_is_a_switch(play, tmp_path) -> None:
    for switch, written in (("no", False), ("yes", True)):
        path = tmp_path / f"{switch}.bin"
        lines = FACTS + f"aborted_run_saves: {switch}"
        play("save", path, "abort-after", 1, "run", "story 20 tokens", lines=lines)
        assert path.exists() is written


def test_an_empty_path_means_a_file_in_the_working_directory(play, tmp_path) -> None:
    play("max", 1, "save", "", "run", "hello", lines=FACTS)
    assert (tmp_path / "work" / "prompt_cache.bin").exists()


def test_saving_and_loading_take_the_time_of_the_medium(play, saved, tmp_path) -> None:
    path, tokens = saved
    megabytes = tokens * 4096 / 1e6
    lines = FACTS + f"cache_save_mb_s: {megabytes / 0.2}\ncache_load_mb_s: {megabytes / 0.1}"
    trace = tmp_path / "trace.jsonl"
    play("max", 1, "save", tmp_path / "slow.bin", "run", PROMPT, lines=lines, RKLLM_SIM_TRACE=trace)
    entry, end = (
        int(trace.read_text().split(f'"{key}_ns": ')[1].split(",")[0]) for key in ("entry", "return")
    )
    assert end - entry >= 0.2e9
    begin = time.monotonic()
    play("load", path, lines=lines)
    assert time.monotonic() - begin >= 0.1
