"""How streams and connections end: resets at each stage, half-closes, lost connections, drains."""

import signal

import pytest

from harness.bulk import Stopped
from harness.h2_client import (CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
                               HEADERS, INTERNAL_ERROR, NO_ERROR, PREFACE, H2Client, pack, settings)
from harness.http1 import answer, answer_head, chunk, get
from harness.wait import eventually

INI = """
[listener web]
bind = @web
upstream = app
[listener brief]
bind = @brief
upstream = app
timeout_request = 300ms
[listener patient]
bind = @patient
upstream = app
timeout_request = 60s
timeout_client = 60s
timeout_keepalive = 60s
[route hello]
path = /hello
service = hello
[route hole]
path = /hole
upstream = hole
[route dead]
path = /dead
upstream = dead
[service hello]
type = respond
body = hello
[route late]
path = /late
upstream = late
[upstream app]
server = @origin
[upstream late]
server = @origin
timeout_server = 1s
[upstream hole]
server = @hole
timeout_connect = 1s
[upstream dead]
server = @dead
"""


# No other deadline than the one that is tested is near.
PATIENT = INI + """
[defaults]
timeout_request = 60s
"""
TRAILERS = [("x-one", "1"), ("x-two", "2" * 20)]


@pytest.fixture
def h2(stage):
    return H2Client(stage.connect())


def well(stage, h2, stream=101):
    h2.get(stream, "/hello")
    assert h2.answer(stream).body == b"hello"
    eventually(lambda: stage.count("weir_h2_streams_active") == 0, "no stream is left")


def test_reset_while_it_is_dialled(stage, h2):
    counted = stage.ended("client_reset")
    h2.get(1, "/hole")
    h2.echo()
    h2.reset_stream(1)
    well(stage, h2)
    counted.grows()


def test_reset_before_the_body(stage, h2):
    h2.request(1, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    h2.reset_stream(1)
    upstream.expect_end()
    well(stage, h2)


def test_reset_before_the_answer(stage, h2):
    h2.get(1)
    upstream = stage.origin.asked()
    h2.reset_stream(1)
    upstream.expect_end()
    well(stage, h2)


def test_reset_in_the_answer(stage, h2):
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(answer_head(200, "Content-Length: 100") + b"part")
    h2.until(lambda: h2.on(1).body == b"part", "part of the body")
    h2.reset_stream(1)
    upstream.expect_end()
    well(stage, h2)


def test_reset_behind_the_answer_is_ignored(stage, h2):
    h2.get(1, "/hello")
    h2.answer(1)
    h2.reset_stream(1)
    well(stage, h2, 3)


def test_a_head_that_is_refused_counts_for_compression(stage, h2):
    """What it brought into the table, others refer to."""
    h2.get(1, "/hello", ("x-first", "1"), ("connection", "close"))
    h2.expect_reset(1)
    h2.get(3, "/", ("x-first", "1"))
    upstream = stage.origin.next()
    assert upstream.read_request()["x-first"] == "1"
    upstream.send(answer(200, b"well"))
    assert h2.answer(3).body == b"well"


@pytest.mark.parametrize("stage_of_it", ["head", "body", "answer", "idle"])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_the_connection_goes(stage, stage_of_it, how):
    if stage_of_it == "head":
        # All at once: whoever is brief waits for nobody who has stopped in between.
        began = PREFACE + settings() + pack(HEADERS, 0, 1, b"\x82")
        h2 = H2Client(stage.connect("brief"), first=began)
    else:
        h2 = H2Client(stage.connect())
    upstream = None
    if stage_of_it == "body":
        h2.request(1, "POST", "/", end=False)
        upstream = stage.origin.asked(whole=False)
    elif stage_of_it == "answer":
        h2.get(1)
        upstream = stage.origin.asked()
        upstream.send(answer_head(200, "Content-Length: 100000000") + b"part")
        h2.until(lambda: h2.on(1).body == b"part", "part of the body")
    elif stage_of_it == "idle":
        h2.echo()
    if how == "reset":
        h2.peer.reset()
    else:
        h2.peer.close()
        if stage_of_it == "answer":
            # A FIN alone is no reason to stop; more of the answer finds out.
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                for _ in range(1000):
                    upstream.send(b"x" * 10000)
    if upstream:
        upstream.expect_end()
    eventually(lambda: stage.count("weir_h2_streams_active") == 0, "no stream is left")


def test_a_half_close_still_gets_its_answers(stage, h2):
    h2.get(1)
    h2.request(3, "POST", "/", end=False)
    first, second = (stage.origin.accept() for _ in range(2))
    heads = [peer.read_head("request").method for peer in (first, second)]
    whole, half = (first, second) if heads[0] == "GET" else (second, first)
    h2.echo()
    h2.stingy = True    # it can say nothing more
    h2.peer.half_close()
    half.expect_end()
    whole.send(answer(200, b"here"))
    assert h2.answer(1).body == b"here"
    assert h2.peer.expect_end() == "fin"


@pytest.mark.parametrize("sent, counts", [
    (pack(HEADERS, END_STREAM, 1, b"\x82"), 1),
    (pack(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x86\x84")[:-1], 1),
    (pack(HEADERS, END_STREAM, 1, b"\x82") + pack(CONTINUATION, 0, 1, b"\x86\x84")[:-1], 1),
    (pack(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82")[:5], 0),
])
def test_a_fin_within_a_head_ends_the_connection_at_once(stage, sent, counts):
    counted = stage.counter("weir_http_parse_errors_total", reason="client_closed")
    h2 = H2Client(stage.connect("patient"))
    h2.echo()
    h2.stingy = True    # it can say nothing more
    h2.peer.send(sent)
    h2.peer.half_close()
    assert h2.peer.expect_end() == "fin"
    assert counted.grown() == counts


def test_a_fin_within_a_head_leaves_what_was_asked_before(stage):
    h2 = H2Client(stage.connect("patient"))
    h2.get(1)
    upstream = stage.origin.asked()
    h2.echo()
    h2.stingy = True
    h2.peer.send(pack(HEADERS, END_STREAM, 3, b"\x82"))
    h2.peer.half_close()
    h2.expect_reset(3)
    upstream.send(answer(200, b"here"))
    assert h2.answer(1).body == b"here"
    assert h2.peer.expect_end() == "fin"


def test_a_fin_within_trailers_ends_their_request(stage):
    h2 = H2Client(stage.connect("patient"))
    h2.request(1, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    h2.echo()
    h2.stingy = True
    h2.peer.send(pack(HEADERS, END_HEADERS | END_STREAM, 1, h2.block(TRAILERS))[:-5])
    h2.peer.half_close()
    upstream.expect_end()
    assert h2.peer.expect_end() == "fin"


def test_a_server_that_goes_early(stage, h2):
    for n, sent in ((1, b""), (3, b"HTTP/1.1 200 OK\r\nContent-Le")):
        h2.get(n)
        upstream = stage.origin.asked()
        upstream.send(sent)
        upstream.close()
        got = h2.answer(n)
        assert (got.status, got.reason) == (502, "server_closed")
    well(stage, h2)


@pytest.mark.parametrize("sent", [answer_head(200, "Content-Length: 100") + b"part",
                                  answer_head(200, "Transfer-Encoding: chunked") + chunk(b"part")])
def test_an_answer_that_is_cut_shows_it(stage, h2, sent):
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(sent)
    h2.until(lambda: h2.on(1).body == b"part", "part of the body")
    upstream.close()
    h2.expect_reset(1, INTERNAL_ERROR)
    well(stage, h2)


def test_malformed_and_late_and_no_answers(stage, h2):
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(b"HTTP/9\r\n\r\n")
    assert h2.answer(1).reason == "bad_response"
    h2.get(3, "/late")
    stage.origin.asked()
    assert h2.answer(3).reason == "server_timeout"
    h2.get(5, "/dead")
    assert h2.answer(5).reason == "connect_failed"
    h2.get(7, "/hole")
    assert h2.answer(7).reason == "connect_timeout"
    well(stage, h2)


def test_the_rest_of_trailers_for_whom_nobody_waits(stage):
    """Their stream is closed meanwhile; the connection goes on, and nothing of it is late."""
    with Stopped(stage.weir):
        h2 = H2Client(stage.connect("brief"))
        h2.get(1)
    waiting = stage.origin.asked()
    h2.request(3, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    h2.echo()
    h2.stingy = True  # a frame of its own would stand within this one
    frame = pack(HEADERS, END_HEADERS | END_STREAM, 3, h2.block(TRAILERS))
    with Stopped(stage.weir):
        h2.peer.send(frame[:-5])
        upstream.reset()
    assert h2.answer(3).reason == "server_reset"
    h2.expect_reset(3, NO_ERROR)
    h2.peer.send(frame[-5:])
    h2.echo()
    h2.stingy = False
    late = stage.connect("brief")
    late.send(b"GET /")
    assert late.read_response().reason == "request_timeout"
    waiting.send(answer(200, b"good"))
    assert h2.answer(1).body == b"good"


def test_trailers_that_are_late_are_no_request_of_their_own(stage):
    requests = stage.counter("weir_http_requests_total", listener="brief")
    with Stopped(stage.weir):
        h2 = H2Client(stage.connect("brief"))
        h2.request(1, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    h2.echo()
    h2.peer.send(pack(HEADERS, END_HEADERS | END_STREAM, 1, h2.block(TRAILERS))[:-5])
    h2.expect_goaway(ENHANCE_YOUR_CALM)
    upstream.expect_end()
    requests.grows()


def test_drain_says_goodbye_twice(new_stage):
    """First that it will, with the last stream still open; then which stream was the last."""
    stage = new_stage(PATIENT, drain_timeout="60s")
    h2 = H2Client(stage.connect())
    h2.get(1)
    upstream = stage.origin.asked()
    stage.weir.signal(signal.SIGTERM)
    h2.until(lambda: h2.goaway, "GOAWAY")
    assert h2.goaway == (0x7fffffff, NO_ERROR)
    h2.get(3, "/hello")
    assert h2.answer(3).body == b"hello"
    h2.until(lambda: len(h2.goaways) == 2, "the second GOAWAY")
    assert h2.goaway == (3, NO_ERROR)
    h2.request(5, "POST", "/hello", end=False)
    for _ in range(2000):       # too late, which it cannot know: no flood
        h2.frame(DATA, 0, 5, b"x")
    h2.echo()
    h2.stingy = True    # nothing is on its way when the connection ends
    upstream.send(answer(200, b"in the end"))
    assert h2.answer(1).body == b"in the end"
    assert h2.peer.expect_end() == "fin"
    assert 5 not in h2.answers
    stage.weir.drained()


def test_drain_closes_idle_connections(new_stage):
    stage = new_stage(PATIENT, drain_timeout="60s")
    h2 = H2Client(stage.connect())
    h2.get(1, "/hello")
    h2.answer(1)
    stage.weir.signal(signal.SIGTERM)
    h2.expect_goaway(NO_ERROR)
    stage.weir.drained()


def test_drain_is_told_to_who_begins_late(new_stage):
    """Its connection is there before, its HTTP/2 only after the process has begun to drain."""
    stage = new_stage(INI.replace("timeout_server = 1s", ""), drain_timeout="20s")
    asked, fresh = stage.connect(), stage.connect()
    waits = stage.connect()
    upstream = stage.origin.asked_by(waits, get())
    stage.weir.signal(signal.SIGTERM)
    eventually(lambda: b"draining" in stage.weir.admin_get("/readyz").body, "the drain")
    asked.send(get("/hello", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                   "HTTP2-Settings: AAQAAP__"))
    asked.expect(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                 b"Upgrade: h2c\r\n\r\n")
    both = [(H2Client(asked), 3), (H2Client(fresh), 1)]
    for h2, stream in both:
        h2.get(stream, "/hello")
        assert h2.answer(stream).body == b"hello"
    for h2, stream in both:
        h2.expect_goaway(NO_ERROR)
        assert h2.goaways == [(0x7fffffff, NO_ERROR), (stream, NO_ERROR)]
    assert both[0][0].answer(1).body == b"hello"
    upstream.send(answer(200, b"in the end"))
    assert waits.read_response().body == b"in the end"
    assert stage.weir.wait_exit() == 0


def test_drain_timeout_answers_503(new_stage):
    stage = new_stage(INI, drain_timeout="500ms")
    h2 = H2Client(stage.connect())
    h2.get(1)
    h2.get(3)
    for n in range(2):
        upstream = stage.origin.accept()
        upstream.read_request()
        if n == 1:
            upstream.send(answer_head(200, "Content-Length: 100") + b"part")
    h2.until(lambda: h2.on(1).body or h2.on(3).body, "part of one")
    stage.weir.signal(signal.SIGTERM)
    h2.expect_goaway(NO_ERROR)
    cut, unanswered = sorted((h2.on(1), h2.on(3)), key=lambda one: one.ended)
    assert (unanswered.status, unanswered.reason) == (503, "drain_cut")
    assert cut.body == b"part" and not cut.ended
    stage.weir.drained(cut=2)


def test_thousands_of_streams_one_after_another(stage, h2):
    stage.origin.serve()
    for n in range(1, 6001, 2):
        h2.get(n, "/hello" if n % 3 else "/")
        if n % 100 == 1:
            h2.answer(n)
    for n in range(1, 6001, 2):
        assert h2.answer(n).status == 200
    well(stage, h2, 6001)
