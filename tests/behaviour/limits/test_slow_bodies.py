"""min_read_rate is asked of all bytes of a body: chunk lines and trailers are no place to hide."""

import time

import pytest

from harness.bulk import Sending
from harness.http1 import answer

INI = """
[listener web]
bind = @web
upstream = app
min_read_rate = 20000/s
timeout_client = 1s
max_body_size = 0
[upstream app]
server = @origin
"""
HEAD = (b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
# 0.02 s a byte: far from timeout_client, far below min_read_rate.
PAUSE_S = 0.02


def drip(client, data):
    """The pauses are what is being tested."""
    for at in range(len(data)):
        client.look()
        if client.buffered or client.ended:
            return
        client.send(data[at:at + 1])
        time.sleep(PAUSE_S)
    raise AssertionError("weir has waited for all of it")


@pytest.mark.parametrize("begin, slow", [
    (b"", b"5;" + b"e" * 200 + b"\r\n"),
    (b"5\r\nhello", b"\r\n" + b"0" * 150 + b"5\r\n"),
    (b"", b"1\r\nx\r\n" * 40),
    (b"5\r\nhello\r\n0\r\n", b"X-Trailer: " + b"t" * 200 + b"\r\n\r\n"),
], ids=["an extension", "a size", "tiny chunks", "a trailer"])
def test_chunked_bodies_that_drip_are_too_slow(stage, origin, begin, slow):
    client = stage.connect()
    counted = stage.ended("client_too_slow")
    client.send(HEAD + begin)
    drip(client, slow)
    got = client.read_response()
    assert (got.status, got.reason) == (408, "client_too_slow")
    client.expect_end()
    origin.open_connections()
    assert not any(upstream.saw_whole_request() for upstream in origin.connections)
    assert counted.grown() == 1


def test_small_chunks_that_come_fast_enough_are_left_alone(stage, origin):
    """Chunk lines count as well: of 60 bytes 10 are the body's."""
    client = stage.connect()
    upstream = origin.asked_by(client, HEAD, whole=False)
    piece = b"a;" + b"e" * 43 + b"\r\n0123456789\r\n"
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < 1.8:
        client.send(piece * 100)
        count += 100
        time.sleep(PAUSE_S)
    client.send(b"0\r\n\r\n")
    body = b""
    while part := upstream.read_chunk():
        body += part
    assert body == b"0123456789" * count
    upstream.read_trailers()
    upstream.send(answer())
    assert client.read_response().status == 200


def test_a_pause_that_weir_makes_counts_against_nobody(stage, origin):
    """The origin does not read: the client cannot send, and is not too slow."""
    client = stage.connect()
    upstream = origin.asked_by(client, HEAD, whole=False)
    count = 1280  # more than the kernel holds
    sending = Sending(client, (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * count + b"0\r\n\r\n")
    time.sleep(1.5)
    assert sending.thread.is_alive()
    got = 0
    while part := upstream.read_chunk():
        got += len(part)
    assert got == 0x8000 * count
    upstream.read_trailers()
    sending.done()
    upstream.send(answer())
    assert client.read_response().status == 200
