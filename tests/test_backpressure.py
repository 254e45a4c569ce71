"""`backpressure.py`: the library waits for a slow broker, but never for a stalled one."""

import asyncio

from rkllm_mqtt.backpressure import BackPressure


class Network:
    """Counts bytes that nobody took, and what was asked of the slot."""

    def __init__(self):
        self.unsent = 0
        self.asked = []
        self.released = asyncio.Event()
        self.pressure = BackPressure(
            lambda: self.unsent, lambda: self.asked.append("hold"), lambda: self._release()
        )

    def _release(self):
        self.asked.append("release")
        self.released.set()


def test_nothing_is_held_while_the_network_takes_what_is_sent():
    async def scene():
        network = Network()
        network.unsent = 100_000
        network.pressure.sent()
        return network.asked

    assert asyncio.run(scene()) == []


def test_the_slot_waits_until_the_network_has_taken_most_of_it():
    async def scene():
        network = Network()
        network.unsent = 300_000
        network.pressure.sent()
        network.pressure.sent()
        assert network.asked == ["hold"]
        network.unsent = 1_000
        await asyncio.wait_for(network.released.wait(), 30)
        return network.asked

    assert asyncio.run(scene()) == ["hold", "release"]


def test_a_stalled_connection_does_not_hold_the_slot_for_ever_nor_a_second_time():
    async def scene():
        network = Network()
        network.unsent = 300_000
        network.pressure.sent()
        await asyncio.wait_for(network.released.wait(), 30)
        network.pressure.sent()
        return network.asked

    assert asyncio.run(scene()) == ["hold", "release"]
