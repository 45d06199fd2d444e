"""The built-in origin that gives every request the same answer."""

import pytest

from harness.http1 import get, post, post_chunked

BIG = 7000  # a value of the file is one line of at most 8,192 bytes

INI = f"""
[listener web]
bind = @web
service = hello
[listener teapot]
bind = @teapot
service = teapot
[listener empty]
bind = @empty
service = empty
[listener big]
bind = @big
service = big
[listener no_content]
bind = @no_content
service = no_content
[listener behind]
bind = @behind
upstream = app
[route by_route]
listener = teapot
path = /hello
service = hello
[route plain]
listener = teapot
path = /plain
respond = 200 plain
[upstream app]
server = @web
keepalive = 0
[service hello]
type = respond
body = hello
[service teapot]
type = respond
status = 418
header = Content-Type: text/plain
header = "X-Tea: green; hot"
header = X-Twice: one
header = X-Twice: two
body = "short ; and stout"
[service empty]
type = respond
[service big]
type = respond
body = {"0123456789" * (BIG // 10)}
[service no_content]
type = respond
status = 204
"""


def test_status_fields_and_body(stage):
    got = stage.connect("teapot").ask(get())
    assert (got.status, got.body) == (418, b"short ; and stout")
    assert got["Content-Type"] == "text/plain"
    assert got["X-Tea"] == "green; hot"
    assert got.all("X-Twice") == ["one", "two"]
    assert got["Content-Length"] == "17"
    assert got.reason is None


def test_an_empty_body(stage):
    got = stage.connect("empty").ask(get())
    assert (got.status, got.body, got["Content-Length"]) == (200, b"", "0")


def test_204_has_no_framing(stage):
    client = stage.connect("no_content")
    for _ in range(3):
        got = client.ask(get())
        assert got.status == 204 and "Content-Length" not in got


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_every_method_gets_it(stage, method):
    assert stage.connect().ask(get("/any/path?query", method=method), method).body == b"hello"


def test_head_has_the_fields_of_get(stage):
    client = stage.connect("teapot")
    head = client.ask(get(method="HEAD"), "HEAD")
    got = client.ask(get())
    assert head.body == b""
    fields = [[field for field in one.fields if field[0] != "Date"] for one in (head, got)]
    assert fields[0] == fields[1]


@pytest.mark.parametrize("request_bytes", [
    post("/", b"x" * 10), post("/", b"x" * 1000000), post_chunked("/", b"ab", b"c" * 100000),
    post_chunked("/", b"x", trailers=["X-T: 1"]), post("/", b""),
], ids=["small", "large", "chunked", "trailers", "empty"])
def test_a_body_is_taken_and_the_connection_kept(stage, request_bytes):
    client = stage.connect()
    for _ in range(3):
        got = client.ask(request_bytes)
        assert (got.body, got["Connection"]) == (b"hello", None)
    assert client.ask(get()).body == b"hello"


def test_the_answer_does_not_wait_for_the_body(stage):
    """The client hears it early, and may go on: the connection is kept."""
    client = stage.connect()
    request = post("/", b"x" * 1000)
    client.send(request[:-500])
    assert client.read_response().body == b"hello"
    client.send(request[-500:] + get())
    assert client.read_response().body == b"hello"


def test_expect_continue(stage):
    """A client that waits for a 100 may send its body or not: only a close is unambiguous."""
    for name, path in (("web", "/"), ("teapot", "/plain")):
        client = stage.connect(name)
        got = client.ask(post(path, b"x", "Expect: 100-continue")[:-1])
        assert (got.status, got["Connection"]) == (200, "close")
        client.expect_close()


def test_expect_continue_with_the_body_right_behind(stage):
    client = stage.connect()
    request = post("/", b"x" * 100, "Expect: 100-continue")
    client.send(request[:-50])
    assert client.read_response()["Connection"] is None
    client.send(request[-50:] + get())
    assert client.read_response().body == b"hello"


def test_pipelined(stage):
    client = stage.connect("big")
    client.send((get() + post("/", b"body")) * 50)
    for _ in range(100):
        assert client.read_response().body == b"0123456789" * (BIG // 10)


def test_http10(stage):
    got = stage.connect().ask(get(version="1.0"))
    assert (got.body, got["Connection"]) == (b"hello", "close")
    client = stage.connect()
    for _ in range(3):
        got = client.ask(get("/", "Connection: keep-alive", version="1.0"))
        assert (got.body, got["Connection"]) == (b"hello", "keep-alive")


def test_a_slow_reader_gets_every_byte(stage):
    """700 KB of answers are asked for at once, and read a little at a time."""
    client = stage.connect("big", recv_buffer=4096)
    client.send(get() * 100)
    for _ in range(5):
        stage.connect("big").ask(get())  # the others are served meanwhile
    wanted = b"0123456789" * (BIG // 10)
    for _ in range(100):
        head = client.read_response_head()
        assert head["Content-Length"] == str(BIG)
        for at in range(0, BIG, 1000):
            client.expect(wanted[at:at + 1000])


def test_a_client_that_leaves_in_the_middle(stage):
    for how in ("close", "reset"):
        client = stage.connect("big", recv_buffer=4096)
        client.send(get() * 100)
        client.read_exactly(3000)
        getattr(client, how)()
    assert stage.connect().ask(get()).body == b"hello"


def test_by_a_route(stage):
    client = stage.connect("teapot")
    assert client.ask(get("/hello")).body == b"hello"
    assert client.ask(get("/")).status == 418


def test_as_the_origin_of_an_upstream_in_the_same_process(stage):
    client = stage.connect("behind")
    for _ in range(10):
        assert client.ask(post("/", b"x" * 5000)).body == b"hello"
    assert client.ask(get(method="HEAD"), "HEAD")["Content-Length"] == "5"
