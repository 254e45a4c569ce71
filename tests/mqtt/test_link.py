"""The buffered stream: reads ahead, writes late, loses nothing, hides nothing."""

import socket

import pytest

from rkllm_mqtt.mqtt.link import READ_BYTES, Link


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
