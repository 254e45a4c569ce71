"""Readings of the board: NPU, memory, disk."""
