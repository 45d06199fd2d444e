"""gRPC calls whose bytes the test writes, over HTTP/1.1: what weir adds knows no version."""

import re
import time

import pytest

from harness.http1 import (answer, answer_chunked, answer_head, chunk, get, post, post_chunked)

EARLY_S = 0.02

INI = """
[listener web]
bind = @web
upstream = app
max_body_size = 1000
[listener down]
bind = @down
upstream = down
[listener nothing]
bind = @nothing
service = hi
[route missing]
path = /nowhere
listener = nothing
upstream = down
[listener slow]
bind = @slow
upstream = slow
[listener hole]
bind = @unheard
upstream = hole
[listener busy]
bind = @busy
upstream = busy
[route moved]
path = /moved
redirect = 301 http://elsewhere/
[service hi]
type = respond
body = hello
[upstream app]
server = @origin
[upstream down]
server = @dead
[upstream slow]
server = @origin
timeout_server = 200ms
[upstream hole]
server = @hole
timeout_connect = 200ms
[upstream busy]
server = @origin max_connections=1
queue = 0
"""

CALL = "Content-Type: application/grpc"
GRPC = ["Content-Type: application/grpc", "Transfer-Encoding: chunked"]


def call(*lines, target="/pkg.Service/Method", body=b"message"):
    return post_chunked(target, body, lines=[CALL, "TE: trailers", *lines])


def is_status(got, status, reason):
    """A trailers-only answer of weir's own."""
    assert (got.status, got["grpc-status"], got.body) == (200, str(status), b"")
    assert got["Content-Type"] == "application/grpc"
    assert got["grpc-message"] and got.reason == reason
    assert "Date" in got and not got.chunked


@pytest.mark.parametrize("name, status, reason", [
    ("down", 14, "connect_failed"),
    ("unheard", 4, "connect_timeout"),
])
def test_a_call_without_a_server(stage, name, status, reason):
    counted = stage.counter("weir_grpc_errors_total", reason=reason)
    client = stage.connect(name)
    client.send(call())
    is_status(client.read_response(), status, reason)
    assert counted.grown() == 1


def test_the_connection_goes_on_after_a_failed_call(stage):
    client = stage.connect("down")
    for _ in range(3):
        client.send(call())
        is_status(client.read_response(), 14, "connect_failed")


@pytest.mark.parametrize("kind", ["application/grpc-web", "application/json", "text/grpc"])
def test_other_requests_get_an_error_of_http(stage, kind):
    client = stage.connect("down")
    client.send(post("/", b"x", f"Content-Type: {kind}"))
    got = client.read_response()
    assert (got.status, got.reason) == (503, "connect_failed")
    assert "grpc-status" not in got and got.body


def test_a_server_that_is_silent(stage, origin):
    client = stage.connect("slow")
    upstream = origin.asked_by(client, call())
    is_status(client.read_response(), 4, "server_timeout")
    upstream.expect_end()


def test_a_busy_server(stage, origin):
    first, second = stage.connect("busy"), stage.connect("busy")
    upstream = origin.asked_by(first, call())
    second.send(call())
    is_status(second.read_response(), 14, "server_busy")
    upstream.send(answer(200, b"", CALL, "grpc-status: 0"))
    assert first.read_response()["grpc-status"] == "0"


def test_a_server_that_dies_before_its_answer(stage, origin):
    client = stage.connect()
    upstream = origin.asked_by(client, call())
    upstream.reset()
    is_status(client.read_response(), 14, "server_reset")


def test_a_server_that_dies_in_its_answer_is_told_in_trailers(stage, origin):
    client = stage.connect()
    upstream = origin.asked_by(client, call())
    upstream.send(answer_head(200, *GRPC) + chunk(b"half a mess"))
    client.read_until(b"half a mess\r\n")
    upstream.close()
    got = client.read_until(b"\r\n\r\n")
    assert re.search(rb"0\r\ngrpc-status: 14\r\ngrpc-message: [^\r\n]+\r\n\r\n$", got), got


def test_an_answer_of_another_kind_is_cut(stage, origin):
    client = stage.connect()
    upstream = origin.asked_by(client, call())
    upstream.send(answer_head(200, "Transfer-Encoding: chunked") + chunk(b"a page"))
    client.read_until(b"a page\r\n")
    upstream.close()
    client.expect_end()
    assert not client.buffered


def test_a_message_that_is_too_large(stage):
    client = stage.connect()
    client.send(call(body=b"x" * 2000))
    is_status(client.read_response(), 8, "body_too_large")


def test_what_is_configured_stays_as_it_is(stage):
    client = stage.connect("nothing")
    client.send(call())
    assert client.read_response().body == b"hello"
    client.send(call(target="/moved"))
    got = client.read_response()
    assert (got.status, got["grpc-status"]) == (301, None)


def test_answers_of_the_server_stay_as_they_are(stage, origin):
    seen, got = stage.exchange(call("custom-bin: AAEC", "grpc-encoding: gzip"), answer_chunked(
        b"\1\0\0\0\3abc", lines=[CALL, "initial-bin: AQI"],
        trailers=["grpc-status: 9", "grpc-message: 100%25", "last-bin: AA=="]))
    assert seen["custom-bin"] == "AAEC" and seen["grpc-encoding"] == "gzip"
    assert seen["TE"] == "trailers"
    assert got.body == b"\1\0\0\0\3abc" and got["initial-bin"] == "AQI"
    assert dict(got.trailers) == {"grpc-status": "9", "grpc-message": "100%25", "last-bin": "AA=="}
    seen, got = stage.exchange(call(), answer(503, b"go away"))
    assert (got.status, got.body, got["grpc-status"]) == (503, b"go away", None)


def test_a_deadline_ends_the_call(stage, origin):
    counted = stage.counter("weir_grpc_errors_total", reason="grpc_deadline")
    client = stage.connect()
    began = time.monotonic()
    upstream = origin.asked_by(client, call("grpc-timeout: 300m"))
    is_status(client.read_response(), 4, "grpc_deadline")
    assert time.monotonic() - began >= 0.3 - EARLY_S
    upstream.expect_end()
    counted.grows()


def test_a_deadline_while_a_connection_is_made(new_stage):
    stage = new_stage(INI.replace("timeout_connect = 200ms", "timeout_connect = 2s"))
    client = stage.connect("unheard")
    client.send(call("grpc-timeout: 200m"))
    is_status(client.read_response(), 4, "grpc_deadline")


def test_a_deadline_in_the_answer_is_told_in_trailers(stage, origin):
    """A server that goes on and on gets no more time by it."""
    client = stage.connect()
    upstream = origin.asked_by(client, call("grpc-timeout: 900m"))
    upstream.send(answer_head(200, *GRPC))
    got = b""
    while b"\r\n0\r\n" not in got:
        try:
            upstream.send(chunk(b"more"))
        except (BrokenPipeError, ConnectionResetError):
            pass
        got += client.read_until(b"more\r\n") if b"more" not in got else b""
        client.look()
        if b"0\r\ngrpc-status" in client.buffered:
            got += client.read_until(b"\r\n\r\n")
        time.sleep(0.01)
    assert re.search(rb"\r\n0\r\ngrpc-status: 4\r\n", got), got
    upstream.expect_end()


def test_a_deadline_that_is_over_reaches_no_server(stage, origin):
    client = stage.connect()
    client.send(call("grpc-timeout: 0S"))
    is_status(client.read_response(), 4, "grpc_deadline")
    assert origin.saw_nothing()


@pytest.mark.parametrize("text", ["1s", "1", "100000000m", "", "-1S", "soon"])
def test_what_is_no_timeout_goes_on(stage, origin, text):
    seen, got = stage.exchange(call(f"grpc-timeout: {text}"), answer(200, b"", CALL))
    assert seen["grpc-timeout"] == text
    assert got.status == 200


def test_the_server_is_told_what_is_left(stage, origin):
    client = stage.connect()
    whole = call("grpc-timeout: 20S")
    client.send(whole[:30])
    time.sleep(0.3)  # the time that has to be taken off
    client.send(whole[30:])
    upstream = origin.next()
    left = upstream.read_request()["grpc-timeout"]
    assert re.fullmatch(r"1\d{4}m", left) and int(left[:-1]) <= 19700 + 20, left
    upstream.send(answer(200, b"", CALL, "grpc-status: 0"))
    assert client.read_response()["grpc-status"] == "0"


def test_a_timeout_without_a_call_bounds_nothing(stage, origin):
    client = stage.connect()
    upstream = origin.asked_by(client, get("/", "grpc-timeout: 1m"))
    time.sleep(0.05)  # the time that would have been too much
    upstream.send(answer(200, b"late"))
    assert client.read_response().body == b"late"


def test_a_client_that_leaves_is_no_failed_call(stage, origin):
    counted = stage.counter("weir_grpc_errors_total")
    client = stage.connect()
    upstream = origin.asked_by(client, call("grpc-timeout: 20S"))
    client.reset()
    upstream.expect_end()
    assert counted.grown() == 0
