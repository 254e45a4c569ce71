"""What `rkllm-mqtt service` is made of."""
