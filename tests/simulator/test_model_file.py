"""Model files: broken ones fail init with the line and the reason, shipped ones load."""

import pytest

from rkllmrt import simulator


@pytest.mark.parametrize("path", sorted(simulator.MODELS.glob("*.sim")), ids=lambda path: path.name)
def test_a_shipped_model_loads_and_answers(play, path) -> None:
    played = play("run", "2+2", path=path, RKLLM_SIM_CLOCK="virtual")
    assert played.texts() == ["2 + 2 = 4."]


def test_the_demo_model_is_paced_like_a_real_one() -> None:
    assert "profile: qwen2.5-1.5b" in simulator.demo_model().read_text(encoding="utf-8")
    names = {path.name for path in simulator.MODELS.glob("*.sim")}
    assert names == {"demo.sim", "instant.sim", "origin.sim", "faults.sim"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("colour: red", "unknown key 'colour'"),
        ("layers: many", "'layers' cannot be 'many'"),
        ("layers: 0", "'layers' cannot be '0'"),
        ("layers: 2.5", "'layers' cannot be '2.5'"),
        ("jitter: nan", "'jitter' cannot be 'nan'"),
        ("thinking: maybe", "'thinking' is one of no|yes, not 'maybe'"),
        ("profile: gpt", "unknown profile 'gpt'"),
        ("name:", "'name' cannot be ''"),
        ("just words", "expected 'key: value' or a rule"),
        ('when rain: reply "x"', "a rule begins with"),
        ('when "rain": reply x', 'reply needs a "quoted text"'),
        ('when "rain": reply "x', 'reply needs a "quoted text"'),
        ('when "rain": sing', "expected reply or fault, got: sing"),
        ("always: fault explode", "unknown fault: explode"),
        ("always: fault abort after three tokens", "unknown fault:"),
        ("always: fault abort later", "unexpected text after the rule: later"),
        ("every 0 runs: fault abort", "a rule begins with"),
        ("on run: fault abort", "a rule begins with"),
    ],
)
def test_a_broken_line_fails_init_and_is_named(play, line: str, reason: str) -> None:
    played = play(lines=f"# a comment\n{line}")
    assert played.of("init")[0]["status"] == -1
    message = next(entry for entry in played.log.splitlines() if entry.startswith("E rkllm:"))
    assert f"test.sim:4: {reason}" in message
    assert played.log.rstrip().endswith("E rkllm: rkllm_init failed")


@pytest.mark.parametrize(
    "content", [b"", b"RKLLM\x00\x01\x02", b"rkllm-simulator 2\n", bytes(range(256)) * 8]
)
def test_another_file_is_no_model(play, tmp_path, content: bytes) -> None:
    path = tmp_path / "other.rkllm"
    path.write_bytes(content)
    played = play(path=path)
    assert played.of("init")[0]["status"] == -1
    assert str(path) in next(entry for entry in played.log.splitlines() if entry.startswith("E rkllm:"))


def test_every_key_and_profile_of_the_manual_is_known(play) -> None:
    """The manual's tables and the parser name the same keys, so that neither falls behind."""
    manual = (simulator.SOURCES / "README.md").read_text(encoding="utf-8")
    source = (simulator.SOURCES / "sim_model.c").read_text(encoding="utf-8")
    keys = {
        line.split('"')[1]
        for line in source.splitlines()
        if line.startswith(("    TEXT(", "    INT(", "    NUMBER(", "    SWITCH("))
    }
    documented = {
        cell for line in manual.splitlines() if line.startswith("| `") for cell in line.split("`")[1:2]
    }
    assert len(keys) > 35
    assert keys | {"profile"} <= documented
    profiles = {
        line.split('"')[1]
        for line in (simulator.SOURCES / "sim_profile.c").read_text(encoding="utf-8").splitlines()
        if line.startswith('    {"')
    }
    assert len(profiles) == 12
    assert not [name for name in profiles if f"`{name}`" not in manual]
