"""The promise of `core/seeds.py`: a model of the table is as fast as the table says, others are a guess."""

import pytest

from rkllm_mqtt.core.rates import Rates
from rkllm_mqtt.core.seeds import seed_of


@pytest.mark.parametrize(
    ("name", "ttft_ms", "tokens_per_s"),
    [
        ("Qwen2.5-1.5B-Instruct_w8a8_rk3588", 378.31, 16.69),
        ("qwen2-0.5b", 145.90, 41.58),
        ("Qwen3-0.6B-rk3588-w8a8", 199.09, 32.91),
        ("Qwen3-VL-2B", 383.62, 14.98),
        ("Qwen3.5-0.8B", 587.74, 27.05),
        ("gemma-2-2b-it", 598.41, 10.37),
        ("TinyLlama-1.1B-Chat", 243.93, 24.43),
        ("Phi-3-mini-3.8b", 1017.28, 7.45),
        ("chatglm3-6b", 1352.94, 4.98),
    ],
)
def test_a_model_of_the_table_has_the_figures_of_its_row(name, ttft_ms, tokens_per_s):
    seed = seed_of("voice", name)
    assert seed.known
    rates = Rates(seed)
    assert rates.first_token_s(128) * 1000 == pytest.approx(ttft_ms, rel=0.01)
    assert 1 / rates.step_s(160) == pytest.approx(tokens_per_s, rel=0.01)


def test_a_model_that_nobody_measured_is_a_guess():
    assert not seed_of("mine", "my-own-7b").known
    assert seed_of().floor_ms > 0
