"""What a request over HTTP/2 is for a server of HTTP/1, and its answer for the client."""

import struct

import pytest

from harness.h2_client import (CANCEL, CONNECT_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM,
                               HEADERS, MAX_CONCURRENT_STREAMS, PADDED, PREFACE, PRIORITY,
                               REFUSED_STREAM, WITH_PRIORITY, H2Client, pack,
                               settings)
from harness.http1 import answer, answer_chunked, get

INI = """
[defaults]
max_body_size = 0
[listener web]
bind = @web
upstream = app
[listener few]
bind = @few
upstream = app
h2_max_streams = 3
[route tunnel]
host = tunnel.example
connect = on
upstream = app
[route hello]
path = /hello
service = hello
[service hello]
type = respond
body = hello from weir
[upstream app]
server = @origin
"""


@pytest.fixture
def h2(stage):
    return H2Client(stage.connect())


def test_a_request_and_its_answer(stage, h2):
    counted = stage.counter("weir_http_requests_total", proto="h2", code="2xx", listener="web")
    h2.request(1, "GET", "/a?b=c", ("accept", "x"), ("te", "trailers"))
    upstream = stage.origin.next()
    seen = upstream.read_request()
    assert (seen.method, seen.target, seen["Host"]) == ("GET", "/a?b=c", "a.example")
    assert seen["accept"] == "x" and seen["Via"] == "2 weir"
    assert seen["X-Forwarded-Proto"] == "http" and seen["X-Forwarded-Host"] == "a.example"
    upstream.send(answer(200, b"hello", "X-One: 1", "Keep-Alive: 5"))
    got = h2.answer(1)
    assert (got.status, got.body, got["content-length"], got["x-one"]) == (200, b"hello", "5", "1")
    assert got["date"] and got["via"] == "1.1 weir" and got["keep-alive"] is None
    counted.grows()


def test_settings_say_what_is_offered(h2):
    h2.echo()
    h2.until(lambda: 0 in h2.opened, "the connection's window")  # an answer to PING overtakes it
    assert h2.settings[3] == 100 and h2.settings[4] == 256 * 1024 and h2.settings[8] == 1
    h2.until(lambda: 0 in h2.opened, "the connection's window")
    assert h2.acknowledged == 1 and h2.opened[0] == 1024 * 1024 - 65535


def test_a_body_with_a_length(stage, h2):
    h2.post(1, "/", b"x" * 100_000)
    seen = stage.origin.next()
    request = seen.read_request()
    assert request.body == b"x" * 100_000 and request["Content-Length"] == "100000"
    seen.send(answer(204))
    assert h2.answer(1).status == 204


def test_a_body_without_a_length_is_chunked(stage, h2):
    h2.request(1, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    for piece in (b"one", b"two"):
        h2.data(1, piece)
        assert upstream.read_chunk() == piece
    h2.data(1, b"", end=True)
    assert upstream.read_chunk() == b""
    upstream.read_trailers()
    upstream.send(answer(200, b"ok"))
    assert h2.answer(1).body == b"ok"


def test_trailers_pass_both_ways(stage, h2):
    h2.request(1, "POST", "/", ("te", "trailers"), end=False)
    h2.data(1, b"body")
    h2.headers(1, [("x-sum", "4"), ("content-length", "9"), ("x-more", "5")])
    upstream = stage.origin.next()
    request = upstream.read_request()
    assert request.body == b"body"
    assert [(name.lower(), value) for name, value in request.trailers] == [("x-sum", "4"),
                                                                           ("x-more", "5")]
    upstream.send(answer_chunked(b"answer", trailers=["X-End: 1"]))
    got = h2.answer(1)
    assert got.body == b"answer" and got.trailers == [("x-end", "1")]


def test_trailers_of_an_answer_without_a_body(stage, h2):
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(answer_chunked(trailers=["X-End: 1"]))
    assert h2.answer(1).trailers == [("x-end", "1")]


def test_cookie_crumbs_are_joined(stage, h2):
    h2.get(1, "/", ("cookie", "a=1"), ("x-between", "x"), ("cookie", "b=2"), ("cookie", "c=3"))
    upstream = stage.origin.next()
    seen = upstream.read_request()
    assert seen["Cookie"] == "a=1; b=2; c=3" and seen["X-Between"] == "x"
    upstream.send(answer(200))
    h2.answer(1)


def test_host_stands_in_for_the_authority(stage, h2):
    h2.headers(1, [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b.example")])
    upstream = stage.origin.next()
    assert upstream.read_request()["Host"] == "b.example"
    upstream.send(answer(200))
    h2.answer(1)


def test_interim_answers_pass(stage, h2):
    h2.request(1, "POST", "/", ("expect", "100-continue"), ("content-length", "4"), end=False)
    upstream = stage.origin.next()
    assert upstream.read_head("request")["Expect"] == "100-continue"
    upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                  b"HTTP/1.1 100 Continue\r\n\r\n")
    h2.until(lambda: len(h2.on(1).interims) == 2, "two interim answers")
    assert h2.on(1).interims[0] == [(":status", "103"), ("link", "</x>")]
    h2.data(1, b"body", end=True)
    upstream.expect(b"body")
    upstream.send(answer(200, b"x"))
    assert h2.answer(1).body == b"x"


@pytest.mark.parametrize("method, head, length", [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "1234"),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", "77"),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"),
])
def test_answers_without_a_body_end_with_their_head(stage, h2, method, head, length):
    h2.request(1, method)
    upstream = stage.origin.asked(whole=False)
    upstream.send(head)
    got = h2.answer(1)
    assert got["content-length"] == length and got.frames == 0 and not got.body
    h2.get(3, "/hello")
    assert h2.answer(3).status == 200


def test_a_body_until_the_end_of_the_connection(stage, h2):
    h2.get(1)
    upstream = stage.origin.asked()
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    upstream.close()
    got = h2.answer(1)
    assert got.body == b"all of it" and got["content-length"] is None


def test_every_byte_by_itself(stage):
    client = stage.connect()
    h2 = H2Client(client, first=b"")
    block = h2.block([(":method", "POST"), (":scheme", "http"), (":path", "/"),
                      (":authority", "a"), ("content-length", "5")])
    client.send_each_byte(PREFACE + settings() + pack(HEADERS, END_HEADERS, 1, block) +
                          pack(DATA, 0, 1, b"he") + pack(DATA, END_STREAM, 1, b"llo"))
    upstream = stage.origin.next()
    assert upstream.read_request().body == b"hello"
    upstream.send_each_byte(answer_chunked(b"one", b"two", trailers=["X-T: 1"]))
    got = h2.answer(1)
    assert got.body == b"onetwo" and got.trailers == [("x-t", "1")]


def test_a_head_over_continuations(stage, h2):
    block = h2.block([(":method", "GET"), (":scheme", "http"), (":path", "/x"),
                      (":authority", "a"), *((f"x-{n}", "v" * 50) for n in range(20))])
    cuts = [0, 1, 2, 100, 101, 300, len(block)]
    parts = [block[a:b] for a, b in zip(cuts, cuts[1:])]
    h2.frame(HEADERS, END_STREAM, 1, parts[0])
    for part in parts[1:-1]:
        h2.frame(CONTINUATION, 0, 1, part)
    h2.frame(CONTINUATION, END_HEADERS, 1, parts[-1])
    upstream = stage.origin.next()
    seen = upstream.read_request()
    assert seen.target == "/x" and seen["x-19"] == "v" * 50
    upstream.send(answer(200, b"", *(f"Y-{n}: " + "w" * 2000 for n in range(7))))
    got = h2.answer(1)
    assert got["y-6"] == "w" * 2000


def test_a_large_answer_head_takes_continuations(stage):
    """Over 16 KB after compression it does not fit one frame."""
    h2 = H2Client(stage.connect())
    h2.get(1)
    upstream = stage.origin.asked()
    text = "".join(chr(33 + n * 7 % 90) for n in range(1900))
    upstream.send(answer(200, b"x", *(f"Y-{n}: {n}{text}" for n in range(8))))
    got = h2.answer(1)
    assert got["y-7"] == "7" + text and got.body == b"x"


def test_padding_and_priority_are_taken(stage, h2):
    block = h2.block([(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a"),
                      ("content-length", "4")])
    h2.frame(PRIORITY, 0, 3, struct.pack(">IB", 0, 200))
    h2.frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1,
             b"\x08" + struct.pack(">IB", 3, 15) + block + b"\0" * 8)
    h2.frame(DATA, PADDED, 1, b"\x10" + b"bo" + b"\0" * 16)
    h2.frame(DATA, PADDED | END_STREAM, 1, b"\x00" + b"dy")
    upstream = stage.origin.next()
    assert upstream.read_request().body == b"body"
    upstream.send(answer(200, b"ok"))
    assert h2.answer(1).body == b"ok"


def test_unknown_frames_and_settings_are_ignored(stage, h2):
    h2.frame(0xbe, 0xff, 0, b"what")
    h2.frame(0xbe, 0xff, 7, b"what")
    h2.peer.send(settings((0xabc, 5)))
    h2.get(1, "/hello")
    assert h2.answer(1).body == b"hello from weir"


def test_streams_are_answered_in_any_order(stage, h2):
    for n in range(1, 201, 2):
        h2.get(n, f"/{n}")
    upstreams = {}
    for _ in range(100):
        upstream = stage.origin.accept()
        upstreams[int(upstream.read_request().target[1:])] = upstream
    for n in sorted(upstreams, reverse=True):
        upstreams[n].send(answer(200, b"%d" % n))
        assert h2.answer(n).body == b"%d" % n
    assert stage.count("weir_h2_streams_active") == 0


def test_a_stream_too_many_is_refused(stage, h2):
    for n in range(1, 203, 2):
        h2.get(n, f"/{n}")
    h2.expect_reset(201, REFUSED_STREAM)
    for _ in range(100):
        upstream = stage.origin.accept()
        upstream.read_request()
        upstream.send(answer(200))
    assert h2.answer(199).status == 200


def test_h2_max_streams_is_told_and_held(stage):
    """One beyond the limit is refused, and counted; the others know nothing of it."""
    counted = stage.counter("weir_http_parse_errors_total", reason="max_streams")
    h2 = H2Client(stage.connect("few"))
    for n in range(1, 13, 2):
        h2.get(n, f"/{n}")
    for n in (7, 9, 11):
        h2.expect_reset(n, REFUSED_STREAM)
    assert h2.settings[MAX_CONCURRENT_STREAMS] == 3
    assert counted.grown() == 3
    upstreams = [stage.origin.accept() for _ in range(3)]
    assert sorted(upstream.read_request().target for upstream in upstreams) == ["/1", "/3", "/5"]
    upstreams[0].send(answer(200))
    h2.until(lambda: any(h2.on(n).ended for n in (1, 3, 5)), "an answer")
    h2.get(13, "/13")       # there is room again
    for upstream in (stage.origin.next(), *upstreams[1:]):
        upstream.send(answer(200))
    for n in (1, 3, 5, 13):
        assert h2.answer(n).status == 200
    assert counted.grown() == 3


def test_who_has_acknowledged_h2_max_streams_is_held_to_it(stage):
    """RFC 9113 section 5.1.2: a stream error, of which the other streams know nothing."""
    counted = stage.counter("weir_http_parse_errors_total", reason="max_streams")
    h2 = H2Client(stage.connect("few"))
    h2.echo()               # its SETTINGS are acknowledged
    for n in range(1, 9, 2):
        h2.request(n, "POST", "/hello", end=False)
    h2.expect_reset(7, REFUSED_STREAM)
    h2.frame(DATA, END_STREAM, 7, b"on its way")
    for n in (1, 3, 5):
        h2.data(n, b"", end=True)
        assert h2.answer(n).status == 200
    h2.get(9, "/hello")
    assert h2.answer(9).status == 200
    assert counted.grown() == 1


def test_connect_where_a_route_allows_it(stage, h2):
    h2.headers(1, [(":method", "CONNECT"), (":authority", "tunnel.example:443")], end=False)
    h2.data(1, b"ahead")
    upstream = stage.origin.next()
    seen = upstream.read_head("request")
    assert (seen.method, seen.target) == ("CONNECT", "tunnel.example:443")
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\nfrom the server")
    upstream.expect(b"ahead")
    got = h2.answer_head(1)
    assert got.status == 200 and got["content-length"] is None
    h2.until(lambda: got.body == b"from the server", "the tunnel's bytes")
    h2.data(1, b"and on")
    upstream.expect(b"and on")
    upstream.send(b"!")
    upstream.half_close()
    h2.until(lambda: got.ended, "the end")
    assert got.body == b"from the server!"
    h2.data(1, b"last", end=True)
    upstream.expect(b"last")
    upstream.expect_end()


@pytest.mark.parametrize("fields, answered, code", [
    ([(":method", "CONNECT"), (":authority", "tunnel.example:443")],
     b"HTTP/1.1 200 OK\r\n\r\n", CONNECT_ERROR),
    ([(":method", "CONNECT"), (":protocol", "chat"), (":scheme", "http"), (":path", "/"),
      (":authority", "a.example")],
     b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n", CANCEL)])
def test_a_server_that_resets_a_tunnel(stage, h2, fields, answered, code):
    """RFC 9113 section 8.5, RFC 8441 section 5."""
    h2.headers(1, fields, end=False)
    upstream = stage.origin.next()
    upstream.read_until(b"\r\n\r\n")
    upstream.send(answered)
    assert h2.answer_head(1).status == 200
    h2.data(1, b"x")
    upstream.expect(b"x")
    upstream.reset()
    h2.expect_reset(1, code)


def test_connect_is_refused_elsewhere(stage, h2):
    h2.headers(1, [(":method", "CONNECT"), (":authority", "a.example:443")], end=False)
    got = h2.answer(1)
    assert (got.status, got.reason) == (405, "connect_refused")
    assert stage.origin.saw_nothing()


def test_an_answer_before_the_body_ends_the_request(stage, h2):
    """The server does not want the rest: the client is told, and its other streams go on."""
    h2.request(1, "POST", "/", ("content-length", "1000000"), end=False)
    h2.data(1, b"x" * 1000)
    upstream = stage.origin.asked(whole=False)
    upstream.expect(b"x" * 1000)
    upstream.send(answer(403, b"no"))
    assert h2.answer(1).body == b"no"
    h2.expect_reset(1, 0)
    h2.get(3, "/hello")
    assert h2.answer(3).status == 200


def test_services_and_errors_answer_too(stage, h2):
    h2.post(1, "/hello", b"ignored")
    assert h2.answer(1).body == b"hello from weir"
    h2.request(3, "HEAD", "/hello")
    got = h2.answer(3)
    assert got["content-length"] == "15" and not got.body


def test_two_protocols_on_one_listener(stage, h2):
    h2.get(1, "/hello")
    assert h2.answer(1).status == 200
    assert stage.connect().ask(get("/hello")).body == b"hello from weir"
