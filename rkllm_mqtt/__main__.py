"""`python -m rkllm_mqtt` is the command `rkllm-mqtt`."""

from rkllm_mqtt.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())
