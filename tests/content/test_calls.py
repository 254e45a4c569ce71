"""The promise of `content/calls.py`: calls and text apart, no mark shown, the same at any cuts."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkllm_mqtt.content.calls import CallParser
from rkllm_mqtt.content.offer import Offer
from rkllm_mqtt.content.syntax import MARKS


def parse(pieces, offer, *, complete=True, **options):
    """Return the text and the calls of an answer that arrives in these pieces."""
    parser = CallParser(offer, **options)
    out = [piece for fed in pieces for piece in parser.feed(fed)] + parser.flush(complete=complete)
    assert all(out)
    text = "".join(piece for piece in out if isinstance(piece, str))
    return text, [(piece.name, json.loads(piece.arguments)) for piece in out if not isinstance(piece, str)]


# what families write

ARGUMENTS = [
    ("turn_on", {"name": "Küche <b> 💡"}),
    ("turn_on", {"name": 'it\'s {odd} [or] "quoted"\\', "brightness": 20, "domain": ["light", "fan"]}),
    ("get_time", {}),
    ("say", {"text": "two\nlines, `code` and </x>"}),
]


def hermes(calls):
    return "\n".join(
        f'<tool_call>\n{{"name": "{n}", "arguments": {dumped(a)}}}\n</tool_call>' for n, a in calls
    )


def llama(calls):
    return "; ".join(f'{{"name": "{n}", "parameters": {dumped(a)}}}' for n, a in calls)


def python_tag(calls):
    return "<|python_tag|>" + llama(calls)


def mistral(calls):
    return "[TOOL_CALLS]" + json.dumps([{"name": n, "arguments": a} for n, a in calls])


def mistral_11(calls):
    return "".join(f"[TOOL_CALLS]{n}[ARGS]{dumped(a)}" for n, a in calls)


def gemma(calls):
    written = ", ".join(f"{n}({', '.join(f'{k}={v!r}' for k, v in a.items())})" for n, a in calls)
    return f"```tool_code\n[{written}]\n```"


def python_list(calls):
    return gemma(calls).removeprefix("```tool_code\n").removesuffix("\n```")


def deepseek(calls):
    each = (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{n}\n```json\n{dumped(a)}\n```<｜tool▁call▁end｜>"
        for n, a in calls
    )
    return "<｜tool▁calls▁begin｜>" + "\n".join(each) + "<｜tool▁calls▁end｜>"


def deepseek_31(calls):
    each = (f"<｜tool▁call▁begin｜>{n}<｜tool▁sep｜>{dumped(a)}<｜tool▁call▁end｜>" for n, a in calls)
    return f"<｜tool▁calls▁begin｜>{''.join(each)}<｜tool▁calls▁end｜>"


def plain(calls):
    return "\n".join(f'{{"name": "{n}", "arguments": {dumped(a)}}}' for n, a in calls)


def fenced(calls):
    return f"```json\n{json.dumps([{'name': n, 'arguments': a} for n, a in calls], indent=1)}\n```"


def dumped(arguments):
    return json.dumps(arguments, ensure_ascii=False)


FAMILIES = [
    hermes, llama, python_tag, mistral, mistral_11, gemma, python_list, deepseek, deepseek_31, plain, fenced
]  # fmt: skip
every_family = pytest.mark.parametrize("family", FAMILIES)
TEXTS = ["", "I will do that.\n", "Sure: 1 < 2 [x] {y} `z`!\n\n"]


def answers(family, rng):
    """Return an answer with one to three calls, and what is to come out of it."""
    calls = rng.choices(ARGUMENTS, k=rng.randint(1, 3))
    said = rng.choice(TEXTS)
    return said + family(calls), (said.rstrip(), calls)


@every_family
def test_each_cut_of_each_answer_gives_the_same_calls_and_no_mark(family, offer):
    rng = random.Random(family.__name__)
    for _ in range(3):
        answer, expected = answers(family, rng)
        assert parse([answer], offer) == expected
        assert parse(list(answer), offer) == expected
        for cut in range(1, len(answer)):
            assert parse([answer[:cut], answer[cut:]], offer) == expected


def tokens(text, rng):
    """Return a text in pieces as a tokenizer makes them: marks whole or not, words, parts of words."""
    cuts = sorted({0, len(text), *rng.choices(range(len(text) + 1), k=len(text) // 3)})
    return [text[a:b] for a, b in pairwise(cuts)]


@pytest.mark.parametrize("family", [hermes, llama, python_tag, mistral, gemma, deepseek, deepseek_31, plain])
def test_a_thousand_answers_cut_at_their_tokens_are_read_as_if_they_were_whole(family, offer):
    rng = random.Random(1)
    for _ in range(1000):
        answer, expected = answers(family, rng)
        assert parse(tokens(answer, rng), offer) == expected


@every_family
def test_an_answer_that_is_cut_off_shows_no_part_of_a_call_and_makes_no_wrong_one(family, offer):
    rng = random.Random(family.__name__)
    for _ in range(2):
        answer, (said, calls) = answers(family, rng)
        for length in range(len(answer)):
            text, made = parse(tokens(answer[:length], rng), offer, complete=False)
            assert said.startswith(text.rstrip())
            assert made == calls[: len(made)]


# the rules

ODD = [
    "<tool_call>", "</tool_call>", '{"name": "turn_on", "arguments": ', '{"a": 1}', "}", "{", "[",
    "turn_on(", "x", " ", "\n", "```", "json\n", "tool_code\n", "[TOOL_CALLS]", "[ARGS]", "turn_on",
    "<|python_tag|>", '"', "'", '{"type": "', "function", "<tool", "<function=", ">", "</function>", ";",
    "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>",
    "```json\n{}\n```", "<tool_response>", "get_time()",
    "]", ")", '{"name": "get_time", "arguments": {}}', "\\", "``",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(ODD), max_size=14).map("".join),
    st.lists(st.integers(0, 200), max_size=6),
    st.booleans(),
)
def test_no_arrangement_of_parts_depends_on_its_cuts_or_shows_a_mark(offer, answer, cuts, complete):
    borders = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in cuts)})
    whole = parse([answer], offer, complete=complete)
    assert parse([answer[a:b] for a, b in pairwise(borders)], offer, complete=complete) == whole
    assert parse(list(answer), offer, complete=complete) == whole
    assert not [mark for mark in MARKS if mark in whole[0]]


@given(st.text("ab <[{`\n.", max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_an_answer_without_a_call_passes_unchanged(offer, answer, cuts):
    borders = sorted({0, len(answer), *(cut % (len(answer) + 1) for cut in cuts)})
    assert parse([answer[a:b] for a, b in pairwise(borders)], offer) == (answer, [])


def test_text_is_shown_as_it_comes(offer):
    parser = CallParser(offer)
    fed = ["It", " is", " 3", " < 4", "\n", "\n", "and [1] {x}", " <b", ">", "\n```", "py", "\nx"]
    shown = [parser.feed(piece) for piece in fed]
    assert shown[:4] == [["It"], [" is"], [" 3"], [" < 4"]]
    assert shown[6] == ["\n\nand [1] {x}"]
    assert "".join(piece for pieces in shown for piece in pieces) == "".join(fed)


@pytest.mark.parametrize("first", ["It", "{x", '{"answer"', "[1", "```py", "<b>", "1", "- x"])
def test_the_first_piece_of_a_text_is_shown_at_once(offer, first):
    assert CallParser(offer).feed(first) == [first]


def test_an_answer_in_json_is_shown_as_soon_as_it_names_another(offer):
    parser = CallParser(offer)
    assert parser.feed('{"name": "Bo') == ['{"name": "Bo']
    assert parser.feed('b", "age": 3}') == ['b", "age": 3}']


def test_what_only_looked_like_a_call_is_text_without_marks(offer):
    unknown = '{"name": "other", "arguments": {}}'
    assert parse([f"Hm. <tool_call>\n{unknown}\n</tool_call> So."], offer) == (f"Hm. {unknown} So.", [])
    assert parse([unknown], offer) == (unknown, [])
    assert parse(["a <tool_call>b</tool_call> c</tool_call>"], offer) == ("a b c", [])
    assert parse(["a [TOOL_CALLS]b"], offer) == ("a b", [])


def test_a_closing_mark_without_its_beginning_is_no_text(offer):
    call = '{"name": "get_time", "arguments": {}}'
    assert parse([f"{call}\n</tool_call>"], offer) == ("", [("get_time", {})])


def test_text_after_a_call_is_kept_apart_from_the_text_before(offer):
    call = hermes([("get_time", {})])
    assert parse([f"First.{call}\nThen."], offer) == ("First.\nThen.", [("get_time", {})])
    assert parse([f"{call}\n\nThen."], offer) == ("Then.", [("get_time", {})])


def test_a_model_that_plays_the_tools_part_is_not_listened_to(offer):
    parser = CallParser(offer)
    (call,) = parser.feed(hermes([("get_time", {})]) + "\n<tool_response>\n12:00")
    assert (call.name, parser.ended) == ("get_time", True)
    assert parser.feed("more") == []
    assert parser.flush(complete=True) == []


def test_a_call_without_its_end_is_mended_where_the_model_ended_it(offer):
    half = '<tool_call>{"name": "turn_on", "arguments": {"brightness": 2'
    assert parse([half], offer) == ("", [("turn_on", {"brightness": 2})])
    assert parse([half], offer, complete=False) == ("", [])
    assert parse([half + "}}"], offer, complete=False) == ("", [("turn_on", {"brightness": 2})])


def test_only_one_call_is_taken_where_one_was_asked_for(offer):
    parser = CallParser(offer, only_one=True)
    pieces = parser.feed(hermes([("get_time", {}), ("say", {"text": "x"})]))
    assert [piece.name for piece in pieces] == ["get_time"]
    assert parser.ended


def test_where_nothing_is_offered_marks_are_still_no_text():
    text, calls = parse([hermes([("get_time", {})])], Offer({}))
    assert (text, calls) == ('{"name": "get_time", "arguments": {}}', [])


def test_an_answer_full_of_beginnings_costs_no_more_than_its_length(offer):
    # Each of these may be a call until the end; without a bound every one would be mended again.
    answer = '{"function": {\n' * 3_000
    assert parse([answer], offer)[1] == []
