"""What a client may make weir do for nothing: each kind ends its connection, and is counted."""

import struct

import pytest

from harness.h2_client import (CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM,
                               ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, GOAWAY, HEADERS, NO_ERROR,
                               PADDED, PING, PRIORITY, REFUSED_STREAM, SETTINGS, WINDOW_UPDATE,
                               H2Client, pack)
from harness.http1 import answer, answer_head, get
from harness.stage import HELLO_SERVICE, WEB

INI = WEB + HELLO_SERVICE + """
[defaults]
timeout_client = 1s
h2_max_resets = 20
h2_max_made_resets = 20
h2_max_continuations = 4
h2_max_settings = 20
h2_max_pings = 20
h2_max_empty_data = 20
h2_max_priority = 20
h2_max_window_updates = 200
h2_max_stalled = 3
h2_max_closed = 20
[listener open]
bind = @open
upstream = app
timeout_client = 60s
h2_max_resets = 0
h2_max_made_resets = 0
h2_max_continuations = 0
h2_max_settings = 0
h2_max_pings = 0
h2_max_empty_data = 0
h2_max_priority = 0
h2_max_window_updates = 0
h2_max_closed = 0
[listener few]
bind = @few
upstream = app
h2_max_streams = 3
"""


def rapid_reset(h2, n):
    h2.get(2 * n + 1)
    h2.reset_stream(2 * n + 1, CANCEL)


def made_reset(h2, n):
    """A fault of the stream's own, for which weir has to reset it."""
    h2.get(2 * n + 1)
    h2.frame(WINDOW_UPDATE, 0, 2 * n + 1, struct.pack(">I", 0x7fffffff))


def made_reset_by_a_head(h2, n):
    h2.get(2 * n + 1, "/", ("connection", "close"))


def settings(h2, n):
    h2.frame(SETTINGS, 0, 0)


def ping(h2, n):
    h2.frame(PING, 0, 0, b"12345678")


def empty_data(h2, n):
    if n == 0:
        h2.request(1, "POST", "/", end=False)
    h2.frame(DATA, 0, 1)


def padding_alone(h2, n):
    if n == 0:
        h2.request(1, "POST", "/", end=False)
    h2.frame(DATA, PADDED, 1, b"\x04" + bytes(4))


def priority(h2, n):
    h2.frame(PRIORITY, 0, 2 * n + 1, struct.pack(">IB", 0, 5))


def window_update(h2, n):
    for _ in range(10):
        h2.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))


def goaway(h2, n):
    if n == 0:
        h2.request(1, "POST", "/", end=False)
    h2.frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0))


def ended(h2, n):
    if n == 0:
        h2.get(1, "/hello")
        h2.answer(1)


def head_after_the_end(h2, n):
    ended(h2, n)
    h2.headers(1, [("x", "1")])


def reset_after_the_end(h2, n):
    ended(h2, n)
    h2.reset_stream(1, CANCEL)


def data_after_the_end(h2, n):
    """nghttp2 drops it unseen."""
    ended(h2, n)
    h2.frame(DATA, 0, 1, b"x")


def empty_data_after_the_end(h2, n):
    ended(h2, n)
    h2.frame(DATA, 0, 1)


def data_after_its_reset(h2, n):
    if n == 0:
        h2.request(1, "POST", "/", end=False)
        h2.reset_stream(1, CANCEL)
    h2.frame(DATA, 0, 1, b"x")


FLOODS = [(rapid_reset, "rapid_reset"), (made_reset, "made_reset"),
          (made_reset_by_a_head, "made_reset"), (settings, "settings"), (ping, "ping"),
          (empty_data, "empty_data"), (padding_alone, "empty_data"), (priority, "priority"),
          (goaway, "priority"), (window_update, "window_update"),
          (head_after_the_end, "closed"), (reset_after_the_end, "closed"),
          (data_after_the_end, "closed"), (empty_data_after_the_end, "closed"),
          (data_after_its_reset, "closed")]


def floods(stage, kind):
    return stage.counter("weir_h2_flood_total", kind=kind)


def flooded(stage, h2, counted):
    h2.expect_goaway(ENHANCE_YOUR_CALM)
    assert counted.grown() == 1
    assert stage.connect().ask(get("/hello")).status == 200


@pytest.mark.parametrize("act, kind", FLOODS)
def test_floods_end_the_connection(stage, act, kind):
    counted = floods(stage, kind)
    h2 = H2Client(stage.connect(), window=65535)
    stage.origin.serve()
    try:
        for n in range(60):
            act(h2, n)
    except OSError:
        pass
    flooded(stage, h2, counted)


@pytest.mark.parametrize("act, kind", FLOODS)
def test_as_many_as_the_limit_are_no_flood(stage, act, kind):
    """The client's own SETTINGS are one of them, and so is the PING of its echo."""
    counted = stage.counter("weir_h2_flood_total")
    h2 = H2Client(stage.connect(), window=65535)
    h2.stingy = True
    stage.origin.serve()
    for n in range(19 if kind in ("settings", "ping") else 20):
        act(h2, n)
    h2.echo()
    assert counted.grown() == 0
    assert stage.connect().ask(get("/hello")).body == b"hello"


@pytest.mark.parametrize("act, kind", FLOODS)
def test_a_limit_of_0_is_off(stage, act, kind):
    counted = stage.counter("weir_h2_flood_total")
    h2 = H2Client(stage.connect("open"), window=65535)
    stage.origin.serve()
    for n in range(90):
        act(h2, n)
    h2.echo()
    assert counted.grown() == 0


def test_a_ping_for_each_piece_of_an_answer_is_no_flood(stage):
    """As gRPC's clients measure the path: they do it for as long as data comes."""
    counted = stage.counter("weir_h2_flood_total")
    h2 = H2Client(stage.connect())
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(answer_head(200, "Content-Length: 60"))
    for n in range(60):
        upstream.send(b"x")
        h2.until(lambda: len(h2.on(1).body) == n + 1, "a piece")
        h2.echo()
    assert h2.answer(1).body == b"x" * 60
    assert counted.grown() == 0


def test_who_waits_for_as_many_as_it_takes_back_is_no_flood(stage):
    """A proxy carries the deadlines and the cancelled calls of many on one connection."""
    before = stage.count("weir_h2_flood_total")
    h2 = H2Client(stage.connect())
    stage.origin.serve()
    for n in range(60):
        rapid_reset(h2, 2 * n)
        h2.get(4 * n + 3, "/hello")
        assert h2.answer(4 * n + 3).body == b"hello"
    assert stage.count("weir_h2_flood_total") == before


def test_who_resets_each_stream_once_more_is_no_flood(stage):
    """As gRPC's clients do when their call ends early: it crosses the end of the stream."""
    counted = stage.counter("weir_h2_flood_total")
    h2 = H2Client(stage.connect())
    for n in range(1, 121, 2):
        h2.get(n, "/hello")
        h2.answer(n)
        h2.reset_stream(n, CANCEL)
    h2.echo()
    assert counted.grown() == 0


def unwanted_body(stage):
    """Answered before its end, and so reset: what was sent meanwhile is on its way."""
    h2 = H2Client(stage.connect())
    h2.request(1, "POST", "/hello", end=False)
    h2.expect_reset(1, NO_ERROR)
    return h2


def test_a_body_that_crosses_its_answer_is_no_flood(stage):
    counted = stage.counter("weir_h2_flood_total")
    h2 = unwanted_body(stage)
    for _ in range(60):
        h2.frame(DATA, 0, 1, b"x")
    h2.frame(DATA, END_STREAM, 1)
    h2.echo()
    assert counted.grown() == 0


def test_a_body_that_crosses_its_refusal_is_no_flood(stage):
    counted = stage.counter("weir_h2_flood_total")
    h2 = H2Client(stage.connect("few"))
    for n in range(1, 9, 2):
        h2.request(n, "POST", "/", end=False)
    for _ in range(60):
        h2.frame(DATA, 0, 7, b"x")
    h2.expect_reset(7, REFUSED_STREAM)
    h2.echo()
    assert counted.grown() == 0


def test_a_body_that_crosses_the_end_for_a_fault_is_no_flood(stage):
    """A fault that nghttp2 finds, and resets the stream for."""
    counted = stage.counter("weir_h2_flood_total")
    h2 = H2Client(stage.connect())
    h2.request(1, "POST", "/", end=False)
    h2.frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 0x7fffffff))
    h2.expect_reset(1, FLOW_CONTROL_ERROR)
    for _ in range(60):
        h2.frame(DATA, 0, 1, b"x")
    h2.echo()
    assert counted.grown() == 0


def test_more_of_a_body_than_may_cross_its_answer_is_a_flood(stage):
    counted = floods(stage, "closed")
    h2 = unwanted_body(stage)
    for _ in range(256 * 1024 // 16384):  # its window
        h2.frame(DATA, 0, 1, bytes(16384))
    h2.echo()
    for _ in range(30):
        h2.frame(DATA, 0, 1, b"x")
    flooded(stage, h2, counted)


def test_no_more_may_cross_the_ends_of_many_than_the_window_of_all(stage):
    counted = floods(stage, "closed")
    h2 = H2Client(stage.connect())
    for n in range(1, 13, 2):
        h2.request(n, "POST", "/hello", end=False)
    for n in range(1, 13, 2):
        h2.expect_reset(n, NO_ERROR)
    for _ in range(1024 * 1024 // 16384):
        h2.frame(DATA, 0, 1, bytes(16384))
    h2.echo()
    assert counted.grown() == 0
    for _ in range(40):
        h2.frame(DATA, 0, 3, b"x")
    flooded(stage, h2, counted)


def test_a_flood_ends_the_requests_of_its_connection(stage):
    counted = stage.ended("h2_flood")
    h2 = H2Client(stage.connect())
    h2.get(1)
    upstream = stage.origin.asked()
    for _ in range(30):
        h2.frame(PING, 0, 0, b"12345678")
    h2.expect_goaway(ENHANCE_YOUR_CALM)
    upstream.expect_end()
    counted.grows()


def test_continuations(stage):
    counted = floods(stage, "continuation")
    h2 = H2Client(stage.connect())
    h2.frame(HEADERS, END_STREAM, 1, b"")
    for _ in range(5):
        h2.frame(CONTINUATION, 0, 1, b"")
    flooded(stage, h2, counted)


def test_continuations_where_the_key_is_off(stage):
    counted = floods(stage, "continuation")
    h2 = H2Client(stage.connect("open"))
    h2.frame(HEADERS, END_STREAM, 1, b"")
    for _ in range(70):
        h2.frame(CONTINUATION, 0, 1, b"")
    flooded(stage, h2, counted)


def test_continuations_of_a_head_that_is_refused_already(stage):
    """The rest of a block on a stream too many is not looked at, but counted."""
    counted = floods(stage, "continuation")
    h2 = H2Client(stage.connect())
    for n in range(100):
        h2.request(2 * n + 1, "POST", "/hello", end=False)
    h2.frame(HEADERS, END_STREAM, 201, b"")
    for _ in range(70):
        h2.frame(CONTINUATION, 0, 201, b"")
    flooded(stage, h2, counted)


@pytest.mark.parametrize("name", ["x-fill", "cookie"])
def test_hpack_bombs(stage, name):
    """A field of 4000 bytes, then a reference of one byte to it, over and over."""
    counted = floods(stage, "hpack")
    h2 = H2Client(stage.connect())
    block = h2.block([(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")])
    text, value = name.encode(), b"y" * 4000
    literal = b"\x40" + bytes([len(text)]) + text + b"\x7f" + bytes([4000 - 127 & 127 | 128,
                                                                     4000 - 127 >> 7]) + value
    h2.frame(HEADERS, END_STREAM | END_HEADERS, 1, block + literal + b"\xbe" * 100)
    flooded(stage, h2, counted)
    assert stage.origin.saw_nothing()


def test_many_crumbs_are_a_bomb(stage):
    counted = floods(stage, "hpack")
    h2 = H2Client(stage.connect())
    h2.get(1, "/", *(("cookie", "a") for _ in range(500)))
    flooded(stage, h2, counted)


def test_streams_too_many_of_who_reads_nothing(stage):
    """Each is refused by a frame, which waits: also where no limit is set."""
    counted = floods(stage, "made_reset")
    h2 = H2Client(stage.connect("open", recv_buffer=4096))
    block = h2.block([(":method", "POST"), (":scheme", "http"), (":path", "/hello"),
                      (":authority", "a")])
    h2.frame(HEADERS, END_HEADERS, 1, block)
    try:
        for first in range(3, 4_000_000, 2000):
            h2.peer.send(b"".join(pack(HEADERS, END_HEADERS, first + n, block)
                                  for n in range(0, 2000, 2)))
            if counted.grown():
                break
    except OSError:
        pass
    assert counted.grown() == 1
    assert stage.weir.rss_bytes() < 400 << 20
    assert stage.connect().ask(get("/hello")).status == 200


@pytest.mark.parametrize("kind, payload", [(PING, b"12345678"), (SETTINGS, b"")],
                         ids=["pings", "settings"])
def test_acknowledgements_that_nobody_reads_are_a_flood(stage, kind, payload):
    """Also where there may be any number of what asks for them: they wait in weir's memory."""
    counted = floods(stage, "settings")
    h2 = H2Client(stage.connect("open", recv_buffer=4096))
    try:
        for _ in range(1000):
            h2.peer.send(pack(kind, 0, 0, payload) * 1000)
            if counted.grown():
                break
    except OSError:
        pass
    counted.grows()
    assert stage.connect().ask(get("/hello")).status == 200


def beyond_the_limit(stage, count, acknowledge):
    """A client that asks for more streams than it may have, of which it may know."""
    h2 = H2Client(stage.connect("few"))
    if acknowledge:
        h2.echo()
    h2.stingy = True
    for n in range(3):
        h2.request(2 * n + 1, "POST", "/hello", end=False)
    try:
        for n in range(3, 3 + count):
            h2.get(2 * n + 1)
    except OSError:
        pass
    return h2


@pytest.mark.parametrize("acknowledge", [False, True])
def test_streams_beyond_the_limit_are_a_flood(stage, acknowledge):
    counted = floods(stage, "made_reset")
    flooded(stage, beyond_the_limit(stage, 60, acknowledge), counted)
    assert stage.origin.saw_nothing()


@pytest.mark.parametrize("acknowledge", [False, True])
def test_some_streams_beyond_the_limit_are_no_flood(stage, acknowledge):
    """A client knows of no limit before it has read the SETTINGS."""
    counted = stage.counter("weir_h2_flood_total")
    refused = stage.counter("weir_http_parse_errors_total", reason="max_streams")
    h2 = beyond_the_limit(stage, 20, acknowledge)
    h2.echo()
    for n in range(3):
        h2.data(2 * n + 1, b"", end=True)
        assert h2.answer(2 * n + 1).body == b"hello"
    assert counted.grown() == 0
    assert refused.grown() == 20


def test_a_window_opened_byte_by_byte(stage):
    """Each byte takes a frame to ask for it, and one to send it."""
    counted = floods(stage, "window_update")
    stage.origin.serve(lambda request: answer(200, b"x" * 10_000))
    h2 = H2Client(stage.connect(), window=0)
    h2.stingy = True
    h2.get(1)
    h2.answer_head(1)
    for n in range(300):
        h2.open_window(1, 1)
        while not h2.goaway and len(h2.on(1).body) <= n and h2.fill():
            pass
        if h2.goaway:
            break
    assert len(h2.on(1).body) == 200
    flooded(stage, h2, counted)


def test_windows_that_stay_shut(stage):
    """Each stream nobody reads ends after timeout_client, and too many of them end the rest."""
    counted = floods(stage, "zero_window")
    late = stage.ended("client_timeout")
    h2 = H2Client(stage.connect(), window=0)
    h2.stingy = True
    for n in range(1, 9, 2):
        h2.get(n)
        upstream = stage.origin.accept()
        upstream.read_request()
        upstream.send(answer(200, b"x" * 1_000_000)[:200_000])
    h2.expect_goaway(ENHANCE_YOUR_CALM)
    assert counted.grown() == 1
    assert 3 <= late.grown() <= 4


def test_a_window_that_stays_shut_ends_its_stream_alone(stage):
    late = stage.ended("client_timeout")
    h2 = H2Client(stage.connect(), window=0)
    h2.stingy = True
    h2.get(1)
    upstream = stage.origin.accept()
    upstream.read_request()
    upstream.send(answer(200, b"x" * 1_000_000)[:200_000])
    h2.expect_reset(1)
    h2.open_window(0, 1000)
    h2.get(3, "/hello")
    h2.open_window(3, 1000)
    assert h2.answer(3).body == b"hello"
    late.grows()


def test_a_whole_answer_that_is_not_read_is_given_up(stage):
    """The request has ended for its server; its stream still waits, and not for ever."""
    h2 = H2Client(stage.connect(), window=0)
    h2.stingy = True
    h2.get(1, "/hello")
    h2.expect_reset(1)
    h2.echo()
    assert stage.count("weir_h2_streams_active") == 0
