"""What a request meets when its server, stream or connection fails; and what others do not."""

import struct
import time

import pytest

from harness.h2_client import H2Client
from harness.h2_server import (CANCEL, DATA, GOAWAY, HEADERS, INTERNAL_ERROR, ONE_AND_TWO,
                               PROTOCOL_ERROR, WINDOW, WINDOW_UPDATE, H2Server, ask, finish)
from harness.http1 import get, post
from harness.peer import Ended, WasReset

INI = ONE_AND_TWO + """
[listener quick]
bind = @quick
upstream = quick
[listener unkept]
bind = @unkept
upstream = unkept
[listener dead]
bind = @gone
upstream = dead
[listener hole]
bind = @never
upstream = hole
[listener large]
bind = @large
upstream = app
max_body_size = 0
[route here]
path = /here
respond = 200 here
[upstream quick]
protocol = h2
timeout_server = 700ms
server = @origin
[upstream unkept]
protocol = h2
timeout_server = 700ms
keepalive = 0
server = @origin
[upstream dead]
protocol = h2
server = @dead
[upstream hole]
protocol = h2
timeout_connect = 200ms
server = @hole
"""


def one(stage, request=get(), name="web"):
    client = ask(stage, request, name)
    server = H2Server(stage.origin.accept())
    return client, server, server.next_request()


def pair(stage):
    """Two requests on one connection: [(client, request), (client, request)], server."""
    clients = {"/0": ask(stage, get("/0"))}
    server = H2Server(stage.origin.accept())
    requests = [server.next_request()]
    clients["/1"] = ask(stage, get("/1"))
    requests.append(server.next_request())
    return [(clients[request.path], request) for request in requests], server


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("code", [0, INTERNAL_ERROR, CANCEL, PROTOCOL_ERROR, 0xd])
def test_a_reset_stream_is_502_and_no_other_is_disturbed(stage, code, which):
    """Nor is it sent again, as the request of a connection that died might be."""
    both, server = pair(stage)
    mine, other = both[which], both[1 - which]
    server.refuse(mine[1], code)
    response = mine[0].read_response()
    assert response.status == 502 and response.reason == "server_reset"
    finish(other[0], server, other[1])
    assert stage.origin.accept_now() is None


def test_a_stream_reset_in_its_answer_cuts_it_visibly(stage):
    (mine, other), server = pair(stage)
    server.head(mine[1], 200, ("content-length", "100"))
    server.data(mine[1], b"some")
    assert mine[0].read_response_head().status == 200
    mine[0].expect(b"some")
    server.refuse(mine[1], INTERNAL_ERROR)
    mine[0].expect_end()
    assert not mine[0].buffered
    finish(other[0], server, other[1])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_stream_goes_to_another_server(stage, method):
    client, server, request = one(stage, post("/", b"body", method=method), "two")
    server.until(lambda: request.ended, "its end")
    server.refuse(request)
    other = H2Server(stage.origins["origin_b"].accept())
    again = other.whole_request()
    assert again.method == method and again.body == b"body"
    finish(client, other, again)
    stage.weir.eventually_metric(lambda count: count >= 1, "weir_upstream_retries_total",
                                 reason="server_refused")


def test_a_refused_stream_of_a_single_server_takes_another_connection(stage):
    client, server, request = one(stage, post("/", b"body"))
    server.refuse(request)
    other = H2Server(stage.origin.accept())
    again = other.whole_request()
    assert again.body == b"body"
    finish(client, other, again)


def test_who_refuses_every_time_is_told_as_503(stage):
    client, server, request = one(stage)
    server.refuse(request)
    for _ in range(2):
        server = H2Server(stage.origin.accept())
        server.refuse(server.next_request())
    response = client.read_response()
    assert response.status == 503 and response.reason == "server_refused"


def test_goaway_lets_those_finish_that_it_names(stage):
    (mine, other), server = pair(stage)
    server.go_away(other[1].id)
    server.echo()
    # Another connection takes what comes now.
    later = ask(stage, get("/later"))
    next_server = H2Server(stage.origin.accept())
    request = next_server.next_request()
    assert request.path == "/later"
    finish(mine[0], server, mine[1])
    finish(other[0], server, other[1])
    server.expect_end()
    finish(later, next_server, request)


def test_what_a_goaway_leaves_out_is_sent_again(stage):
    clients = {"/0": ask(stage, get("/0"))}
    server = H2Server(stage.origin.accept())
    first = server.next_request()
    clients["/1"] = ask(stage, post("/1", b"body"))
    second = server.next_request()
    server.until(lambda: second.ended, "its end")
    server.go_away(first.id)
    other = H2Server(stage.origin.accept())
    again = other.whole_request()
    assert again.path == "/1" and again.body == b"body"
    finish(clients["/1"], other, again)
    finish(clients["/0"], server, first)
    server.expect_end()


def test_a_goaway_in_two_steps_loses_nothing(stage):
    """RFC 9113 section 6.8: first the highest id there is, later the last one served."""
    (mine, other), server = pair(stage)
    server.go_away(2**31 - 1)
    server.echo()
    server.go_away(other[1].id)
    finish(mine[0], server, mine[1])
    finish(other[0], server, other[1])
    server.expect_end()


def test_goaway_while_idle_ends_the_connection(stage):
    client, server, request = one(stage)
    finish(client, server, request)
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="idle")
    server.go_away(request.id)
    server.expect_end()
    client, server, request = one(stage)
    finish(client, server, request)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_lost_connection_fails_what_may_not_be_repeated(stage, end):
    """The first request of a connection is not repeated, as with HTTP/1; nor is a POST on a used
    one. A GET on a used connection is."""
    first = ask(stage, get("/first"))
    server = H2Server(stage.origin.accept())
    server.next_request()
    poster = ask(stage, post("/post", b"body"))
    server.until(lambda: server.next_request().ended, "the POST")
    getter = ask(stage, get("/get"))
    server.next_request()
    getattr(server, end)()
    for client in (first, poster):
        response = client.read_response()
        assert response.status == 502 and response.reason in ("server_closed", "server_reset")
    other = H2Server(stage.origin.accept())
    again = other.next_request()
    assert again.path == "/get"
    finish(getter, other, again)


def test_many_streams_of_a_lost_connection_are_all_sent_again(stage):
    warm, server, request = one(stage)
    finish(warm, server, request)
    clients = {f"/{number}": ask(stage, get(f"/{number}")) for number in range(20)}
    server.until(lambda: len(server.unseen) == 20, "all requests")
    server.reset()
    other = H2Server(stage.origin.accept())
    other.until(lambda: len(other.unseen) == 20, "all requests again")
    assert stage.origin.accept_now() is None
    for again in other.unseen:
        finish(clients[again.path], other, again)


def test_a_connection_closed_while_idle_is_noticed(stage):
    client, server, request = one(stage)
    finish(client, server, request)
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="idle")
    server.close()
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="idle")
    client, server, request = one(stage)
    finish(client, server, request)


@pytest.mark.parametrize("kind, flags, stream, payload", [
    (DATA, 0, 0, b"x"),                                 # DATA on stream 0
    (WINDOW_UPDATE, 0, 0, struct.pack(">I", 0)),        # an increment of 0
    (HEADERS, 4, 2, b"\x88"),                           # an answer on a stream that is not ours
    (HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"),       # not HPACK
    (0x9, 4, 1, b""),                                   # CONTINUATION without HEADERS
    (GOAWAY, 0, 0, b"abc"),                             # too short
])
def test_a_broken_connection_is_502_and_ends(stage, kind, flags, stream, payload):
    client, server, request = one(stage)
    server.frame(kind, flags, stream, payload)
    response = client.read_response()
    assert response.status == 502
    server.expect_end()
    assert server.goaway is None or server.goaway.error_code != 0
    client, server, request = one(stage)
    finish(client, server, request)


def test_a_server_of_http1_is_502(stage):
    client = ask(stage)
    upstream = stage.origin.accept()
    upstream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert client.read_response().status == 502
    upstream.expect_end()


@pytest.mark.parametrize("fields", [
    [(":status", "200"), ("connection", "close")],
    [(":status", "200"), ("Upper", "x")],
    [(":status", "abc")],
    [("x-only", "1")],
    [(":status", "200"), (":path", "/")],
    [(":status", "200"), ("transfer-encoding", "chunked")],
    [(":status", "200"), ("x", "a\r\nb")],
])
def test_a_malformed_head_is_502_for_its_stream_alone(stage, fields):
    (mine, other), server = pair(stage)
    block = server.h2.encoder.encode(fields)
    server.frame(HEADERS, 4, mine[1].id, block)
    response = mine[0].read_response()
    assert response.status == 502 and response.reason == "bad_response"
    finish(other[0], server, other[1])


@pytest.mark.parametrize("length, body", [("3", b"hello"), ("9", b"hello")])
def test_a_body_that_is_not_as_long_as_it_says_is_no_whole_answer(stage, length, body):
    """The client is told 502, or sees that what it has is cut."""
    ends = stage.ended("bad_response")
    client, server, request = one(stage)
    server.frame(HEADERS, 4, request.id, server.h2.encoder.encode(
        [(":status", "200"), ("content-length", length)]))
    server.frame(DATA, 1, request.id, body)
    try:
        got = client.read_response()
        assert (got.status, got.reason) == (502, "bad_response")
    except (Ended, WasReset):
        pass
    ends.grows()


def test_no_answer_within_timeout_server_is_504(stage):
    client, server, request = one(stage, name="quick")
    response = client.read_response()
    assert response.status == 504 and response.reason == "server_timeout"
    server.expect_reset(request)


def test_a_connection_that_was_silent_meanwhile_is_not_used_again(stage):
    """Its server may have vanished without a word: whoever came next would wait as long."""
    client, server, request = one(stage, name="quick")
    finish(client, server, request)
    client.send(get("/silence"))
    server.next_request()
    assert client.read_response().status == 504
    client, other, request = one(stage, name="quick")
    finish(client, other, request)
    server.expect_end()


def test_a_connection_that_is_heard_stays_when_one_answer_is_late(stage):
    client, server, request = one(stage, name="quick")
    other = ask(stage, name="quick")
    other_request = server.next_request()
    server.head(other_request, 200)
    other.read_response_head()
    while request.reset is None:
        time.sleep(0.02)  # the server's pace
        server.data(other_request, b"tick")
        server.echo()
        assert other.read_chunk() == b"tick"
    assert client.read_response().status == 504
    again = ask(stage, name="quick")
    finish(again, server, server.next_request())
    server.h2.end_stream(other_request.id)
    server.flush()
    assert other.read_chunk() == b""
    other.read_trailers()


def test_several_late_answers_of_a_connection_that_is_not_kept(stage):
    clients = [ask(stage, name="unkept") for _ in range(5)]
    server = H2Server(stage.origin.accept())
    server.until(lambda: len(server.unseen) == 5, "all requests")
    for client in clients:
        assert client.read_response().status == 504
    server.expect_end()


def test_a_server_that_never_says_its_settings_is_504(stage):
    client = ask(stage, name="quick")
    server = H2Server(stage.origin.accept(), silent=True)
    server.next_request()
    assert client.read_response().status == 504


def test_a_server_that_cannot_be_connected_is_503(stage):
    clients = [ask(stage, name="gone") for _ in range(5)]
    for client in clients:
        response = client.read_response()
        assert response.status == 503 and response.reason == "connect_failed"


def test_a_connect_that_takes_too_long_is_504(stage):
    clients = [ask(stage, name="never") for _ in range(5)]
    for client in clients:
        response = client.read_response()
        assert response.status == 504 and response.reason == "connect_timeout"


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_client_that_leaves_cancels_its_stream_alone(stage, end):
    (mine, other), server = pair(stage)
    server.head(mine[1], 200)
    server.data(mine[1], b"some")
    mine[0].read_response_head()
    getattr(mine[0], end)()
    while end == "close" and mine[1].reset is None:  # a FIN alone is no reason to stop
        server.data(mine[1], b"more")
        server.echo()
    server.expect_reset(mine[1], CANCEL)
    finish(other[0], server, other[1])
    again = ask(stage, get("/again"))
    request = server.next_request()
    finish(again, server, request)


def test_a_client_that_leaves_in_its_upload_cancels_it(stage):
    client, server, request = one(stage, post("/", b"").replace(b": 0", b": 1000"))
    client.send(b"x" * 10)
    server.until(lambda: request.body, "some of the body")
    client.reset()
    server.expect_reset(request, CANCEL)
    again = ask(stage)
    finish(again, server, server.next_request())


@pytest.mark.parametrize("answered", [False, True])
def test_a_client_that_leaves_within_a_head_that_nobody_can_be_told_of(stage, answered):
    """The server does not read, so weir's RST_STREAM waits behind the body; meanwhile the rest of
    a head, or of trailers, comes for whom nobody waits any more."""
    client = H2Client(stage.connect("large"))
    client.request(1, "POST", "/", end=False)
    server = H2Server(stage.origin.accept(), {WINDOW: 2**31 - 1})
    server.h2.increment_flow_control_window(2**30)
    server.flush()
    request = server.next_request()
    if answered:
        server.head(request, 200)
        assert client.answer_head(1).status == 200
    client.send_until_stuck(1)
    fields = [("x-trailer", "1")] if answered else [(":status", "200")]
    block = server.h2.encoder.encode([*fields, ("x-more", "a" * 50)])
    head = struct.pack(">I", len(block))[1:] + struct.pack(">BBI", HEADERS, 5, request.id)
    server.upstream.send(head + block[:-10])
    assert stage.connect().ask(get("/here")).body == b"here"
    client.reset_stream(1)
    client.echo()
    server.upstream.send(block[-10:])
    assert stage.connect().ask(get("/here")).body == b"here"
    server.expect_reset(request)
    again = ask(stage)
    finish(again, server, server.next_request())


def test_a_client_that_leaves_while_it_is_dialled_leaves_the_others(stage):
    clients = [ask(stage, get(f"/{number}")) for number in range(4)]
    clients[1].reset()
    server = H2Server(stage.origin.accept())
    seen = {}
    while len(seen) < 3 or not {"/0", "/2", "/3"} <= set(seen):
        request = server.next_request()
        seen[request.path] = request
    for number in (0, 2, 3):
        finish(clients[number], server, seen[f"/{number}"])
