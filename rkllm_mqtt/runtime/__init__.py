"""The slot: the worker process and its parent side."""

from rkllm_mqtt.absence import absent

# msgspec looks for `typing_extensions`, which brings `inspect`, `ast` and `tokenize` along, and where it is
# absent takes `typing`, which has the same names since Python 3.11: a sixth of a worker's start.
with absent("typing_extensions"):
    import msgspec  # noqa: F401 - it stays in memory
