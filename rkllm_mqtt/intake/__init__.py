"""Requests and cancels: from a message to a job that is safe on disk."""
