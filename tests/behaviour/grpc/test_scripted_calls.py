"""gRPC calls over HTTP/2 whose frames the test decides at both ends: what grpcio does not do."""

import time

import grpc
import pytest

from harness.grpc_ends import GrpcEnds, H2Caller, failure, frame_of
from harness.h2_server import CANCEL, INTERNAL_ERROR, REFUSED_STREAM, H2Server
from harness.wait import PATIENCE, eventually

EARLY_S = 0.02
NO_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 0x0, 0xb, 0xc
StatusCode = grpc.StatusCode

INI = """
[defaults]
max_body_size = 0
[listener web]
bind = @web
upstream = app
[listener small]
bind = @small
upstream = app
max_body_size = 1000
max_headers = 20
[listener older]
bind = @older
upstream = older
[listener pair]
bind = @pair
upstream = pair
[route nowhere]
listener = none
path = /
respond = 404 nothing here
[listener none]
bind = @none
[upstream app]
protocol = h2
server = @origin
[upstream older]
server = @origin_old
[upstream pair]
protocol = h2
balance = first
server = @origin_one
server = @origin_two
"""

HEAD = ("content-type", "application/grpc+proto")
OK = ("grpc-status", "0")


@pytest.fixture
def caller(stage):
    return H2Caller(stage.connect())


def server_of(origin):
    """The next connection of weir's to it."""
    return H2Server(origin.accept())


def is_trailers_only(call, status, reason):
    assert call.head_ended and call.head[":status"] == "200" and not call.body
    assert call.head["content-type"] == "application/grpc"
    assert call.status == str(status) and call.head["grpc-message"]
    assert f'details="{reason}"' in call.head["proxy-status"]


def test_what_a_server_is_told(caller, origin):
    call = caller.call(("custom-bin", "AAEC"), ("grpc-encoding", "gzip"),
                       message=frame_of(b"\x1f\x8b not really", compressed=1))
    server = server_of(origin)
    request = server.whole_request()
    assert (request.method, request["te"]) == ("POST", "trailers")
    assert request["content-type"] == "application/grpc"
    assert (request["custom-bin"], request["grpc-encoding"]) == ("AAEC", "gzip")
    assert bytes(request.body) == frame_of(b"\x1f\x8b not really", compressed=1)
    server.head(request, 200, HEAD, ("grpc-encoding", "gzip"))
    server.data(request, frame_of(b"anything", compressed=1))
    server.trailers(request, OK, ("custom-bin", "/w"))
    call.wait()
    assert call.head["grpc-encoding"] == "gzip" and "content-length" not in call.head
    assert bytes(call.body) == frame_of(b"anything", compressed=1)
    assert call.trailers == {"grpc-status": "0", "custom-bin": "/w"}


def test_trailers_only_stays_so(caller, origin):
    call = caller.call()
    server = server_of(origin)
    request = server.whole_request()
    server.head(request, 200, HEAD, ("grpc-status", "5"), ("grpc-message", "no%20such"), end=True)
    call.wait()
    assert call.head_ended and (call.status, call.head["grpc-message"]) == ("5", "no%20such")
    assert call.reset is None and call.trailers is None


def test_an_answer_begins_and_ends_before_the_request(caller, origin):
    call = caller.call(message=frame_of(b"one"), end=False)
    server = server_of(origin)
    request = server.next_request()
    server.until(lambda: len(request.body) == 8, "the first message")
    server.head(request, 200, HEAD)
    call.until(lambda call: call.head, "the head")
    caller.data(call, frame_of(b"two"))
    server.until(lambda: len(request.body) == 16, "the second message")
    server.data(request, frame_of(b"half"))
    call.until(lambda call: bytes(call.body) == frame_of(b"half"), "the message")
    server.trailers(request, OK)
    call.wait()
    assert call.status == "0"
    call.until(lambda call: call.reset is not None, "RST_STREAM")
    assert call.reset == NO_ERROR  # RFC 9113 section 8.1
    server.expect_reset(request, CANCEL)


def test_a_half_close_passes(caller, origin):
    call = caller.call(message=frame_of(b"one"), end=False)
    server = server_of(origin)
    request = server.next_request()
    server.head(request, 200, HEAD)
    call.until(lambda call: call.head, "the head")
    assert not request.ended
    caller.data(call, b"", end=True)
    server.until(lambda: request.ended, "END_STREAM")
    server.data(request, frame_of(b"last"))
    server.trailers(request, OK)
    assert call.wait().status == "0" and call.reset is None


def test_a_cancelled_call_is_reset_at_the_server(caller, origin):
    call, other = caller.call(end=False), caller.call(end=False)
    server = server_of(origin)
    requests = {server.next_request(), server.next_request()}
    caller.cancel(call)
    server.until(lambda: any(one.reset is not None for one in requests), "RST_STREAM")
    (gone,) = [one for one in requests if one.reset is not None]
    assert gone.reset == CANCEL
    (left,) = requests - {gone}
    caller.data(other, b"", end=True)
    server.until(lambda: left.ended, "the end of the other")
    server.head(left, 200, HEAD, OK, end=True)
    assert other.wait().status == "0"


@pytest.mark.parametrize("answered", [False, True])
def test_a_call_whose_client_has_gone_is_reset_at_the_server(caller, origin, stage, answered):
    """A killed client that had nothing left to read says no more than FIN."""
    ended = stage.ended("client_closed")
    call = caller.call()
    server = server_of(origin)
    request = server.whole_request()
    if answered:
        server.head(request, 200, HEAD)
        call.until(lambda call: call.head, "the head")
    caller.peer.half_close()
    server.expect_reset(request)
    ended.grows()


# RST_STREAM of the server.

STATUSES = [(NO_ERROR, 14), (INTERNAL_ERROR, 13), (CANCEL, 1), (ENHANCE_YOUR_CALM, 8),
            (INADEQUATE_SECURITY, 7), (0x1, 13)]


@pytest.mark.parametrize("code, status", STATUSES)
def test_a_reset_before_the_answer_becomes_its_status(caller, origin, code, status):
    call = caller.call()
    server = server_of(origin)
    server.refuse(server.whole_request(), code)
    is_trailers_only(call.wait(), status, "server_reset")


@pytest.mark.parametrize("code", [INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY])
def test_a_reset_in_the_answer_goes_on_with_its_code(caller, origin, code):
    call = caller.call()
    server = server_of(origin)
    request = server.whole_request()
    server.head(request, 200, HEAD)
    server.data(request, frame_of(b"one"))
    call.until(lambda call: call.body, "the message")
    server.refuse(request, code)
    call.wait()
    assert (call.reset, call.trailers) == (code, None)


def test_a_reset_means_the_same_to_grpcio_as_without_weir(stage):
    """CANCEL, before and behind the head."""
    with GrpcEnds(stage) as ends:
        for name in ("web", "origin"):
            call = ends.unary("Any", name).future(b"", timeout=PATIENCE)
            server = server_of(stage.origin)
            server.refuse(server.whole_request(), CANCEL)
            assert failure(call.result).code() is StatusCode.CANCELLED, name
            server.close()
            call = ends.server_stream("Any", name)(b"", timeout=PATIENCE)
            server = server_of(stage.origin)
            request = server.whole_request()
            server.head(request, 200, HEAD)
            assert call.initial_metadata() is not None
            server.refuse(request, CANCEL)
            assert failure(lambda: list(call)).code() is StatusCode.CANCELLED, name
            server.close()


# Servers that die.

def test_a_server_killed_before_its_answer(caller, origin, stage):
    counted = stage.counter("weir_grpc_errors_total", reason="server_reset")
    call = caller.call()
    server = server_of(origin)
    server.whole_request()
    server.reset()
    is_trailers_only(call.wait(), 14, "server_reset")
    assert counted.grown() == 1


def test_a_server_killed_in_mid_answer(caller, origin):
    call = caller.call()
    server = server_of(origin)
    request = server.whole_request()
    server.head(request, 200, HEAD)
    server.data(request, frame_of(b"one") + frame_of(b"a half one")[:7])
    call.until(lambda call: len(call.body) == 15, "the messages")
    server.reset()
    call.wait()
    assert call.trailers["grpc-status"] == "14" and call.trailers["grpc-message"]
    assert call.reset is None


def test_a_killed_server_is_unavailable_to_grpcio(stage):
    with GrpcEnds(stage) as ends:
        call = ends.server_stream("Any")(b"", timeout=PATIENCE)
        server = server_of(stage.origin)
        request = server.whole_request()
        server.head(request, 200, HEAD)
        server.data(request, frame_of(b"one") + frame_of(b"a half one")[:7])
        assert next(call) == b"one"
        server.reset()
        error = failure(lambda: next(call))
        assert error.code() is StatusCode.UNAVAILABLE


def test_an_answer_of_another_kind_is_reset(caller, origin):
    call = caller.call()
    server = server_of(origin)
    request = server.whole_request()
    server.head(request, 200, ("content-type", "text/html"))
    server.data(request, b"<html>")
    call.until(lambda call: call.body, "the page")
    server.reset()
    call.wait()
    assert (call.reset, call.trailers) == (INTERNAL_ERROR, None)


def test_bytes_one_by_one(stage, origin):
    """Both ends send so that no frame comes whole."""
    caller = H2Caller(stage.connect(), each_byte=True)
    call = caller.call(("custom-bin", "AAEC"), message=frame_of(b"slow"))
    server = server_of(origin)
    request = server.whole_request()
    assert request["custom-bin"] == "AAEC" and bytes(request.body) == frame_of(b"slow")
    server.upstream.send, whole = server.upstream.send_each_byte, server.upstream.send
    server.head(request, 200, HEAD)
    server.data(request, frame_of(b"answer"))
    server.trailers(request, OK, ("last", "one"))
    server.upstream.send = whole
    call.wait()
    assert bytes(call.body) == frame_of(b"answer")
    assert call.trailers == {"grpc-status": "0", "last": "one"}


# What a server has not looked at is sent again.

def test_a_refused_call_goes_to_another_server(stage):
    caller = H2Caller(stage.connect("pair"))
    call = caller.call(message=frame_of(b"once"))
    first = server_of(stage.origins["origin_one"])
    first.refuse(first.whole_request(), REFUSED_STREAM)
    second = server_of(stage.origins["origin_two"])
    request = second.whole_request()
    assert bytes(request.body) == frame_of(b"once")
    second.head(request, 200, HEAD, OK, end=True)
    assert call.wait().status == "0"


def test_a_call_beyond_goaway_is_sent_again(stage):
    caller = H2Caller(stage.connect("pair"))
    call = caller.call()
    first = server_of(stage.origins["origin_one"])
    first.whole_request()
    first.go_away(0)
    again = [stage.origins["origin_one"], stage.origins["origin_two"]]
    upstream = eventually(lambda: again[0].accept_now() or again[1].accept_now(),
                          "it was sent again, on another connection")
    server = H2Server(upstream)
    request = server.whole_request()
    server.head(request, 200, HEAD, OK, end=True)
    assert call.wait().status == "0"


def test_a_call_that_all_refuse_is_unavailable(caller, stage, origin):
    call = caller.call()
    for _ in range(3):
        server = server_of(origin)
        server.refuse(server.whole_request(), REFUSED_STREAM)
    is_trailers_only(call.wait(), 14, "server_refused")


# Deadlines that a client has and does not act on.

def test_a_deadline_resets_the_server(caller, origin, stage):
    counted = stage.counter("weir_grpc_errors_total", reason="grpc_deadline")
    began = time.monotonic()
    call = caller.call(("grpc-timeout", "300m"))
    server = server_of(origin)
    request = server.whole_request()
    is_trailers_only(call.wait(), 4, "grpc_deadline")
    assert time.monotonic() - began >= 0.3 - EARLY_S
    server.expect_reset(request, CANCEL)
    assert counted.grown() == 1


def test_a_deadline_in_the_answer(caller, origin):
    call = caller.call(("grpc-timeout", "900000u"), end=False)
    server = server_of(origin)
    request = server.next_request()
    server.head(request, 200, HEAD)
    server.data(request, frame_of(b"one"))
    call.wait()
    assert bytes(call.body) == frame_of(b"one")
    assert (call.trailers["grpc-status"], call.ended) == ("4", True)
    server.expect_reset(request, CANCEL)
    call.until(lambda call: call.reset is not None, "RST_STREAM")
    assert call.reset == NO_ERROR  # the rest of the request is not wanted


def test_a_deadline_of_one_call_leaves_the_others(caller, origin):
    late, other = caller.call(("grpc-timeout", "200m")), caller.call()
    server = server_of(origin)
    requests = [server.whole_request(), server.whole_request()]
    is_trailers_only(late.wait(), 4, "grpc_deadline")
    (left,) = [one for one in requests if "grpc-timeout" not in one]
    server.head(left, 200, HEAD, OK, end=True)
    assert other.wait().status == "0"


def test_a_deadline_of_a_client_that_does_not_read(caller, origin, stage):
    """Its window is shut: the server is free at once, the status comes when there is room."""
    counted = stage.ended("grpc_deadline")
    caller.stingy = True
    call = caller.call(("grpc-timeout", "900m"))
    server = server_of(origin)
    request = server.whole_request()
    server.head(request, 200, HEAD)
    sent = server.send_until_stuck(request)
    assert sent > 65535
    server.expect_reset(request, CANCEL)
    counted.grows()
    call.until(lambda call: len(call.body) == 65535, "all that the window has room for")
    assert call.trailers is None
    caller.read_on(call)
    call.wait()
    assert call.trailers["grpc-status"] == "4" and call.reset is None


def test_a_deadline_ends_a_call_that_waits_to_be_sent_again(caller, stage, origin):
    """A server that never takes it, while the client waits."""
    call = caller.call(("grpc-timeout", "900m"))
    server = server_of(origin)
    server.refuse(server.whole_request(), REFUSED_STREAM)
    is_trailers_only(call.wait(), 4, "grpc_deadline")


def test_the_server_is_told_the_time_that_is_left(caller, origin):
    call = caller.call(("grpc-timeout", "10S"))
    server = server_of(origin)
    request = server.whole_request()
    given = request["grpc-timeout"]
    assert given == "10S" or (given.endswith("m") and 9000 < int(given[:-1]) <= 10000), given
    server.head(request, 200, HEAD, OK, end=True)
    assert call.wait().status == "0"


# Refused by weir.

def test_a_call_over_a_limit(stage):
    counted = stage.counter("weir_grpc_errors_total")
    caller = H2Caller(stage.connect("small"))
    is_trailers_only(caller.call(*[(f"x-{i}", "y") for i in range(30)]).wait(), 8,
                     "too_many_fields")
    is_trailers_only(caller.call(("content-length", "2000"), message=b"x" * 2000).wait(), 8,
                     "body_too_large")
    assert counted.grown() == 2


def test_other_requests_over_a_limit_get_an_error_of_http(stage):
    caller = H2Caller(stage.connect("small"))
    call = caller.request(("content-length", "2000"))
    call.until(lambda call: call.ended, "an answer")
    assert call.head[":status"] == "413" and call.body


def test_what_is_configured_stays_as_it_is(stage):
    caller = H2Caller(stage.connect("none"))
    call = caller.call().wait()
    assert (call.head[":status"], bytes(call.body)) == ("404", b"nothing here")
    assert call.status is None


# A server of HTTP/1.1.

def test_a_call_to_a_server_of_http1(stage):
    caller = H2Caller(stage.connect("older"))
    call = caller.call(message=frame_of(b"old"))
    upstream = stage.origins["origin_old"].next()
    request = upstream.read_request()
    assert request.body == frame_of(b"old") and request["TE"] == "trailers"
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + frame_of(b"new") +
                  b"\r\n0\r\ngrpc-status: 0\r\n\r\n")
    call.wait()
    assert (bytes(call.body), call.trailers) == (frame_of(b"new"), {"grpc-status": "0"})
