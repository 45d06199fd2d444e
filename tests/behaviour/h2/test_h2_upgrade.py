"""A client of HTTP/1.1 asks to go on in HTTP/2 (RFC 7540 section 3.2)."""

import base64

import pytest

from harness.h2_client import PREFACE, H2Client, settings
from harness.http1 import answer, get, post
from harness.stage import HELLO_SERVICE, WEB

INI = WEB + HELLO_SERVICE + """
[listener only_h1]
bind = @only_h1
upstream = app
alpn = http/1.1
[listener small]
bind = @small
upstream = app
send_buffer = 4096
"""



def encoded(*pairs):
    return base64.urlsafe_b64encode(settings(*pairs)[9:]).decode().rstrip("=")


SETTINGS = encoded((4, 100_000))
ASKS = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {SETTINGS}")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.parametrize("together", [True, False])
def test_the_request_becomes_stream_1(stage, together):
    client = stage.connect()
    first = PREFACE + settings()
    client.send(get("/one", *ASKS) + (first if together else b""))
    client.expect(SWITCHED)
    h2 = H2Client(client, first=b"" if together else first)
    upstream = stage.origin.next()
    seen = upstream.read_request()
    assert seen.target == "/one" and seen["Upgrade"] is None and seen["HTTP2-Settings"] is None
    upstream.send(answer(200, b"first"))
    assert h2.answer(1).body == b"first"
    h2.get(3, "/hello")
    assert h2.answer(3).body == b"hello"
    assert stage.count("weir_h2_streams_active") == 0


def test_byte_by_byte(stage):
    client = stage.connect()
    client.send_each_byte(get("/hello", *ASKS))
    client.expect(SWITCHED)
    h2 = H2Client(client, first=b"")
    client.send_each_byte(PREFACE + settings())
    assert h2.answer(1).body == b"hello"


def test_the_settings_count(stage):
    """A window of 5 bytes, said before HTTP/2 begins."""
    text = encoded((4, 5))
    client = stage.connect()
    client.send(get("/x", ASKS[0], ASKS[1], f"HTTP2-Settings: {text}"))
    client.expect(SWITCHED)
    h2 = H2Client(client, first=PREFACE + settings((4, 5)))
    h2.stingy = True
    upstream = stage.origin.asked()
    upstream.send(answer(200, b"0123456789"))
    h2.until(lambda: len(h2.on(1).body) == 5, "a window of it")
    h2.echo()
    assert h2.on(1).body == b"01234"
    h2.open_window(1, 5)
    assert h2.answer(1).body == b"0123456789"


def test_head_asks_too(stage):
    client = stage.connect()
    client.send(get("/hello", *ASKS, method="HEAD"))
    client.expect(SWITCHED)
    got = H2Client(client).answer(1)
    assert got["content-length"] == "5" and not got.body


@pytest.mark.parametrize("request_", [
    get("/hello", ASKS[0], ASKS[1]),
    get("/hello", ASKS[1], ASKS[2]),
    get("/hello", "Connection: Upgrade", ASKS[1], ASKS[2]),
    get("/hello", ASKS[0], "Upgrade: h2", ASKS[2]),
    get("/hello", ASKS[0], ASKS[1], ASKS[2], ASKS[2]),
    get("/hello", ASKS[0], ASKS[1], "HTTP2-Settings: AAA!"),
    get("/hello", ASKS[0], ASKS[1], "HTTP2-Settings: AAAA"),
    get("/hello", ASKS[0], ASKS[1], "HTTP2-Settings: " + "AAAA" * 100),
    get("/hello", ASKS[0], ASKS[1], "HTTP2-Settings: " + encoded(*[(4, 100_000)] * 33)),
    get("/hello", ASKS[0], ASKS[1], "HTTP2-Settings: " + encoded(*[(4, 100_000)] * 40)),
    get("/hello", *ASKS, version="1.0"),
    post("/hello", b"body", *ASKS),
])
def test_what_is_no_such_question_stays_http1(stage, request_):
    client = stage.connect()
    client.send(request_)
    assert client.read_response().body == b"hello"


def test_who_asks_behind_a_request_under_way_stays_in_http1(stage):
    """Its turn comes when that has been answered; what follows may be here by then."""
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/one") + get("/hello", *ASKS))
    client.send(get("/hello"))
    client.half_close()
    upstream.send(answer(200, b"first"))
    assert [client.read_response().body for _ in range(3)] == [b"first", b"hello", b"hello"]
    client.expect_close()


def test_where_h2_is_not_listed_nobody_gets_it(stage):
    asks, knows = stage.connect("only_h1"), stage.connect("only_h1")
    assert asks.ask(get("/hello", *ASKS)).body == b"hello"
    knows.send(PREFACE + settings())
    assert knows.read_response().status == 505


def test_settings_that_are_no_settings_end_the_connection(stage):
    """More of a window than there can be (RFC 9113 section 6.5.2)."""
    client = stage.connect()
    client.send(get("/hello", ASKS[0], ASKS[1], f"HTTP2-Settings: {encoded((4, 0xffffffff))}"))
    client.expect(SWITCHED)
    H2Client(client, first=PREFACE + settings()).expect_goaway(3)


def test_no_preface_after_it(stage):
    client = stage.connect()
    client.send(get("/hello", *ASKS))
    client.expect(SWITCHED)
    client.send(get("/hello"))
    H2Client(client, first=b"").expect_goaway(1)


def test_the_answer_before_it_is_still_to_be_read(stage):
    """When that has gone out HTTP/1.1, which wanted to know, is not there any more."""
    client = stage.connect("small", recv_buffer=4096)
    upstream = stage.origin.asked_by(client, get("/big"))
    answered = stage.counter("weir_http_requests_total", listener="small")
    upstream.send(answer(200, b"x" * 40000))
    answered.grows()
    assert stage.count("weir_memory_used_bytes", pool="send_queue") != 0
    client.send(get("/hello", *ASKS))
    stage.has_read()
    assert client.read_response().body == b"x" * 40000
    client.expect(SWITCHED)
    h2 = H2Client(client, first=PREFACE + settings())
    assert h2.answer(1).body == b"hello"
