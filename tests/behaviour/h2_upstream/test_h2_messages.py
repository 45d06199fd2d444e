"""What a server of HTTP/2 gets of a request, and a client of HTTP/1 of its answer."""

import threading

import pytest
from hpack import NeverIndexedHeaderTuple

from harness.bulk import MB, pattern
from harness.h2_client import H2Client
from harness.h2_server import CANCEL, H2Server
from harness.http1 import answer, chunk, get, post, post_chunked

INI = """
[defaults]
max_body_size = 0
[listener web]
bind = @web
upstream = app
[route strip]
path = /strip/
strip_prefix = /strip
set_request_header = X-Route: $route
set_response_header = X-Server: $server
upstream = app
[upstream app]
protocol = h2
server = @origin
"""


def begin(stage, request, client=None):
    """A request on its way: (client, server, what the server has of it)."""
    client = client or stage.connect()
    client.send(request)
    server = H2Server(stage.origin.accept())
    return client, server, server.next_request()


def test_a_request_becomes_pseudo_fields_and_lower_case_ones(stage):
    client, server, request = begin(
        stage, get("/a?b=c", "Accept: x", "Connection: keep-alive, X-Hop", "X-Hop: 1", "X-End: 2",
                   "TE: trailers", "Keep-Alive: 5", host="a.example"))
    server.until(lambda: request.ended, "its end")
    assert {name for name, _ in request.fields[:4]} == {":method", ":scheme", ":authority", ":path"}
    assert request.method == "GET" and request[":scheme"] == "http"
    assert request[":authority"] == "a.example" and request.path == "/a?b=c"
    assert request["accept"] == "x" and request["x-end"] == "2"
    assert request["via"] == "1.1 weir"
    assert request["x-forwarded-for"] == "127.0.0.1"
    for hop in ("connection", "keep-alive", "x-hop", "host", "transfer-encoding", "upgrade"):
        assert hop not in request
    assert all(name == name.lower() for name, _ in request.fields)
    server.answer(request, 200, b"hello", ("x-one", "1"))
    response = client.read_response()
    assert response.status == 200 and response.body == b"hello"
    assert response["x-one"] == "1" and "Date" in response


class Indexing:
    """What a decoder was told of fields: {name: whether they are never to be indexed}."""

    def __init__(self, decoder):
        self.secret = {}
        self.decode = decoder.decode
        decoder.decode = self

    def __call__(self, block, **more):
        fields = self.decode(block, **more)
        self.secret.update({str(field[0], "ascii") if isinstance(field[0], bytes) else field[0]:
                            isinstance(field, NeverIndexedHeaderTuple) for field in fields})
        return fields


def test_fields_that_are_never_indexed_stay_so(stage):
    """RFC 7541 section 6.2.3, for requests, crumbs of cookies, answers and trailers."""
    def fields(*secret):
        return [NeverIndexedHeaderTuple("x-secret", "1"), ("x-plain", "2"), *secret]

    h2 = H2Client(stage.connect())
    seen_by_client = Indexing(h2.decoder)
    crumbs = [("cookie", "a=1"), NeverIndexedHeaderTuple("cookie", "b=" + "2" * 40)]
    h2.request(1, "POST", "/", *fields(*crumbs), end=False)
    server = H2Server(stage.origin.accept())
    seen_by_server = Indexing(server.h2.decoder)
    request = server.next_request()
    assert request["cookie"] == "a=1; b=" + "2" * 40
    assert [seen_by_server.secret[name] for name in ("x-secret", "x-plain", "cookie")] == [
        True, False, True]
    h2.headers(1, [NeverIndexedHeaderTuple("x-last", "3"), ("x-plain-last", "4")])
    server.until(lambda: request.ended, "its end")
    assert seen_by_server.secret["x-last"] and not seen_by_server.secret["x-plain-last"]
    server.head(request, 200, *fields())
    server.data(request, b"x")
    server.trailers(request, NeverIndexedHeaderTuple("x-last", "3"))
    assert h2.answer(1).trailers == [("x-last", "3")]
    assert [seen_by_client.secret[name] for name in ("x-secret", "x-plain", "x-last")] == [
        True, False, True]


def test_routes_rewrite_it_as_ever(stage):
    client, server, request = begin(stage, get("/strip/x"))
    assert request.path == "/x" and request["x-route"] == "strip"
    server.answer(request, 200)
    assert client.read_response()["X-Server"] == stage.origin.address


def test_a_body_of_known_length(stage):
    client, server, request = begin(stage, post("/", b"x" * 5000))
    server.until(lambda: request.ended, "its end")
    assert request.body == b"x" * 5000 and request["content-length"] == "5000"
    assert request.trailers is None
    server.answer(request, 201)
    assert client.read_response().status == 201


def test_a_chunked_body_with_trailers_both_ways(stage):
    client, server, request = begin(
        stage, post_chunked("/", b"hello", b" world", lines=["TE: trailers"],
                            trailers=["X-Sum: 11"]))
    server.until(lambda: request.ended, "its end")
    assert request.body == b"hello world" and request.trailers == [("x-sum", "11")]
    assert "content-length" not in request and "transfer-encoding" not in request
    server.head(request, 200)
    server.data(request, b"first ")
    assert client.read_response_head().chunked
    assert client.read_chunk() == b"first "
    server.data(request, b"second")
    assert client.read_chunk() == b"second"
    server.trailers(request, ("x-end", "yes"))
    assert client.read_chunk() == b""
    assert client.read_trailers() == [("x-end", "yes")]


def test_each_byte_of_an_answer_on_its_own(stage):
    client, server, request = begin(stage, get())
    written = []
    server.upstream.send = written.append
    server.head(request, 200, ("content-length", "11"))
    server.data(request, b"hello ")
    server.data(request, b"world", end=True)
    del server.upstream.send
    server.upstream.send_each_byte(b"".join(written))
    response = client.read_response()
    assert response.body == b"hello world" and response["Content-Length"] == "11"


@pytest.mark.parametrize("method, status, fields", [
    ("HEAD", 200, [("content-length", "5000")]), ("GET", 204, []),
    ("GET", 304, [("etag", "x")]), ("GET", 200, [("content-length", "0")]),
])
def test_answers_without_a_body(stage, method, status, fields):
    client, server, request = begin(stage, get(method=method))
    server.head(request, status, *fields, end=True)
    response = client.read_response(method)
    assert response.status == status and response.body == b""
    if method == "HEAD":
        assert response["Content-Length"] == "5000"
    # The connection goes on.
    client.send(get("/next"))
    request = server.next_request()
    server.answer(request, 200, b"next")
    assert client.read_response().body == b"next"


def test_interim_answers_pass(stage):
    client, server, request = begin(stage, post("/", b"", "Expect: 100-continue",
                                                "X: y").replace(b"Length: 0", b"Length: 5"))
    server.head(request, 100)
    assert client.read_response_head().status == 100
    client.send(b"hello")
    server.until(lambda: request.ended, "its end")
    assert request.body == b"hello"
    server.head(request, 103, ("link", "</a>"))
    early = client.read_response_head()
    assert early.status == 103 and early["link"] == "</a>"
    server.answer(request, 200, b"done")
    assert client.read_response().body == b"done"


def test_an_answer_without_length_to_http10_ends_with_the_connection(stage):
    client, server, request = begin(stage, get(version="1.0"))
    server.head(request, 200)
    server.data(request, b"some", end=True)
    response = client.read_response()
    assert response.body == b"some" and not response.chunked
    assert client.ended


def test_an_early_answer_ends_a_long_upload(stage):
    client, server, request = begin(stage, post("/", b"").replace(b": 0", b": 10000000"))
    client.send(b"x" * 1000)
    server.answer(request, 413, b"too much")
    server.refuse(request, 0)  # RFC 9113 section 8.1: NO_ERROR, the rest is not wanted
    assert client.read_response().body == b"too much"
    # Other requests are not disturbed.
    other = stage.connect()
    other.send(get("/other"))
    request = server.next_request()
    server.answer(request, 200, b"other")
    assert other.read_response().body == b"other"


def test_an_answer_before_the_end_of_a_small_upload(stage):
    client, server, request = begin(stage, post("/", b"").replace(b": 0", b": 20"))
    client.send(b"x" * 10)
    server.answer(request, 200, b"enough")
    assert client.read_response().body == b"enough"
    server.expect_reset(request, CANCEL)
    client.send(b"x" * 10 + get("/next"))  # the client's connection goes on behind the rest
    request = server.next_request()
    assert request.path == "/next"
    server.answer(request, 200, b"next")
    assert client.read_response().body == b"next"


def test_cookies_arrive_as_one_or_as_crumbs(stage):
    client, server, request = begin(stage, get("/", "Cookie: a=1; b=2"))
    cookies = [value for name, value in request.fields if name == "cookie"]
    assert "; ".join(cookies) == "a=1; b=2"
    server.answer(request, 200, b"", ("set-cookie", "a=1"), ("set-cookie", "b=2"))
    assert client.read_response().all("Set-Cookie") == ["a=1", "b=2"]


def test_ten_megabytes_both_ways(stage):
    body = pattern(10 * MB)
    client = stage.connect()
    client.send(post("/", b"").replace(b": 0", b": %d" % len(body)))
    server = H2Server(stage.origin.accept())
    request = server.next_request()
    sending = threading.Thread(target=client.send, args=(body,))
    sending.start()
    server.until(lambda: request.ended, "its end")
    sending.join()
    assert bytes(request.body) == body
    got = []
    reading = threading.Thread(target=lambda: got.append(client.read_response()))
    reading.start()
    server.head(request, 200)
    server.data(request, body, end=True)
    reading.join()
    assert got[0].body == body


def test_pieces_pass_at_once(stage):
    """Nothing waits for the end of the other direction."""
    client, server, request = begin(stage, post_chunked("/").replace(b"0\r\n\r\n", b""))
    server.head(request, 200)
    client.read_response_head()
    for number in range(20):
        piece = b"%d" % number
        client.send(chunk(piece))
        server.until(lambda: bytes(request.body).endswith(piece), "a piece")
        server.data(request, piece)
        assert client.read_chunk() == piece
    client.send(b"0\r\n\r\n")
    server.until(lambda: request.ended, "its end")
    server.h2.end_stream(request.id)
    server.flush()
    assert client.read_chunk() == b""
    client.read_trailers()


def test_pipelined_requests_are_answered_in_order(stage):
    client, server, first = begin(stage, get("/1") + get("/2") + get("/3"))
    server.answer(first, 200, b"1")
    for number in (b"2", b"3"):
        request = server.next_request()
        server.answer(request, 200, number)
    assert [client.read_response().body for _ in range(3)] == [b"1", b"2", b"3"]


LARGE = """
[defaults]
max_header_size = 64k
max_headers = 1000
[listener from_h2]
bind = @from_h2
upstream = h1
[listener to_h2]
bind = @to_h2
upstream = h2
[upstream h1]
server = @origin
[upstream h2]
protocol = h2
server = @origin
"""
LARGE_FIELDS = [f"X-Field-{number:04}: " + "v" * 55 for number in range(900)]


def test_the_largest_heads_that_may_be_received_can_be_sent(new_stage):
    """As HTTP/2 counts them they are larger: nghttp2 drops what is over 64 KiB unless told."""
    stage = new_stage(LARGE)
    client = H2Client(stage.connect("from_h2"))
    client.decoder.max_header_list_size = 1 << 20
    client.get(1)
    upstream = stage.origin.asked()
    upstream.send(answer(200, b"large", *LARGE_FIELDS))
    assert client.answer(1).body == b"large" and client.on(1)["x-field-0899"] == "v" * 55
    sender = stage.connect("to_h2")
    sender.send(get("/", *LARGE_FIELDS))
    server = H2Server(stage.origin.accept())
    server.h2.decoder.max_header_list_size = 1 << 20
    request = server.next_request()
    assert request["x-field-0899"] == "v" * 55
    server.answer(request, 200, b"good")
    assert sender.read_response().body == b"good"
