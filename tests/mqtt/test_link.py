"""The buffered stream: reads ahead, writes late, loses nothing, hides nothing."""

import socket

import pytest

from rkllm_mqtt.mqtt.link import READ_BYTES, Link
from rkllm_mqtt.mqtt.packets import variable_length


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    link = Link(ours)
    yield link, theirs
    link.close()
    theirs.close()


def test_small_reads_are_served_from_one_large_one(pair):
    link, broker = pair
    broker.sendall(b"abcdef")
    assert link.recv(1) == b"a"
    assert link.buffered == 5
    broker.close()
    assert [link.recv(2), link.recv(9)] == [b"bc", b"def"]
    assert link.buffered == 0
    assert link.recv(1) == b""


def test_reading_nothing_blocks_nobody(pair):
    link, _ = pair
    with pytest.raises(BlockingIOError):
        link.recv(1)
    assert link.error is None


def test_a_large_read_takes_more_than_the_read_ahead(pair):
    link, broker = pair
    broker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, READ_BYTES * 8)
    broker.sendall(b"x" * READ_BYTES * 2)
    assert len(link.recv(READ_BYTES * 2)) == READ_BYTES * 2


@pytest.mark.parametrize("size", [2, 3, 127, 128, 16_000])
def test_a_publish_that_is_there_whole_is_taken_in_one_step(pair, size):
    link, broker = pair
    body = b"\x00\x00" + b"x" * (size - 2)
    broker.sendall(b"\x32" + variable_length(size) + body + b"\x40\x02\x00\x01")
    assert link.take_publish() == (0x32, body)
    assert link.take_publish() is None, "a PUBACK is not"
    assert link.recv(9) == b"\x40\x02\x00\x01"


def test_nothing_of_a_publish_is_lost_wherever_the_stream_is_cut(pair):
    link, broker = pair
    packets = [b"\x30" + variable_length(size) + bytes(size) for size in (2, 200, 0, 130)]
    stream = b"".join(packets)
    for cut in range(len(stream) + 1):
        broker.sendall(stream[:cut])
        taken, read = [], b""
        while (packet := link.take_publish()) is not None:
            taken.append(packet)
        broker.sendall(stream[cut:])
        while len(read) + sum(map(_size, taken)) < len(stream):
            read += link.recv(len(stream))
        assert b"".join(packets[: len(taken)]) + read == stream
        assert [bytes(len(body)) for _, body in taken] == [body for _, body in taken]


@pytest.mark.parametrize(
    "damaged", [b"\x30\xff\xff\xff\xff\x01rest", b"\x30\xff\xff\xff\x7f", b"\x30\x80\x80\x80"]
)
def test_a_length_that_cannot_be_is_left_to_paho(pair, damaged):
    link, broker = pair
    broker.sendall(damaged)
    assert link.take_publish() is None
    assert link.recv(99) == damaged


def test_a_stream_that_ends_or_breaks_is_told_by_the_next_read(pair):
    link, broker = pair
    assert link.take_publish() is None
    broker.close()
    assert link.take_publish() is None
    assert link.recv(1) == b""


def _size(packet):
    return 1 + len(variable_length(len(packet[1]))) + len(packet[1])


def test_nothing_leaves_before_the_flush_and_then_in_one_piece(pair):
    link, broker = pair
    broker.setblocking(False)
    link.send(b"one")
    link.send(bytearray(b"two"))
    with pytest.raises(BlockingIOError):
        broker.recv(1)
    assert link.unsent == 6
    assert link.flush()
    assert broker.recv(99) == b"onetwo"
    assert link.unsent == 0


def test_what_the_kernel_does_not_take_stays_for_the_next_flush(pair):
    link, broker = pair
    sent = bytes(range(256)) * 8_192
    link.send(sent)
    assert not link.flush()
    received = b""
    while len(received) < len(sent):
        received += broker.recv(65_536)
        link.flush()
    assert received == sent


def test_a_broken_stream_is_told_and_remembered(pair):
    link, broker = pair
    broker.close()
    link.send(b"x")
    with pytest.raises(BrokenPipeError):
        link.flush()
    assert isinstance(link.error, BrokenPipeError)


def test_bytes_that_tls_has_decrypted_count_as_buffered():
    class Decrypted:
        def pending(self):
            return 4

    assert Link(Decrypted()).buffered == 4


def test_closing_twice_is_no_error(pair):
    link, _ = pair
    link.close()
    link.close()
    assert link.fileno() == -1
