"""The promise of `rkllm-mqtt run`: only what the configuration asks for is loaded into memory."""

from pathlib import Path


def test_a_daemon_without_tls_has_no_openssl_in_its_memory(launch):
    daemon, _ = launch(afresh=True)
    mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "libsqlite3" in mapped or "_sqlite3" in mapped, "what is used would be seen"
    assert not [name for name in ("libssl", "libcrypto", "_ssl.", "_hashlib.") if name in mapped]
