"""The promise of `runtime/facts.py`: a repaired file is seen, a missing one is no error."""

from rkllm_mqtt.runtime.facts import stamp_of


def test_a_stamp_changes_when_a_file_comes_is_replaced_and_goes(tmp_path):
    file, seen = tmp_path / "model.sim", []
    acts = (lambda: None, lambda: file.write_text("one"), lambda: file.write_text("another"), file.unlink)
    for act in acts:
        act()
        seen.append(stamp_of(file, None))
    assert len(set(seen)) == 3
    assert seen[0] == seen[-1]
