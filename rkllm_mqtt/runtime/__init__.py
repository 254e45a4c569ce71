"""The slot: the worker process and its parent side."""

import sys

if not {"msgspec", "typing_extensions"} & sys.modules.keys():
    # msgspec looks for `typing_extensions`, which brings `inspect`, `ast` and `tokenize` along, and takes
    # `typing` where it is absent, which has the same names since Python 3.11: a sixth of a worker's start.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # what `import` understands as absent
    import msgspec  # noqa: F401 - it stays in memory; whoever comes later finds the real one again

    del sys.modules["typing_extensions"]
