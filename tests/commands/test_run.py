"""The promise of `rkllm-mqtt run`: only what the configuration asks for is loaded into memory."""

import sys
from pathlib import Path

import pytest

from rkllm_mqtt.commands.run import absent


def test_a_daemon_without_tls_has_no_openssl_in_its_memory(launch):
    daemon, _ = launch(afresh=True)
    mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "libsqlite3" in mapped or "_sqlite3" in mapped, "what is used would be seen"
    assert not [name for name in ("libssl", "libcrypto", "_ssl.", "_hashlib.") if name in mapped]


def test_a_module_is_absent_only_so_long_and_only_where_it_was_not_there():
    sys.modules.pop("this", None)
    with absent("this", "json"):
        with pytest.raises(ImportError):
            import this  # noqa: F401
        import json  # noqa: F401
    assert "this" not in sys.modules
    assert sys.modules["json"].__name__ == "json"
