"""The yardstick: a throw-away relay of an NPU over MQTT that keeps nothing safe and promises nothing.

`python -m bench.thin_relay PORT LIBRARY MODEL`: prompts come in, each token goes out as it is made, then the
whole text. No journal, no child process, no queue on disk, no cancel, no template: what is lost is lost.
"""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

import rkllmrt

PREFIX = "thin/bench/client/"


def announce(client: mqtt.Client, *_: object) -> None:
    """Say that prompts are taken from now on."""
    client.publish("thin/bench/status", "online", retain=True)


def main() -> None:
    """Serve until killed."""
    port, library, model_file = sys.argv[1:4]
    model = rkllmrt.Model(
        rkllmrt.open_library(library),
        rkllmrt.ModelParams(model_path=model_file, max_context_len=16_384, skip_special_token=False),
    )
    model.load()
    model.raw_chat_template()
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="thin-relay", protocol=mqtt.MQTTv5)
    client.on_message = lambda _client, _userdata, message: waiting.put(
        (message.topic.replace("/request/", "/{}/"), message.payload.decode())
    )
    client.on_subscribe = announce
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(100)
    client.connect("127.0.0.1", int(port))
    client.loop_start()
    client.subscribe(f"{PREFIX}+/request/+", qos=1)
    while True:
        topic, prompt = waiting.get()
        delta = topic.format("delta")
        text: list[bytes] = []

        def relay(piece: bytes | None, _token_id: int, delta: str = delta, text: list[bytes] = text) -> None:
            if piece:
                text.append(piece)
                client.publish(delta, piece)

        model.generate(rkllmrt.PromptInput(prompt), on_token=relay)
        client.publish(topic.format("reply"), b"".join(text), qos=1)


if __name__ == "__main__":
    main()
