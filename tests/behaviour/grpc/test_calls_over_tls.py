"""gRPC over TLS on both sides, as it is used: grpcio insists on ALPN h2."""

import queue

import grpc
import pytest

from harness.bulk import MB, pattern
from harness.grpc_ends import (GrpcEnds, Watched, answer_together, both_stream, calls_at_once,
                               client_stream, failure, server_stream, unary)
from harness.tls import TO_ORIGIN
from harness.wait import PATIENCE

StatusCode = grpc.StatusCode

INI = f"""
; the server's certificate: origin.test.pem
[defaults]
max_body_size = 0
[tls site]
certificate = weir.test.pem
[listener web]
bind = @web
tls = site
alpn = h2 http/1.1
upstream = app
[upstream app]
protocol = h2
{TO_ORIGIN}
server = @grpc
"""


@pytest.fixture
def ends(stage):
    with GrpcEnds(stage, "weir.test", "origin.test") as ends:
        yield ends


def echo(message, context):
    context.send_initial_metadata([("initial-bin", b"\0\xff")])
    context.set_trailing_metadata([("trailing", "yes")])
    return message


def test_unary_with_metadata(ends, stage):
    ends.serve(Echo=unary(echo))
    got, call = ends.unary("Echo").with_call(b"secret", timeout=PATIENCE,
                                             metadata=[("some-bin", b"\1\2")])
    assert got == b"secret"
    assert dict(call.initial_metadata())["initial-bin"] == b"\0\xff"
    assert dict(call.trailing_metadata())["trailing"] == "yes"
    assert stage.count("weir_http_requests_total", listener="web", proto="h2") >= 1


def test_streams_of_each_kind(ends):
    ends.serve(Count=server_stream(lambda message, context: (b"%d" % i for i in range(100))),
               Total=client_stream(lambda messages, context: b"%d" % sum(map(int, messages))),
               Talk=both_stream(lambda messages, context: messages))
    assert list(ends.server_stream("Count")(b"", timeout=PATIENCE)) == [
        b"%d" % i for i in range(100)]
    numbers = (b"%d" % i for i in range(100))
    assert ends.client_stream("Total")(numbers, timeout=PATIENCE) == b"4950"
    outgoing = queue.Queue()
    call = ends.both_stream("Talk")(iter(outgoing.get, None), timeout=PATIENCE)
    for i in range(50):
        outgoing.put(b"%d" % i)
        assert next(call) == b"%d" % i
    outgoing.put(None)
    assert list(call) == []


def test_big_messages_both_ways(ends):
    ends.serve(Echo=unary(echo))
    message = pattern(4 * MB + 1)
    call = ends.unary("Echo")
    for _ in range(3):
        assert call(message, timeout=3 * PATIENCE) == message


def test_200_calls_at_once(ends):
    ends.serve(Wait=answer_together(200))
    assert calls_at_once(ends, "Wait", 200) == [b"%d" % i for i in range(200)]


def test_a_status_of_the_server(ends):
    def refuse(message, context):
        context.abort(StatusCode.ABORTED, "not now")

    ends.serve(Refuse=unary(refuse))
    error = failure(lambda: ends.unary("Refuse")(b"", timeout=PATIENCE))
    assert (error.code(), error.details()) == (StatusCode.ABORTED, "not now")


def test_no_server_is_unavailable(ends):
    call = ends.unary("Echo")
    error = failure(lambda: call(b"", timeout=PATIENCE))
    assert (error.code(), error.details()) == (StatusCode.UNAVAILABLE,
                                               "no server could be connected")
    ends.serve(Echo=unary(echo))
    assert call(b"back", timeout=PATIENCE) == b"back"


def test_a_deadline_and_a_cancellation_reach_the_server(ends):
    late, left = Watched(), Watched(b"one")
    ends.serve(Late=server_stream(late), Left=server_stream(left))
    error = failure(lambda: list(ends.server_stream("Late")(b"", timeout=1)))
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    assert late.over.wait(PATIENCE)
    call = ends.server_stream("Left")(b"", timeout=PATIENCE * 2)
    assert next(call) == b"one"
    call.cancel()
    assert left.over.wait(PATIENCE)


def test_a_server_with_a_certificate_nobody_signed_for_it(new_stage):
    stage = new_stage(INI.replace("server_name = origin.test", "server_name = other.test"))
    with GrpcEnds(stage, "weir.test", "origin.test") as ends:
        ends.serve(Echo=unary(echo))
        error = failure(lambda: ends.unary("Echo")(b"", timeout=PATIENCE))
        assert error.code() is StatusCode.UNAVAILABLE
