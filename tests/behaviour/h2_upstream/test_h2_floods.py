"""What a server may make weir do for nothing: each kind ends its connection, and is counted."""

import struct

import pytest

from harness.h2_client import (CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
                               HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE)
from harness.h2_server import WINDOW, H2Server
from harness.http1 import get, post
from harness.peer import WasReset

INI = """
[defaults]
h2_max_settings = 20
h2_max_pings = 20
h2_max_empty_data = 20
h2_max_priority = 20
h2_max_window_updates = 200
h2_max_closed = 20
[listener web]
bind = @web
upstream = app
[listener open]
bind = @open
upstream = open
[upstream app]
protocol = h2
server = @origin
h2_max_continuations = 4
[upstream open]
protocol = h2
server = @origin
h2_max_settings = 0
h2_max_pings = 0
h2_max_empty_data = 0
h2_max_priority = 0
h2_max_window_updates = 0
h2_max_closed = 0
"""


def settings(server, request, n):
    server.frame(SETTINGS, 0, 0)


def ping(server, request, n):
    server.frame(PING, 0, 0, b"12345678")


def begin(server, request, n):
    if n == 0:
        server.head(request, 200)


def empty_data(server, request, n):
    begin(server, request, n)
    server.frame(DATA, 0, request.id)


def priority(server, request, n):
    server.frame(PRIORITY, 0, request.id, struct.pack(">IB", 0, 5))


def window_update(server, request, n):
    for _ in range(10):
        server.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))


def reset_after_the_end(server, request, n):
    """Of a stream before this one."""
    server.frame(RST_STREAM, 0, 1, struct.pack(">I", 0))


def head_after_the_end(server, request, n):
    server.frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88")


def data_after_the_end(server, request, n):
    server.frame(DATA, 0, 1, b"x")


FLOODS = [(settings, "settings"), (ping, "ping"), (empty_data, "empty_data"),
          (priority, "priority"), (window_update, "window_update"),
          (reset_after_the_end, "closed"), (head_after_the_end, "closed"),
          (data_after_the_end, "closed")]


def one(stage, name="web"):
    """A request on a connection that has carried another."""
    client = stage.connect(name)
    client.send(get("/first"))
    server = H2Server(stage.origin.accept())
    server.answer(server.next_request(), 200, b"first")
    assert client.read_response().body == b"first"
    client.send(get("/second"))
    return client, server, server.next_request()


def flooded(stage, server, counted, ended):
    """weir says why, and ends the connection."""
    try:
        while server.fill():
            pass
    except WasReset:
        pass
    assert server.goaway.error_code == ENHANCE_YOUR_CALM
    assert counted.grown() == 1
    ended.grows()
    client = stage.connect()
    client.send(get())
    server = H2Server(stage.origin.accept())
    server.answer(server.next_request(), 200, b"well")
    assert client.read_response().body == b"well"


@pytest.mark.parametrize("act, kind", FLOODS)
def test_a_flood_from_a_server_ends_its_connection(stage, act, kind):
    counted = stage.counter("weir_h2_flood_total", kind=kind)
    ended = stage.ended("server_flood")
    client, server, request = one(stage)
    try:
        for n in range(60):
            act(server, request, n)
    except OSError:
        pass
    flooded(stage, server, counted, ended)
    client.close()


@pytest.mark.parametrize("act, kind", FLOODS)
def test_as_many_from_a_server_as_the_limit_are_no_flood(stage, act, kind):
    """Its own SETTINGS and the acknowledgement of weir's are two, the PING of its echo is one."""
    counted = stage.counter("weir_h2_flood_total")
    client, server, request = one(stage)
    for n in range(20 - {"settings": 2, "ping": 1}.get(kind, 0)):
        act(server, request, n)
    server.echo()
    begin(server, request, int(act is empty_data))
    server.data(request, b"good", end=True)
    assert client.read_response().body == b"good"
    assert counted.grown() == 0


@pytest.mark.parametrize("act, kind", FLOODS)
def test_a_limit_of_0_is_off_for_a_server(stage, act, kind):
    counted = stage.counter("weir_h2_flood_total")
    client, server, request = one(stage, "open")
    for n in range(90):
        act(server, request, n)
    server.echo()
    begin(server, request, int(act is empty_data))
    server.data(request, b"good", end=True)
    assert client.read_response().body == b"good"
    assert counted.grown() == 0


def test_a_flood_before_the_answer_is_502(stage):
    client, server, request = one(stage)
    for n in range(30):
        server.frame(PING, 0, 0, b"12345678")
    response = client.read_response()
    assert (response.status, response.reason) == (502, "server_flood")
    server.expect_end()


def test_continuations_of_a_server(stage):
    counted = stage.counter("weir_h2_flood_total", kind="continuation")
    ended = stage.ended("server_flood")
    client, server, request = one(stage)
    server.frame(HEADERS, 0, request.id, b"\x88")
    for _ in range(5):
        server.frame(CONTINUATION, 0, request.id)
    flooded(stage, server, counted, ended)
    client.close()


def test_an_hpack_bomb_of_a_server(stage):
    """A field of 4000 bytes, then a reference of one byte to it, over and over."""
    counted = stage.counter("weir_h2_flood_total", kind="hpack")
    ended = stage.ended("server_flood")
    client, server, request = one(stage)
    literal = b"\x40\x01x\x7f" + bytes([4000 - 127 & 127 | 128, 4000 - 127 >> 7]) + b"y" * 4000
    server.frame(HEADERS, END_HEADERS, request.id, b"\x88" + literal + b"\xbe" * 100)
    flooded(stage, server, counted, ended)
    client.close()


def test_a_window_opened_for_each_piece_that_is_read_is_no_flood(stage):
    """As servers do whose programs read little at a time: both windows for each 512 bytes."""
    counted = stage.counter("weir_h2_flood_total")
    client = stage.connect()
    client.send(post("/", b"x" * 400_000))
    server = H2Server(stage.origin.accept(), {WINDOW: 300_000})
    server.h2.increment_flow_control_window(300_000)
    server.stingy = True
    request = server.next_request()
    read = 0
    while read < 400_000:
        server.until(lambda: request.unread, "more of it")
        count = min(request.unread, 512)
        server.read(request, count)
        read += count
    server.until(lambda: request.ended, "its end")
    server.answer(request, 200, b"good")
    assert client.read_response().body == b"good"
    assert counted.grown() == 0


def test_a_ping_for_each_piece_of_an_answer_is_no_flood(stage):
    counted = stage.counter("weir_h2_flood_total")
    client, server, request = one(stage)
    server.head(request, 200, ("content-length", "60"))
    for _ in range(60):
        server.data(request, b"x")
        server.echo()
    assert client.read_response().body == b"x" * 60
    assert counted.grown() == 0


def test_a_reset_after_the_end_of_each_stream_is_no_flood(stage):
    counted = stage.counter("weir_h2_flood_total")
    client = stage.connect()
    client.send(get())
    server = H2Server(stage.origin.accept())
    for _ in range(60):
        request = server.next_request()
        server.answer(request, 200, b"good")
        assert client.read_response().body == b"good"
        server.frame(RST_STREAM, 0, request.id, struct.pack(">I", 0))
        client.send(get())
    server.answer(server.next_request(), 200, b"last")
    assert client.read_response().body == b"last"
    assert counted.grown() == 0
