"""Recurring prompts: when, with which values, and how they become requests."""
