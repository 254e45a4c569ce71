"""The slot: the worker process and its parent side."""
