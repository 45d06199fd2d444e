"""Origins that answer nonsense: the client gets 502 or a visibly cut body, never the nonsense."""

import pytest

from harness.http1 import answer, answer_chunked, answer_head, get
from harness.peer import Ended, WasReset

INI = """
[defaults]
max_header_size = 4k
max_headers = 20
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin
"""

MALFORMED = {
    "not http": b"hello\r\n\r\n",
    "no version": b"200 OK\r\n\r\n",
    "http/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "http/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 Low\r\n\r\n",
    "status 600": b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
    "letters": b"HTTP/1.1 2xx OK\r\n\r\n",
    "two blanks": b"HTTP/1.1  200 OK\r\n\r\n",
    "tab": b"HTTP/1.1\t200 OK\r\n\r\n",
    "nul in the phrase": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "bare lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare lf between fields": b"HTTP/1.1 200 OK\r\nX-A: a\nX-B: b\r\nContent-Length: 0\r\n\r\n",
    "bare cr": b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n",
    "fold": b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "blank before the colon": b"HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
    "empty name": b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
    "nul in a value": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "both framings": answer_head(200, "Content-Length: 5",
                                 "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length +5": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "length 0x5": b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
    "length -1": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
    "length 5,6": b"HTTP/1.1 200 OK\r\nContent-Length: 5,6\r\n\r\nhello",
    "length overflow": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nhello",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: foo, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "head too large": b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 5000 + b"\r\n\r\n",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 21 + b"\r\n",
    "101 out of the blue": answer_head(101, "Connection: upgrade", "Upgrade: websocket"),
    "bad interim": answer_head(103, "X-A : b") + answer(200),
    "bad after interim": answer_head(100) + b"HTTP/1.1 2 OK\r\nContent-Length: 0\r\n\r\n",
}


def final(client):
    while True:
        got = client.read_response()
        if got.status >= 200 or got.status == 101:
            return got


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_answers(stage, client, origin, raw):
    upstream = origin.asked_by(client, get())
    upstream.send(raw)
    got = final(client)
    assert (got.status, got.reason) == (502, "bad_response")
    assert "http_protocol_error" in got["Proxy-Status"]
    upstream.expect_end()


def test_malformed_answers_are_counted(stage, client, origin):
    counted = stage.counter("weir_http_requests_total", code="5xx")
    upstream = origin.asked_by(client, get())
    upstream.send(b"nonsense\r\n\r\n")
    assert client.read_response().status == 502
    counted.grows()


BROKEN_CHUNKS = [
    b"x\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello\r\nfffffffffffffffff\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX-A : bad\r\n\r\n",
    b"5\r\nhello\r\n-1\r\n\r\n",
    b"5\r\nhello\r\n0\r\n bad\r\n\r\n",
]


@pytest.mark.parametrize("raw", BROKEN_CHUNKS, ids=repr)
def test_broken_chunked_answer_never_looks_complete(stage, client, origin, raw):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, "Transfer-Encoding: chunked") + raw)
    try:
        got = client.read_response()
        assert (got.status, got.reason) == (502, "bad_response")
    except (Ended, WasReset):
        assert not client.received.endswith(b"0\r\n\r\n")
    upstream.expect_end()


@pytest.mark.parametrize("extra", [b"x", answer(200, b"stray"), b"\r\n\r\n"],
                         ids=["byte", "answer", "lines"])
def test_bytes_after_an_answer_belong_to_nobody(stage, client, origin, extra):
    """A pooled connection with unread bytes would answer the next request with them."""
    upstream = origin.asked_by(client, get("/one"))
    upstream.send(answer(200, b"one") + extra)
    assert client.read_response().body == b"one"
    upstream.expect_end()
    _, got = stage.exchange(get("/two"), answer(200, b"two"), client)
    assert got.body == b"two" and len(origin.connections) == 2


def test_bytes_on_an_idle_connection_belong_to_nobody(stage, client, origin):
    stage.exchange(get("/one"), client=client)
    upstream = origin.connections[0]
    upstream.send(answer(200, b"stray"))
    upstream.expect_end()
    _, got = stage.exchange(get("/two"), answer(200, b"two"), client)
    assert got.body == b"two"


def test_body_after_a_bodyless_answer_is_dropped(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(304, "Content-Length: 5") + b"hello")
    assert client.read_response().status == 304
    upstream.expect_end()
    _, got = stage.exchange(get("/two"), answer(200, b"two"), client)
    assert got.body == b"two"


def test_body_on_a_head_answer_is_dropped(stage, client, origin):
    upstream = origin.asked_by(client, get(method="HEAD"))
    upstream.send(answer(200, b"hello"))
    assert client.read_response("HEAD").status == 200
    upstream.expect_end()
    _, got = stage.exchange(get("/two"), answer(200, b"two"), client)
    assert got.body == b"two"


def test_interim_answers_do_not_pile_up_for_who_reads_nothing(stage, origin):
    client = stage.connect(recv_buffer=4096)
    upstream = origin.asked_by(client, get())
    for _ in range(10):
        upstream.send(answer_head(103, "Link: " + "x" * 4000) * 1000)
    upstream.send(answer(200, b"end"))
    interims = 0
    while (got := client.read_response()).status == 103:
        interims += 1
    assert got.body == b"end" and 0 < interims < 5000


def test_many_interim_answers_are_only_a_stream(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(103, "Link: </a>") * 200 + answer(200, b"end"))
    for _ in range(200):
        assert client.read_response().status == 103
    assert client.read_response().body == b"end"


def test_client_stays_usable_after_a_502(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(b"nonsense\r\n\r\n")
    got = client.read_response()
    assert got.status == 502
    if got["Connection"] == "close":
        client.expect_close()
        client = stage.connect()
    _, got = stage.exchange(get(), answer_chunked(b"well"), client)
    assert got.body == b"well"
