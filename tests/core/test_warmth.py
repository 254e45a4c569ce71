"""The promises of `core/warmth.py`: the likeliest beginning is brought in, once, and for a bounded time."""

import pytest

from rkllm_mqtt.core.prefix import Chain
from rkllm_mqtt.core.warmth import Budget, Candidate, Sightings, next_to_warm

WHEN = {"day": 739_000, "hour": 7}


def candidate(name, per_hour, saves_s, there_s=0.0):
    return Candidate(name, per_hour, saves_s, there_s)


def test_the_one_whose_expected_saving_is_greatest_is_brought_in():
    often, long, both = candidate("often", 5, 1.0), candidate("long", 0.1, 9.0), candidate("both", 2, 2.0)
    assert next_to_warm([often, long]).name == "often"
    assert next_to_warm([often, both, long]).name == "both"
    assert next_to_warm([]) is None


def test_what_is_there_stays_unless_another_is_clearly_worth_more():
    there = candidate("there", 1, 2.0, there_s=2.0)
    assert next_to_warm([there]) is None
    assert next_to_warm([there, candidate("little more", 1, 2.2)]) is None
    assert next_to_warm([there, candidate("more", 1, 3.0)]).name == "more"


@pytest.mark.parametrize("a", [1.0, 2.0, 2.3, 3.0])
def test_two_of_them_never_take_turns(a):
    def settled(there):
        for _ in range(5):
            state = [candidate("a", 1, a, a if there == "a" else 0), candidate("b", 1, 2, 2 * (there == "b"))]
            chosen = next_to_warm(state)
            if chosen is None:
                return True
            there = chosen.name
        return False

    assert settled("a")
    assert settled("b")
    assert settled(None)


def test_what_saves_next_to_nothing_or_is_never_used_is_no_reason_to_work():
    assert next_to_warm([candidate("short", 5, 0.04)]) is None
    assert next_to_warm([candidate("unused", 0, 9.0)]) is None
    assert next_to_warm([candidate("nearly there", 5, 9.0, there_s=8.97)]) is None


def test_a_part_of_it_that_is_there_needs_only_the_rest():
    assert next_to_warm([candidate("interrupted", 1, 3.0, there_s=1.0)]).name == "interrupted"


def test_idle_work_is_a_part_of_the_time():
    budget, spent = Budget(share=0.25, most_s=10, left_s=10), 0.0
    for now in range(0, 1_000, 5):
        if budget.has(3.0, now):
            budget.spend(3.0)
            spent += 3.0
    assert 200 < spent <= 10 + 0.25 * 1_000
    full = Budget(most_s=10, left_s=10)
    assert full.has(60.0, 0)
    full.spend(60.0)
    assert not full.has(1.0, 100)


# found ones

SYSTEM = "<|im_start|>system\nYou are a house. " + "The lamp is on. " * 40 + "<|im_end|>\n"


def see(sightings, question, *, system=SYSTEM, client="ha", model="m"):
    text = f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    sightings.see(client, model, None, text, Chain.of(text, "f"), **WHEN)


def test_a_beginning_that_several_requests_share_is_found_and_cut_where_a_message_ends():
    sightings = Sightings()
    for question in ("turn on the lamp", "is it warm", "what is the time"):
        assert sightings.common("m") == []
        see(sightings, question)
    (found,) = sightings.common("m")
    assert found.text == SYSTEM
    assert found.client == "ha"
    assert found.uses.per_hour(**WHEN) >= 2
    assert sightings.common("other") == []


def test_the_same_prompt_again_and_again_is_no_beginning_of_others():
    sightings = Sightings()
    for _ in range(6):
        see(sightings, "how many lamps")
    assert sightings.common("m") == []


def test_short_beginnings_are_none():
    sightings = Sightings()
    for number in range(6):
        see(sightings, f"{number}" * 700, system="<|im_start|>system\nShort.<|im_end|>\n")
    assert sightings.common("m") == []


def test_so_many_prompts_and_beginnings_are_kept():
    sightings = Sightings(prompts=4, most=2)
    for number in range(5):
        for question in ("a", "b", "c", "d"):
            see(sightings, question, system=SYSTEM.replace("house", f"house {number}"))
    assert len(sightings.common("m")) <= 2
    assert "house 4" in sightings.common("m")[-1].text
    for number in range(50):
        see(sightings, str(number), system=f"<|im_start|>system\n{number}{'x' * 900}<|im_end|>\n")
    assert len(sightings._prompts) == 4
