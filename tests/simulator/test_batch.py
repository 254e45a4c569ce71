"""n_batch: exact arrays in and out, one shared step, columns that end at different times."""

import pytest


def column(run, index: int) -> list[dict]:
    return [event for event in run if event["event"] == "normal" and event["column"] == index]


def test_every_column_gets_its_own_answer(play) -> None:
    played = play("batch", 3, "run", "2+3|count to 9|say: green", version="1.3.0")
    assert [played.texts(i)[0] for i in range(3)] == ["2 + 3 = 5.", "1, 2, 3, 4, 5, 6, 7, 8, 9.", "green"]
    assert len(played.perfs()) == 1


def test_a_finished_column_has_a_negative_id_and_no_text(play) -> None:
    run = play("batch", 2, "run", "say: one|count to 9").runs()[0]
    short, long = column(run, 0), column(run, 1)
    assert len(short) == len(long)
    assert short[0]["id"] >= 0
    assert all(event["id"] < 0 and event["text"] is None for event in short[1:])
    assert all(event["id"] >= 0 for event in long[:-1])
    assert long[-1]["id"] < 0


def test_a_cut_character_is_a_result_without_text(play) -> None:
    played = play("batch", 2, "run", "say: \N{GRINNING FACE}|say: one two three")
    assert not played.of("waiting")
    assert played.texts(0) == ["\N{GRINNING FACE}"]
    assert [event["text"] is None for event in column(played.runs()[0], 0)[:3]] == [True, True, False]


def test_a_library_that_cannot_run_batches_dies_of_an_assertion_in_the_first(play) -> None:
    alone = play("run", "say: one", lines="batch: asserts")
    assert (alone.status, alone.texts(0)) == (0, ["one"])
    assert play("batch", 2, "run", "say: one|say: two", lines="batch: asserts").status == -6


def test_a_library_without_memory_for_a_batch_loads_for_one(play) -> None:
    assert play("run", "say: one", lines="batch: refuses").texts(0) == ["one"]
    played = play("batch", 2, "run", "say: one|say: two", lines="batch: refuses")
    assert played.of("init")[0]["status"] == -1
    assert "failed to malloc npu memory" in played.log


@pytest.mark.parametrize(("slope", "expected_ms"), [(0, 500), (0.5, 1000)])
def test_a_step_of_all_columns_costs_as_the_slope_says(play, slope: float, expected_ms: float) -> None:
    lines = f"decode_ms_per_token: 10\nbatch_slope: {slope}"
    words = ["batch", 3, "run", "story 50 tokens|story 50 tokens|story 50 tokens"]
    perf = play(*words, lines=lines, RKLLM_SIM_CLOCK="virtual").perfs()[0]
    assert perf["generate_ms"] == pytest.approx(expected_ms)
    assert perf["generate_tokens"] == 50


def test_each_column_has_its_own_kv_and_abort_ends_all(play) -> None:
    words = [
        "batch",
        2,
        "run",
        "hello|good day",
        "run",
        "hello|good day",
        "abort-after",
        2,
        "run",
        "count to 9|2+2",
    ]
    played = play(*words)
    assert [perf["prefill_tokens"] > 0 for perf in played.perfs()] == [True, False, True]
    assert len(column(played.runs()[2], 0)) == 2
    assert played.runs()[2][-1]["status"] == 0


def test_one_hundred_columns_are_the_limit(play) -> None:
    played = play("batch", 100, "run", "|".join(["2+2"] * 100))
    assert {played.texts(i)[0] for i in range(100)} == {"2 + 2 = 4."}
