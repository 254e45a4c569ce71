"""Everything is broken once and nothing is lost: the short form of `make chaos`."""

import asyncio

import pytest
from chaos.driver import Plan, Run
from chaos.faults import KINDS

SEEDS = (11,)
"""A seed that once failed stays here. 11: a daemon that was stopped called half an answer whole."""

# Of what has tests of its own in any case, and takes long.
LEFT_OUT = {"break_model", "end_daemon", "end_broker"}


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_whatever_is_broken(tmp_path, seed):
    kinds = tuple(kind for kind in KINDS if kind.name not in LEFT_OUT)
    plan = Plan(
        seed,
        faults=len(kinds),
        prompts=80,
        longest_s=60,
        senders=8,
        pause_s=0.5,
        faulty=0.04,
        rest_s=0.2,
        kinds=kinds,
        brief=True,
        slack_s=5,
    )
    result = asyncio.run(Run(plan, tmp_path).run())
    assert result.violations == []
    assert {kind.name for kind in kinds} <= result.faults.keys()
    assert result.judgement.outcomes["ok"] > 50
    assert result.judgement.checked["complete deltas"] > 10
