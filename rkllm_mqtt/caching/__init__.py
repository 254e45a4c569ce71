"""What is in the KV cache, and the prompt-cache files that fill it."""
