"""Space set aside, given up and taken back."""

from rkllm_mqtt.store.ballast import Ballast

MB = 1 << 20


def test_ballast_takes_real_blocks_and_gives_them_back(tmp_path):
    file = tmp_path / "ballast"
    ballast = Ballast(file, 2 * MB)
    assert ballast.hold()
    assert file.stat().st_blocks * 512 >= 2 * MB
    assert file.stat().st_mode & 0o077 == 0
    ballast.release()
    ballast.release()
    assert not file.exists()
    assert ballast.regain()
    assert file.stat().st_size == 2 * MB


def test_ballast_follows_a_changed_size(tmp_path):
    file = tmp_path / "ballast"
    assert Ballast(file, 2 * MB).hold()
    assert Ballast(file, MB).hold()
    assert file.stat().st_size == MB
    assert Ballast(file, 0).hold()
    assert not file.exists()


def test_ballast_that_does_not_fit_leaves_nothing_behind(tmp_path):
    file = tmp_path / "ballast"
    ballast = Ballast(file, 1 << 60)
    assert not ballast.hold()
    assert not file.exists()
    assert not ballast.regain()


def test_a_folder_that_is_gone_has_no_space(tmp_path):
    ballast = Ballast(tmp_path / "gone" / "ballast", MB)
    assert ballast.free_bytes() == 0
    assert not ballast.hold()
    ballast.release()
