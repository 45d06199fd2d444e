"""Delivery must not matter: what arrives one byte at a time means the same, on either side."""

import pytest

from harness.http1 import answer, answer_chunked, answer_head, get, post, post_chunked

REQUESTS = {
    "get": get("/path?query", "X-A: 1", "Connection: keep-alive"),
    "length": post("/p", b"body\r\nof bytes"),
    "chunked": post_chunked("/c", b"one", b"\r\n", b"x" * 20, trailers=["X-Trailer: t"]),
    "extension": post_chunked("/e", b"one").replace(b"\r\n3\r\n", b"\r\n3;a=\"b\"\r\n"),
    "absolute": get("http://abs.test/x", host="abs.test"),
    "empty line first": b"\r\n" + get("/after"),
}

RESPONSES = {
    "length": answer(200, b"body\r\nof bytes", "X-A: 1"),
    "empty": answer(200, b""),
    "chunked": answer_chunked(b"one", b"\r\n", b"x" * 20, trailers=["X-Trailer: t"]),
    "extension": answer_chunked(b"one").replace(b"\r\n3\r\n", b"\r\n3;a=b\r\n"),
    "204": answer_head(204, "X-A: 1"),
    "304": answer_head(304, "ETag: \"a\""),
}


@pytest.mark.parametrize("raw", REQUESTS.values(), ids=REQUESTS.keys())
def test_requests_byte_by_byte_mean_the_same(stage, raw):
    whole, _ = stage.exchange(raw)
    client = stage.connect()
    client.send_each_byte(raw)
    upstream = stage.origin.next()
    seen = upstream.read_request()
    upstream.send(answer(200, b"ok"))
    assert client.read_response().body == b"ok"
    assert (seen.head, seen.body, seen.trailers) == (whole.head, whole.body, whole.trailers)


@pytest.mark.parametrize("raw", RESPONSES.values(), ids=RESPONSES.keys())
def test_answers_byte_by_byte_mean_the_same(stage, raw):
    _, whole = stage.exchange(get(), raw)
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get())
    upstream.send_each_byte(raw)
    got = client.read_response()
    assert without_date(got.head) == without_date(whole.head)
    assert (got.body, got.trailers) == (whole.body, whole.trailers)


def without_date(head):
    """A second may have passed between the two answers."""
    return [line for line in head.split(b"\r\n") if not line.startswith(b"Date: ")]


def test_interim_answers_byte_by_byte(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send_each_byte(answer_head(103, "Link: </a>") + answer_head(103, "Link: </b>")
                            + answer(200, b"end"))
    assert [client.read_response()["Link"] for _ in range(2)] == ["</a>", "</b>"]
    assert client.read_response().body == b"end"


def test_close_delimited_answer_byte_by_byte(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send_each_byte(answer_head(200) + b"until the end")
    upstream.close()
    assert client.read_response().body == b"until the end"


def test_pipelined_requests_byte_by_byte(stage, client, origin):
    origin.serve(lambda request: answer(200, request.target.encode() + request.body))
    client.send_each_byte(get("/1") + post("/2", b"two") + post_chunked("/3", b"th", b"ree")
                          + get("/4"))
    assert [client.read_response().body for _ in range(4)] == [b"/1", b"/2two", b"/3three", b"/4"]


def test_upgrade_byte_by_byte(stage, client, origin):
    client.send_each_byte(get("/ws", "Connection: upgrade", "Upgrade: echo") + b"early")
    upstream = origin.asked()
    upstream.send_each_byte(answer_head(101, "Connection: upgrade", "Upgrade: echo") + b"reply")
    assert client.read_response().status == 101
    client.expect(b"reply")
    upstream.expect(b"early")


@pytest.mark.parametrize("raw, status, reason", [
    (b"GET / HTTP/1.1\r\nHost: test\r\nX-A : 1\r\n\r\n", 400, "bad_field_name"),
    (b"GET / HTTP/1.1\r\nX-A: 1\r\n\r\n", 400, "bad_host"),
    (b"GET / HTTP/1.1\r\nHost: test\r\nX-A: 1\r\n 2\r\n\r\n", 400, "bad_fold"),
    (b"GET / HTTP/1.1\r\nHost: test\n\r\n", 400, "bad_line_end"),
    (b"GET / HTTP/1.1\r\nHost: test\r\nX-A: 1\r2\r\n\r\n", 400, "bad_line_end"),
    (b"GET / HTTP/3.0\r\nHost: test\r\n\r\n", 505, "bad_version"),
    (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
     400, "bad_framing"),
    (b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\n", 400,
     "bad_chunk"),
    (b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400,
     "bad_chunk"),
])
def test_refusals_byte_by_byte_are_the_same(stage, client, raw, status, reason):
    try:
        client.send_each_byte(raw)
    except (BrokenPipeError, ConnectionResetError):
        pass
    got = client.read_response()
    assert (got.status, got.reason) == (status, reason)
    client.expect_end()


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
    b"HTTP/1.1 200 OK\n\n",
    b"HTTP/1.1 200 OK\r\nX-A : 1\r\n\r\n",
])
def test_malformed_answers_byte_by_byte_are_the_same(stage, client, origin, raw):
    upstream = origin.asked_by(client, get())
    try:
        upstream.send_each_byte(raw)
    except (BrokenPipeError, ConnectionResetError):
        pass
    got = client.read_response()
    assert (got.status, got.reason) == (502, "bad_response")


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_request_in_two_pieces(stage, cut):
    raw = post_chunked("/two", b"hello", b"world", trailers=["X-T: 1"], lines=["X-A: a"])
    client = stage.connect()
    client.send(raw[:cut])
    stage.has_read()
    client.send(raw[cut:])
    upstream = stage.origin.next()
    seen = upstream.read_request()
    assert (seen.target, seen.body, seen["X-A"]) == ("/two", b"helloworld", "a")
    assert seen.trailers == [("x-t", "1")]
    upstream.send(answer())
    assert client.read_response().status == 200
