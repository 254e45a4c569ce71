"""The promise of `core/replays.py`: an answer is found by what its sender sends back, by nobody else."""

from rkllm_mqtt.core.replays import Replays

ME, OTHER = ("rock5", "me"), ("rock5", "other")


def call(name, arguments, call_id="1"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(text=None, calls=()):
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


def test_an_answer_is_found_by_its_text_and_its_calls_whatever_their_ids_and_spelling():
    replays = Replays(1000)
    replays.keep(ME, "", [call("on", '{"a": 1, "b": 2}')], "wrote a call")
    replays.keep(ME, "Yes.", [], " Yes.\n")
    sent_back = [
        {"role": "user", "content": "Yes."},
        answer("Yes."),
        answer(None, [call("on", '{"b":2,"a":1}', "9")]),
        answer("", [call("on", {"b": 2, "a": 1})]),
        answer("", [call("on", '{"b":3,"a":1}')]),
        answer("No."),
    ]
    assert replays.find(ME, sent_back) == {1: " Yes.\n", 2: "wrote a call", 3: "wrote a call"}
    assert replays.find(OTHER, sent_back) == {}


def test_the_least_recently_used_are_forgotten_beyond_the_limit():
    replays = Replays(30)
    for number in range(3):
        replays.keep(ME, str(number), [], f"{number}" * 10)
    assert list(replays.find(ME, [answer("0")])) == [0]
    replays.keep(ME, "3", [], "3" * 10)
    assert list(replays.find(ME, [answer(str(number)) for number in range(4)])) == [0, 2, 3]
    assert replays.kept_bytes == 30
    replays.keep(ME, "huge", [], "x" * 31)
    assert replays.kept_bytes == 0


def test_the_same_answer_is_kept_once_and_the_newest_writing_counts():
    replays = Replays(100)
    replays.keep(ME, "a", [], "aaaa")
    replays.keep(ME, "a", [], "äa")
    assert (replays.find(ME, [answer("a")]), replays.kept_bytes) == ({0: "äa"}, 3)


def test_messages_of_odd_shapes_are_not_found_and_no_error():
    replays = Replays(100)
    replays.keep(ME, "a", [], "a")
    odd = [
        answer(["a"]),
        answer("a", ["x"]),
        {"role": "assistant", "tool_calls": 5},
        answer("a", [call("on", "{")]),
    ]
    assert replays.find(ME, odd) == {}
