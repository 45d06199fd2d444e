"""Which connections live on, and in which order answers come (RFC 9112 section 9)."""

import pytest

from harness.http1 import answer, answer_chunked, answer_head, get, post, post_chunked


def test_a_connection_serves_many_requests(stage, client):
    for number in range(20):
        seen, got = stage.exchange(get(f"/{number}"), answer(200, b"%d" % number), client)
        assert (seen.target, got.body) == (f"/{number}", b"%d" % number)


def test_one_upstream_connection_serves_many_requests(stage, client, origin):
    for number in range(5):
        stage.exchange(get(f"/{number}"), client=client)
    for number in range(5):
        stage.exchange(get(f"/{number}"), client=stage.connect())
    assert len(origin.connections) == 1


@pytest.mark.parametrize("response", [
    answer(200, b"x" * 3000), answer_chunked(b"a", b"b"), answer_head(204), answer_head(304),
], ids=["length", "chunked", "204", "304"])
def test_keep_alive_after_every_kind_of_body(stage, client, origin, response):
    for _ in range(3):
        assert stage.exchange(get(), response, client)[1].status == int(response[9:12])
    assert len(origin.connections) == 1


def test_pipelined_requests_are_answered_in_order(stage, client, origin):
    origin.serve(lambda request: answer(200, request.target.encode()))
    client.send(b"".join(get(f"/{number}") for number in range(50)))
    for number in range(50):
        assert client.read_response().body == b"/%d" % number


def test_pipelined_requests_with_bodies(stage, client, origin):
    origin.serve(lambda request: answer_chunked(request.method.encode(), request.body))
    client.send(post("/", b"one") + post_chunked("/", b"tw", b"o", trailers=["X-T: 1"]) + get("/")
                + post("/", b"x" * 20000) + get("/", method="DELETE"))
    assert [client.read_response().body for _ in range(5)] == [
        b"POSTone", b"POSTtwo", b"GET", b"POST" + b"x" * 20000, b"DELETE"]


def test_pipelined_head_and_get(stage, client, origin):
    bodies = {"HEAD": b"", "GET": b"got"}
    origin.serve(lambda request: answer_head(200, "Content-Length: 3") + bodies[request.method])
    methods = ["HEAD", "GET", "HEAD", "GET"]
    client.send(b"".join(get(method=method) for method in methods))
    for method in methods:
        assert client.read_response(method).body == bodies[method]


def test_the_second_answer_waits_for_the_first(stage, client, origin):
    client.send(get("/slow") + get("/fast"))
    upstream = origin.next()
    assert upstream.read_request().target == "/slow"
    upstream.send(answer(200, b"slow!")[:-1])
    client.read_response_head()
    client.expect(b"slow")
    upstream.send(b"!")
    client.expect(b"!")
    upstream = origin.next()
    assert upstream.read_request().target == "/fast"
    upstream.send(answer(200, b"fast"))
    assert client.read_response().body == b"fast"


def test_client_that_says_close_is_closed(stage, client):
    _, got = stage.exchange(get("/", "Connection: close"), client=client)
    assert got["Connection"] == "close"
    client.expect_close()


@pytest.mark.parametrize("line",
                         ["Connection: Close", "Connection: x, close",
                          "Connection: keep-alive, close"])
def test_close_is_found_in_any_shape(stage, client, line):
    _, got = stage.exchange(get("/", line), client=client)
    assert got["Connection"] == "close"
    client.expect_close()


def test_nothing_after_a_close_request_is_served(stage, client, origin):
    client.send(get("/last", "Connection: close") + get("/never"))
    upstream = origin.next()
    assert upstream.read_request().target == "/last"
    upstream.send(answer(200, b"last"))
    assert client.read_response().body == b"last"
    client.expect_close()
    assert b"/never" not in b"".join(bytes(one.received) for one in origin.connections)


def test_origin_that_says_close_is_not_used_again_and_the_client_stays(stage, client, origin):
    _, got = stage.exchange(get(), answer(200, b"bye", "Connection: close"), client)
    assert got["Connection"] != "close"
    origin.connections[0].expect_close()
    _, got = stage.exchange(get(), answer(200, b"again"), client)
    assert got.body == b"again" and len(origin.connections) == 2


def test_http_1_0_origin_is_not_used_again_by_itself(stage, client, origin):
    stage.exchange(get(), answer(200, b"old", version="1.0"), client)
    origin.connections[0].expect_close()
    stage.exchange(get(), client=client)
    assert len(origin.connections) == 2


def test_http_1_0_origin_with_keep_alive_is_used_again(stage, client, origin):
    stage.exchange(get(), answer(200, b"old", "Connection: keep-alive", version="1.0"), client)
    stage.exchange(get(), client=client)
    assert len(origin.connections) == 1


def test_http_1_0_client_is_closed_by_default(stage, client):
    stage.exchange(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n", client=client)
    client.expect_close()


@pytest.mark.parametrize("value", ["keep-alive", "Keep-Alive", "x, keep-alive"])
def test_http_1_0_client_may_ask_for_keep_alive(stage, client, value):
    request = f"GET / HTTP/1.0\r\nHost: test\r\nConnection: {value}\r\n\r\n".encode()
    for _ in range(2):
        _, got = stage.exchange(request, answer(200, b"kept"), client)
        assert got.body == b"kept" and got["Connection"].lower() == "keep-alive"


def test_http_1_1_answer_says_nothing_of_keep_alive(stage):
    """Persistence is the default (RFC 9112 section 9.3)."""
    _, got = stage.exchange(get(),
                            answer(200, b"x", "Connection: keep-alive", "Keep-Alive: timeout=5"))
    assert "Keep-Alive" not in got and "Connection" not in got


def test_requests_of_two_clients_do_not_share_a_connection_at_one_time(stage, origin):
    first, second = stage.connect(), stage.connect()
    first.send(get("/first"))
    one = origin.next()
    assert one.read_request().target == "/first"
    second.send(get("/second"))
    two = origin.next()
    assert two is not one and two.read_request().target == "/second"
    two.send(answer(200, b"second"))
    assert second.read_response().body == b"second"
    one.send(answer(200, b"first"))
    assert first.read_response().body == b"first"


def test_empty_lines_between_requests_are_skipped(stage, client):
    stage.exchange(get("/a"), client=client)
    seen, _ = stage.exchange(b"\r\n" + get("/b"), client=client)
    assert seen.target == "/b"


def test_in_flight_gauge_follows_the_exchange(stage, client, origin):
    name = "weir_http_requests_in_flight"
    idle = stage.counter(name)
    upstream = origin.asked_by(client, get())
    idle.grows()
    upstream.send(answer())
    client.read_response()
    idle.grows(0)
