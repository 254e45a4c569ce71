"""The promise of `absence.py`: a module cannot be found for as long as it is asked for, and then it can."""

import sys

import pytest

from rkllm_mqtt.absence import absent


def test_a_module_is_absent_only_so_long_and_only_where_it_was_not_there():
    sys.modules.pop("this", None)
    with absent("this", "json"):
        with pytest.raises(ImportError):
            import this  # noqa: F401
        import json  # noqa: F401
    assert "this" not in sys.modules
    assert sys.modules["json"].__name__ == "json"
