"""Bytes of the answer: characters cut over tokens, the end of text, special tokens, token ids."""

FACE = "\N{GRINNING FACE}"


def test_a_character_cut_over_tokens_waits_and_arrives_whole(play) -> None:
    run = play("run", f"say: a{FACE}b").runs()[0]
    states = [(e["event"], e["text"] and bytes.fromhex(e["text"]).decode()) for e in run if "text" in e]
    assert states == [
        ("normal", "a"),
        ("waiting", None),
        ("waiting", None),
        ("normal", FACE),
        ("normal", "b"),
        ("normal", None),
    ]


def test_raw_splitting_gives_broken_bytes_that_join_to_the_text(play) -> None:
    run = play("run", f"say: {FACE}", lines="split_utf8: raw").runs()[0]
    pieces = [e["text"] for e in run if e["event"] == "normal" and e["text"]]
    assert len(pieces) == 3
    assert bytes.fromhex("".join(pieces)).decode() == FACE
    assert not any(e["event"] == "waiting" for e in run)


def test_every_text_comes_back_byte_for_byte(play) -> None:
    text = f"Größe 12,5 €  — naïve “quotes” 日本語 Ελλάδα {FACE}\N{FAMILY}\n\n  x=[1, 2]; \\n\t<b>ok</b>"
    assert play("run", f"say: {text}").texts() == [text]


def test_the_end_of_text_is_a_normal_step_without_text(play) -> None:
    last = [e for e in play("run", "hello").runs()[0] if e["event"] == "normal"][-1]
    assert last["text"] is None
    assert last["id"] > 0


def test_the_end_of_text_shows_only_when_the_model_and_the_caller_want_it(play) -> None:
    def ending(*words, lines):
        return play(*words, "run", "hello", lines=lines).texts()[0].endswith("<|im_end|>")

    assert ending("special", 1, lines="eos_text: text")
    assert not ending("special", 0, lines="eos_text: text")
    assert not ending("special", 1, lines="eos_text: null")


def test_special_tokens_inside_an_answer_are_left_out_on_demand(play) -> None:
    lines = 'always: reply "a<|im_start|>b<tool_call>c"'
    assert play("special", 1, "run", "x", lines=lines).texts() == ["a<|im_start|>b<tool_call>c"]
    assert play("special", 0, "run", "x", lines=lines).texts() == ["ab<tool_call>c"]


def test_generation_goes_on_after_the_end_when_the_eos_token_is_ignored(play) -> None:
    run = play("ignore-eos", "max", 30, "run", "say: one two", version="1.3.0").runs()[0]
    normal = [e for e in run if e["event"] == "normal"]
    assert len(normal) == 30
    assert sum(1 for e in normal if e["text"] is None) > 5


def test_max_new_tokens_ends_a_run_at_init_and_per_run(play) -> None:
    played = play("max", 5, "run", "story 50 tokens", "run-max", 3, "run", "story 50 tokens")
    assert [len([e for e in run if e["event"] == "normal"]) for run in played.runs()] == [5, 3]
    assert [perf["generate_tokens"] for perf in played.perfs()] == [4, 2]
    assert played.of("run") == [{"event": "run", "status": 0}] * 2


def test_token_ids_are_the_same_in_every_process_and_can_be_given_back(play) -> None:
    first, again = (play("run", "say: good morning Anna") for _ in range(2))
    ids = [e["id"] for e in first.runs()[0] if e["event"] == "normal" and e["text"]]
    assert ids == [e["id"] for e in again.runs()[0] if e["event"] == "normal" and e["text"]]
    back = play("run", "say: good morning Anna", "ids", ",".join(map(str, ids)))
    assert back.texts()[1] == "You said: good morning Anna"


def test_ids_nobody_has_seen_are_counted(play) -> None:
    assert play("ids", "5,6,7").texts() == ["You sent 3 tokens."]


def test_userdata_of_a_run_replaces_that_of_init_since_1_3(play) -> None:
    new = play("run", "hello", "run-as", 42, "hello")
    assert [{e["user"] for e in run if "user" in e} for run in new.runs()] == [{7}, {42}]
    old = play("run", "hello", "run-as", 42, "hello", version="1.1.4")
    assert [{e["user"] for e in run if "user" in e} for run in old.runs()] == [{0}, {42}]


def test_every_release_answers(play) -> None:
    for version in ("1.1.0", "1.2.0", "1.2.1b1", "1.2.1", "1.3.0", "1.3.1"):
        played = play("run", "what is 2+3", version=version)
        assert played.texts() == ["2 + 3 = 5."]
        assert played.status == 0
