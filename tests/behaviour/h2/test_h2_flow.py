"""Flow control couples both sides: who reads one stream slowly holds back that one alone."""

import time

import pytest

from harness.bulk import pattern
from harness.h2_client import DATA, END_STREAM, H2Client
from harness.http1 import answer, answer_head
from harness.stage import HELLO_SERVICE, WEB
from harness.wait import eventually

INI = WEB + HELLO_SERVICE + """
[defaults]
max_body_size = 0
[listener narrow]
bind = @narrow
upstream = app
send_buffer = 16k
[listener thin]
bind = @thin
upstream = app
send_buffer = 16k
timeout_client = 1s
[listener quick]
bind = @quick
upstream = app
timeout_request = 1s
timeout_client = 1s
timeout_keepalive = 1s
min_read_rate = 0
[listener rate]
bind = @rate
upstream = app
timeout_client = 1s
min_read_rate = 1m
[listener shut]
bind = @shut
upstream = app
timeout_client = 1s
min_read_rate = 200k
[route one]
path = /one
upstream = one
[route slow]
path = /slow
host = slow.example
upstream = slow
[route soon]
path = /soon
upstream = soon
[upstream slow]
server = @originslow
[upstream soon]
server = @origin
timeout_server = 300ms
[upstream one]
server = @origin_b max_connections=1
"""

MB = 1 << 20
EARLY_S = 0.02  # the worker's clock is read once a turn, and counts milliseconds


def test_a_long_answer_arrives_whole(stage):
    body = pattern(3 * MB)
    stage.origin.serve(lambda request: answer(200, body))
    h2 = H2Client(stage.connect())
    h2.get(1)
    assert h2.answer(1).body == body


def test_a_long_answer_through_small_windows(stage):
    body = pattern(300_000)
    stage.origin.serve(lambda request: answer(200, body))
    h2 = H2Client(stage.connect(), window=1000)
    h2.get(1)
    got = h2.answer(1)
    assert got.body == body and got.frames >= 300


def test_a_long_request_arrives_whole(stage):
    body = pattern(3 * MB)
    stage.origin.serve(lambda request: answer(200, b"%d" % (request.body == body)))
    h2 = H2Client(stage.connect())
    h2.post(1, "/", body)
    assert h2.answer(1).body == b"1"


def test_long_bodies_side_by_side(stage):
    bodies = {n: pattern(200_000 + n) for n in range(1, 41, 2)}
    stage.origin.serve(lambda request: answer(200, request.body))
    h2 = H2Client(stage.connect())
    for n in bodies:
        h2.request(n, "POST", "/", end=False)
    for at in range(0, 201_000, 5000):
        for n, body in bodies.items():
            if body[at:at + 5000]:
                h2.data(n, body[at:at + 5000])
    for n in bodies:
        h2.data(n, b"", end=True)
    for n, body in bodies.items():
        assert h2.answer(n).body == body


def test_a_slow_reader_of_one_stream_holds_back_no_other(stage):
    """Its server is read no further, as long as it does not read itself."""
    h2 = H2Client(stage.connect(), window=65535)
    h2.stingy = True
    h2.get(1, "/slow")
    slow = stage.origin.accept()
    slow.read_request()
    slow.send(answer_head(200, "Content-Length: 100000000"))
    sent = slow.send_until_stuck(b"s" * 65536)
    assert sent < 20 * MB
    h2.until(lambda: len(h2.on(1).body) == 65535, "the first window")
    h2.open_window(0, 10 * MB)
    for n in range(3, 13, 2):
        h2.get(n)
        upstream = stage.origin.accept()
        upstream.read_request()
        upstream.send(answer(200, b"f" * 50_000))
        upstream.close()
        assert h2.answer(n).body == b"f" * 50_000
    assert len(h2.on(1).body) == 65535
    h2.open_window(1, 10_000)
    h2.until(lambda: len(h2.on(1).body) == 75535, "what was let in")
    h2.reset_stream(1)
    slow.expect_end()


def test_a_slow_server_of_one_stream_holds_back_no_other(stage):
    """Window updates come only as the server takes what was sent."""
    h2 = H2Client(stage.connect())
    h2.echo()
    h2.request(1, "POST", "/slow", end=False)
    slow = stage.origin.accept()
    slow.read_head("request")
    sent = h2.send_until_stuck(1)
    assert sent >= 256 * 1024
    assert h2.room(1) == 0
    body = pattern(500_000)
    for n in (3, 5):
        h2.request(n, "POST", "/fast", ("content-length", str(len(body))), end=False)
        upstream = stage.origin.accept()
        upstream.read_head("request")
        for at in range(0, len(body), 50_000):
            h2.data(n, body[at:at + 50_000], end=at + 50_000 >= len(body))
            assert upstream.read_exactly(50_000) == body[at:at + 50_000]
        upstream.send(answer(200, b"thanks"))
        upstream.close()
        assert h2.answer(n).body == b"thanks"
    # And on it goes, as the slow one reads.
    h2.peer.sock.setblocking(True)
    received = 0
    while received < sent:
        chunk = slow.read_chunk()
        received += len(chunk)
    h2.until(lambda: h2.room(1) > 0, "a window again")
    h2.data(1, b"end", end=True)
    assert slow.read_chunk() == b"end"
    slow.read_chunk()
    slow.read_trailers()
    slow.send(answer(200))
    h2.answer(1)


@pytest.mark.parametrize("together", (False, True))
def test_trailers_wait_for_no_window(stage, together):
    """RFC 9113 section 6.9: only DATA is subject to it. Another stream may have used it up."""
    h2 = H2Client(stage.connect(), window=65535)
    h2.stingy = True
    h2.get(1)
    stage.origin.asked().send(answer_head(200, "Content-Length: 100000") + b"s" * 100_000)
    h2.until(lambda: len(h2.on(1).body) == 65535, "all of the window")
    h2.get(3)
    upstream = stage.origin.asked()
    head, end = answer_head(200, "Transfer-Encoding: chunked"), b"0\r\nX-Status: 0\r\n\r\n"
    if together:
        upstream.send(head + end)
    else:
        upstream.send(head)
        h2.answer_head(3)
        upstream.send(end)
    assert h2.answer(3).trailers == [("x-status", "0")]
    h2.open_window(1, 100_000)
    h2.open_window(0, 100_000)
    h2.answer(1)
    h2.get(5)
    stage.origin.asked().send(answer(200, b"and on"))
    assert h2.answer(5).body == b"and on"


def test_streams_that_are_stuck_are_bounded_together(stage):
    """However many streams a client has, what it may leave with weir is bounded."""
    h2 = H2Client(stage.connect())
    h2.echo()
    held = 0
    for n in range(1, 41, 2):
        h2.request(n, "POST", "/slow", end=False, authority="slow.example")
        stage.origins["originslow"].accept().read_head("request")
        held += h2.send_until_stuck(n)
        if h2.room(0) == 0:
            break
    assert h2.room(0) == 0 and held < 100 * MB


def test_settings_change_windows_under_way(stage):
    from harness.h2_client import INITIAL_WINDOW_SIZE, settings
    h2 = H2Client(stage.connect(), window=100)
    h2.stingy = True
    h2.open_window(0, MB)
    stage.origin.serve(lambda request: answer(200, b"x" * 10_000))
    h2.get(1)
    h2.until(lambda: len(h2.on(1).body) == 100, "the first window")
    h2.peer.send(settings((INITIAL_WINDOW_SIZE, 5000)))
    h2.until(lambda: len(h2.on(1).body) == 5000, "the larger one")
    h2.peer.send(settings((INITIAL_WINDOW_SIZE, 1000)))
    h2.open_window(1, 4000)
    h2.echo()
    assert len(h2.on(1).body) == 5000
    h2.open_window(1, 5000)
    h2.answer(1)


def test_a_request_body_that_stops(stage):
    h2 = H2Client(stage.connect("quick"))
    began = time.monotonic()
    h2.request(1, "POST", "/", ("content-length", "100"), end=False)
    upstream = stage.origin.asked(whole=False)
    h2.data(1, b"half")
    got = h2.answer(1)
    assert (got.status, got.reason) == (408, "client_timeout")
    assert time.monotonic() - began >= 1 - EARLY_S
    upstream.expect_end()


def test_who_listens_to_an_answer_is_not_late_with_the_rest_of_its_request(stage):
    """Once an answer has begun, silence is its server's."""
    h2 = H2Client(stage.connect("quick"))
    h2.request(1, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    upstream.send(answer_head(200, "Content-Length: 8") + b"some")
    h2.until(lambda: h2.on(1).body == b"some", "half of the answer")
    a_second_passes(stage, "quick")
    h2.data(1, b"rest", end=True)
    assert upstream.read_until(b"0\r\n\r\n").endswith(b"rest\r\n0\r\n\r\n")
    upstream.send(b"more")
    assert h2.answer(1).body == b"somemore"


def test_an_answer_that_stops_is_its_servers(stage):
    """Also while the request goes on: after timeout_server, or timeout_client, which is longer."""
    late = stage.ended("server_timeout")
    h2 = H2Client(stage.connect("quick"))
    began = time.monotonic()
    h2.request(1, "POST", "/soon", end=False)
    upstream = stage.origin.asked(whole=False)
    upstream.send(answer_head(200, "Content-Length: 8") + b"some")
    h2.expect_reset(1)
    assert time.monotonic() - began >= 1 - EARLY_S
    late.grows()
    upstream.expect_end()


def test_a_stream_that_moves_keeps_no_other(stage):
    """Each stream has its own time."""
    h2 = H2Client(stage.connect("quick"))
    h2.request(1, "POST", "/", end=False)
    h2.request(3, "POST", "/", end=False)
    for _ in range(2):
        stage.origin.accept().read_head("request")
    deadline = time.monotonic() + 5
    while h2.on(1).fields is None and time.monotonic() < deadline:
        h2.frame(DATA, 0, 3, b"x")
        h2.echo()
        time.sleep(0.05)
    assert h2.on(1).fields and h2.on(3).fields is None
    assert h2.answer(1).status == 408


def test_a_request_body_that_is_too_slow(stage):
    h2 = H2Client(stage.connect("rate"))
    h2.request(1, "POST", "/", ("content-length", "1000000"), end=False)
    stage.origin.asked(whole=False)
    deadline = time.monotonic() + 8
    while h2.on(1).fields is None and time.monotonic() < deadline:
        h2.frame(DATA, 0, 1, b"x" * 100)
        h2.echo()
        time.sleep(0.05)
    got = h2.answer(1)
    assert (got.status, got.reason) == (408, "client_too_slow")


def a_second_passes(stage, name):
    """For who was there before, more than timeout_client, which another client meets."""
    other = H2Client(stage.connect(name))
    other.request(1, "POST", "/", end=False)
    upstream = stage.origin.accept()
    upstream.read_head("request")
    assert other.answer(1).reason == "client_timeout"
    upstream.expect_end()


def test_a_body_that_weir_holds_back_is_not_too_slow(stage):
    """Its server is busy, and weir does not read on: what has come by then says nothing."""
    h2 = H2Client(stage.connect("rate"))
    h2.echo()
    h2.get(1, "/one")
    upstream = stage.origins["origin_b"].accept()
    upstream.read_request()
    body = pattern(100_000)
    h2.request(3, "POST", "/one", ("content-length", str(len(body))), end=False)
    h2.data(3, body[:1000])
    h2.echo()
    a_second_passes(stage, "rate")
    h2.data(3, body[1000:2000])
    h2.echo()
    assert h2.on(3).fields is None
    upstream.send(answer(200, b"first"))
    assert h2.answer(1).body == b"first"
    h2.data(3, body[2000:], end=True)
    seen = upstream.read_request()
    assert seen.body == body
    upstream.send(answer(200, b"second"))
    assert h2.answer(3).body == b"second"


def test_a_body_without_window_is_neither_late_nor_too_slow(stage):
    """Others of its connection have used up the window, as their server does not read."""
    h2 = H2Client(stage.connect("shut"))
    h2.echo()
    stuck = range(1, 41, 2)
    for n in stuck:
        h2.request(n, "POST", "/slow", end=False, authority="slow.example")
        stage.origins["originslow"].accept().read_head("request")
        h2.send_until_stuck(n)
        if h2.room(0) == 0:
            break
    assert h2.room(0) == 0
    body = pattern(60_000)
    h2.request(101, "POST", "/", ("content-length", str(len(body))), end=False)
    upstream = stage.origin.accept()
    upstream.read_head("request")
    a_second_passes(stage, "shut")
    h2.echo()
    assert h2.on(101).fields is None and h2.on(101).code is None
    for used in stuck:
        if used <= n:
            h2.reset_stream(used)
    h2.data(101, body, end=True)
    assert upstream.read_exactly(len(body)) == body
    upstream.send(answer(200, b"thanks"))
    assert h2.answer(101).body == b"thanks"


def test_a_body_is_late_again_once_there_is_window(stage):
    """Its time begins when the window opens, however long that was shut."""
    h2 = H2Client(stage.connect("shut"))
    h2.echo()
    for n in range(1, 41, 2):
        h2.request(n, "POST", "/slow", end=False, authority="slow.example")
        stage.origins["originslow"].accept().read_head("request")
        h2.send_until_stuck(n)
        if h2.room(0) == 0:
            break
    h2.request(101, "POST", "/", end=False)
    stage.origin.accept().read_head("request")
    a_second_passes(stage, "shut")
    opens = time.monotonic()
    for used in range(1, n + 2, 2):
        h2.reset_stream(used)
    h2.until(lambda: h2.room(0) > 0, "a window")
    assert h2.answer(101).reason == "client_timeout"
    assert time.monotonic() - opens >= 0.95


def test_a_head_that_does_not_end(stage):
    counted = stage.counter("weir_http_parse_errors_total", reason="request_timeout")
    h2 = H2Client(stage.connect("quick"))
    h2.stingy = True    # not even SETTINGS are acknowledged: no frame may come between
    h2.frame(1, END_STREAM, 1, b"\x82")
    h2.expect_goaway(11)
    assert counted.grown() == 1


@pytest.mark.parametrize("asked", [False, True])
def test_an_idle_connection_is_closed(stage, asked):
    h2 = H2Client(stage.connect("quick"))
    if asked:
        h2.get(1, "/hello")
        h2.answer(1)
    h2.expect_goaway(0)


def test_pings_do_not_keep_an_idle_connection(stage):
    h2 = H2Client(stage.connect("quick"))
    h2.get(1, "/hello")
    h2.answer(1)
    deadline = time.monotonic() + 6
    try:
        while not h2.ended and time.monotonic() < deadline:
            h2.ping()
            h2.look()
            time.sleep(0.05)
    except (OSError, AssertionError):
        pass
    assert h2.ended or h2.goaway


def test_a_client_that_reads_nothing_is_cut(stage):
    client = stage.connect("quick", recv_buffer=4096)
    h2 = H2Client(client)
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(answer_head(200, "Content-Length: 100000000"))
    upstream.send_until_stuck(b"x" * 65536)
    upstream.expect_end()
    eventually(lambda: stage.count("weir_h2_streams_active") == 0, "the stream has ended")


def test_who_reads_many_answers_slowly_is_late_with_none(stage):
    """All windows are open; a turn of each stream takes longer than timeout_client."""
    body = pattern(60_000)
    stage.origin.serve(lambda request: answer(200, body))
    client = stage.connect("thin", recv_buffer=4096)
    h2 = H2Client(client)
    streams = range(1, 17, 2)
    for n in streams:
        h2.get(n)
    for _ in range(125):
        time.sleep(0.02)  # the client's pace
        client.buffered += client.sock.recv(800)
    client.widen()
    for n in streams:
        assert h2.answer(n).body == body


def test_interim_answers_of_who_reads_nothing_do_not_pile_up(stage):
    """Nobody pauses a server for them: past a number that waits, they are left out."""
    h2 = H2Client(stage.connect("narrow", recv_buffer=4096))
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(b"".join(b"HTTP/1.1 102 Processing\r\nX-Step: %s%d\r\n\r\n" % (b"s" * 1000, n)
                           for n in range(8000)))
    upstream.send(answer(200, b"done"))
    got = h2.answer(1)
    assert got.status == 200 and got.body == b"done"
    assert 0 < len(got.interims) < 4000
    assert got.interims[0][1][1].endswith("s0")
