"""websocket_ping: idle ends of a checked WebSocket are asked whether they are still there."""

import threading
import time

from harness.h2_tunnel import H2TunnelClient
from harness.websocket import (BINARY, MASK, PING, PONG, TEXT, frame, open_tunnel, read_frame,
                               switch)

INI = """
[listener web]
bind = @web
upstream = app
websocket = checked
websocket_ping = 700ms
[listener late]
bind = @late
upstream = app
websocket = checked
websocket_ping = 600ms
[listener endless]
bind = @endless
upstream = app
websocket = checked
websocket_max_message = 0
websocket_ping = 200ms
[listener local]
bind = @local
upstream = local
websocket = checked
websocket_ping = 1s
[upstream app]
server = @origin
timeout_tunnel = 2s
[upstream local]
server = @originunix
"""


def pinged(peer, is_masked):
    opcode, payload, was_masked = read_frame(peer)
    assert (opcode, len(payload), was_masked) == (PING, 8, is_masked)
    return payload


def answer_both(client, upstream):
    """Both ends are asked, and answer: (the client's ping, the server's)."""
    asked = pinged(client, False), pinged(upstream, True)
    client.send(frame(PONG, asked[0], MASK))
    upstream.send(frame(PONG, asked[1]))
    return asked


def test_idle_ends_are_asked_and_their_pongs_go_no_further(stage, client, origin):
    client, upstream = open_tunnel(client, origin)
    pings = [answer_both(client, upstream) for _ in range(3)]
    assert len({payload for both in pings for payload in both}) == 6  # each is new
    # Had a pong passed, it would stand before this.
    client.send(frame(TEXT, b"hello", MASK))
    while (got := read_frame(upstream))[0] == PING:
        upstream.send(frame(PONG, got[1]))
    assert got == (TEXT, b"hello", True)


def test_pongs_keep_timeout_tunnel_away(stage, client, origin):
    client, upstream = open_tunnel(client, origin)
    for _ in range(4):  # of 700 ms: longer than timeout_tunnel
        answer_both(client, upstream)


def test_pings_and_pongs_of_the_ends_pass(stage, origin):
    client, upstream = open_tunnel(stage.connect("late"), origin)
    for data in (frame(PING, b"12345678", MASK), frame(PONG, b"", MASK),
                 frame(PONG, b"12345678", MASK)):
        client.send(data)
        upstream.expect(data)
    upstream.send(frame(PING, b"abc"))
    client.expect(frame(PING, b"abc"))


def test_a_pong_that_comes_byte_by_byte_goes_no_further(stage, client, origin):
    client, upstream = open_tunnel(stage.connect("late"), origin)
    payload = pinged(client, False)
    upstream.send(frame(PONG, pinged(upstream, True)))
    client.send_each_byte(frame(PONG, payload, MASK))
    client.send(frame(TEXT, b"x", MASK))
    upstream.expect(frame(TEXT, b"x", MASK))


def test_an_unanswered_ping_ends_the_tunnel(stage, client, origin):
    counted = stage.ended("websocket_timeout")
    client, upstream = open_tunnel(client, origin)
    pinged(client, False)
    upstream.send(frame(PONG, pinged(upstream, True)))
    while (got := read_frame(upstream))[0] == PING:
        upstream.send(frame(PONG, got[1]))
    assert got[0] == 8 and got[1][:2] == b"\x03\xe9"
    upstream.expect_close()
    client.expect_reset()
    counted.grows()


def test_a_server_that_does_not_answer_is_gone_too(stage, client, origin):
    client, upstream = open_tunnel(client, origin)
    client.send(frame(PONG, pinged(client, False), MASK))
    while (got := read_frame(client))[0] == PING:
        client.send(frame(PONG, got[1], MASK))
    assert got[0] == 8 and got[1][:2] == b"\x03\xe9"
    upstream.expect_end()


# The client is in the middle of a frame, and so cannot be asked; the server is not read, and so
# need not answer.
ENDLESS = bytes([0x80 | BINARY, 127]) + (1 << 40).to_bytes(8, "big")


def test_pings_do_not_keep_who_reads_nothing(stage, origin):
    counted = stage.ended("tunnel_timeout")
    client, upstream = open_tunnel(stage.connect("endless"), origin)
    upstream.send(ENDLESS)
    upstream.send_until_stuck(bytes(65536))
    counted.grows()
    client.expect_end()


def test_pings_do_not_keep_an_http2_client_that_reads_nothing(stage, origin):
    counted = stage.ended("tunnel_timeout")
    client = H2TunnelClient(stage.connect("endless"))
    client.ask("/ws", ("sec-websocket-version", "13"))
    upstream = origin.next()
    upstream.send(switch(upstream.read_request()["Sec-WebSocket-Key"]))
    assert client.head()[":status"] == "200"
    upstream.send(ENDLESS)
    upstream.send_until_stuck(bytes(65536))
    counted.grows()
    client.expect_reset()


def test_a_ping_waits_for_the_end_of_a_frame(stage, client, origin):
    client, upstream = open_tunnel(client, origin)
    whole = frame(BINARY, b"abcdef")
    upstream.send(whole[:4])
    client.expect(whole[:4])
    # The server is asked while its own frame is on its way, the client only behind that frame.
    payload = pinged(upstream, True)
    upstream.send(whole[4:] + frame(PONG, payload))
    client.expect(whole[4:])
    client.send(frame(PONG, pinged(client, False), MASK))


class Answering(threading.Thread):
    """An end that has said what it has to say, and answers pings; a client with its mask."""

    def __init__(self, peer, mask=None):
        super().__init__()
        self.peer, self.mask = peer, mask
        self.last = None
        self.start()

    def run(self):
        while (got := read_frame(self.peer))[0] == PING:
            self.peer.send(frame(PONG, got[1], self.mask))
        self.last = got


def test_an_http2_client_that_reads_slowly_is_not_gone(stage, origin):
    """Its window is open: all of it is made frames at once, and the ping waits behind them."""
    client = H2TunnelClient(stage.connect(recv_buffer=4096))
    client.ask("/ws", ("sec-websocket-version", "13"))
    upstream = origin.next()
    upstream.send(switch(upstream.read_request()["Sec-WebSocket-Key"]))
    assert client.head()[":status"] == "200"
    upstream.send(frame(BINARY, b"x" * 1000) * 60)
    server = Answering(upstream)
    for _ in range(90):
        time.sleep(0.02)  # the client's pace
        client.feed(client.peer.sock.recv(500))
    messages = 0
    while messages < 60:
        got = read_frame(client)
        if got[0] == PING:
            client.send(frame(PONG, got[1], MASK))
        else:
            assert got[:2] == (BINARY, b"x" * 1000)
            messages += 1
    client.send(frame(TEXT, b"all", MASK))
    server.join()
    assert server.last == (TEXT, b"all", True)


def test_who_reads_slowly_is_not_gone(stage, origin):
    count = 1500
    client, upstream = open_tunnel(stage.connect(recv_buffer=4096), origin)
    message = frame(BINARY, b"x" * 1000)
    upstream.send(message * count)
    server = Answering(upstream)
    messages = 0
    # Behind what the kernel has for it already a ping waits for longer than a pong may take.
    while messages < count:
        got = read_frame(client)
        if got[0] == PING:
            client.send(frame(PONG, got[1], MASK))
            continue
        assert got[:2] == (BINARY, b"x" * 1000)
        messages += 1
        if messages % 20 == 0:
            time.sleep(0.03)
    client.send(frame(TEXT, b"all", MASK))
    server.join()
    assert server.last == (TEXT, b"all", True)


def test_who_reads_slowly_from_a_unix_socket_is_not_gone(stage):
    """Its kernel tells what it has not read yet, and no times."""
    origin = stage.origins["originunix"]
    client, upstream = open_tunnel(stage.connect("local"), origin)
    client.send(frame(BINARY, b"x" * 1000, MASK) * 60)
    listener = Answering(client, MASK)
    for _ in range(120):
        time.sleep(0.02)  # the server's pace
        upstream.buffered += upstream.sock.recv(500)
    messages = 0
    while messages < 60:
        got = read_frame(upstream)
        if got[0] == PING:
            upstream.send(frame(PONG, got[1]))
        else:
            assert got == (BINARY, b"x" * 1000, True)
            messages += 1
    upstream.send(frame(TEXT, b"all"))
    listener.join()
    assert listener.last == (TEXT, b"all", False)
