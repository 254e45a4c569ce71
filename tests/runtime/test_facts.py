"""The promise of `runtime/facts.py`: a repaired file is seen, a missing one is no error."""

from rkllm_mqtt.runtime.facts import Sources, stamp_of


def test_a_stamp_changes_when_a_file_comes_is_replaced_and_goes(tmp_path):
    file, seen = tmp_path / "model.sim", []
    acts = (lambda: None, lambda: file.write_text("one"), lambda: file.write_text("another"), file.unlink)
    for act in acts:
        act()
        seen.append(stamp_of(file, None))
    assert len(set(seen)) == 3
    assert seen[0] == seen[-1]


def test_a_replaced_file_is_told_once_when_two_looks_agree_and_a_removed_one_never(tmp_path):
    file, sources = tmp_path / "model.sim", Sources()
    file.write_text("one")
    sources.note(file, None)
    assert not sources.replaced(file, None)
    file.write_text("another")
    assert sources.changed(file, None)
    assert [sources.replaced(file, None) for _ in range(3)] == [False, True, False]
    file.unlink()
    assert [sources.replaced(file, None) for _ in range(3)] == [False, False, False]
