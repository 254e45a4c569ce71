"""`core/comebacks.py`: who goes on is told from who begins anew, common beginnings are known."""

from rkllm_mqtt.core.comebacks import Comebacks
from rkllm_mqtt.core.prefix import Chain

SYSTEM = "<|im_start|>system\n" + "Be brief and kind. " * 40 + "<|im_end|>\n"


def ask(text, before=SYSTEM):
    return before + f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def chain(text):
    return Chain.of(text, "qwen")


def turn(comebacks, client, prompt, answer="Yes."):
    """Let a client ask; return the whole conversation."""
    comebacks.asked(client, chain(prompt))
    comebacks.left(client, Chain.of(prompt + answer, "qwen", len(prompt)), len(prompt))
    return prompt + answer + "<|im_end|>\n"


def test_who_is_not_known_comes_back_in_one_of_two_cases():
    assert Comebacks().chance("anybody") == 0.5


def test_a_client_whose_conversation_goes_on_is_expected_to_come_back():
    comebacks, so_far = Comebacks(), SYSTEM
    for number in range(6):
        so_far = turn(comebacks, "app", ask(f"question {number}", so_far))
    assert comebacks.chance("app") > 0.8


def test_a_sensor_that_begins_anew_each_time_is_not():
    comebacks = Comebacks()
    for number in range(8):
        turn(comebacks, "sensor", ask(f"reading {number}"))
    assert comebacks.chance("sensor") < 0.15


def test_conversations_of_one_client_may_alternate():
    comebacks, talks = Comebacks(), {name: SYSTEM.replace("kind", name) for name in ("ann", "bob", "cem")}
    for number in range(6):
        for name in talks:
            talks[name] = turn(comebacks, "assistant", ask(f"question {number}", talks[name]))
    assert comebacks.chance("assistant") > 0.75


def test_where_prompts_part_is_a_beginning_that_is_likely_to_come_again():
    comebacks = Comebacks()
    assert comebacks.branches(chain(ask("first"))) == []
    for number in range(4):
        turn(comebacks, f"client{number}", ask(f"question {number}"))
    (end, chance), *_ = comebacks.branches(chain(ask("another")))
    assert ask("another")[:end].startswith(SYSTEM)
    assert chance > 0.7


def test_a_conversation_that_goes_on_parts_nowhere():
    comebacks, so_far = Comebacks(), SYSTEM
    for number in range(4):
        so_far = turn(comebacks, "app", ask(f"question {number}", so_far))
    assert comebacks.branches(chain(so_far)) == []


def test_what_is_remembered_is_bounded():
    comebacks = Comebacks(clients=3, beginnings=32)
    for number in range(50):
        turn(
            comebacks, f"client{number}", ask(f"question {number}", SYSTEM.replace("kind", f"kind {number}"))
        )
    assert len(comebacks._clients) == 3
    assert len(comebacks._seen) == 32
