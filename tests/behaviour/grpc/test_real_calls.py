"""grpcio's client before weir and its server behind: what gRPC promises holds through weir."""

import queue
import signal
import threading
import time

import grpc
import pytest

from harness.bulk import MB, pattern
from harness.grpc_ends import (GrpcEnds, Watched, answer_together, both_stream, calls_at_once,
                               client_stream, failure, path_of, server_stream, unary)
from harness.wait import PATIENCE

StatusCode = grpc.StatusCode
EARLY_S = 0.02  # the worker's clock is read once a turn, and counts milliseconds

INI = """
[defaults]
max_body_size = 0
[listener web]
bind = @web
upstream = app
[listener paced]
bind = @paced
upstream = app
timeout_client = 1500ms
min_read_rate = 1000000
[listener impatient]
bind = @impatient
upstream = impatient
[listener paced_both]
bind = @paced_both
upstream = slower
timeout_client = 800ms
[listener impatient_both]
bind = @impatient_both
upstream = faster
timeout_client = 1200ms
[listener small]
bind = @small
upstream = app
max_body_size = 1000
[listener hello]
bind = @hello
service = hello
[listener down]
bind = @down
upstream = down
[upstream app]
protocol = h2
server = @grpc
[upstream impatient]
protocol = h2
server = @grpc
timeout_server = 1500ms
[upstream faster]
protocol = h2
server = @grpc
timeout_server = 800ms
[upstream slower]
protocol = h2
server = @grpc
timeout_server = 1200ms
[upstream down]
protocol = h2
server = @dead
[service hello]
type = respond
body = hello
"""


@pytest.fixture
def ends(stage):
    with GrpcEnds(stage) as ends:
        yield ends


def echo(message, context):
    return message


def test_unary(ends):
    ends.serve(Echo=unary(echo))
    call = ends.unary("Echo")
    for size in (0, 1, 100, 16384, 70000):
        assert call(b"x" * size, timeout=PATIENCE) == b"x" * size


def test_many_calls_on_one_connection(ends, stage):
    ends.serve(Echo=unary(echo))
    call = ends.unary("Echo")
    for i in range(300):
        assert call(b"%d" % i, timeout=PATIENCE) == b"%d" % i
    assert stage.count("weir_upstream_connections") <= 2
    assert stage.count("weir_listener_connections_active", listener="web") == 1


def test_server_streaming_passes_at_once(ends):
    """Each message is read before the next is sent."""
    read = threading.Semaphore(1)

    def count(message, context):
        for i in range(int(message)):
            assert read.acquire(timeout=PATIENCE)
            yield b"%d" % i

    ends.serve(Count=server_stream(count))
    got = []
    for message in ends.server_stream("Count")(b"100", timeout=PATIENCE):
        got.append(int(message))
        read.release()
    assert got == list(range(100))


def test_client_streaming_passes_at_once(ends):
    """Each message is sent when the one before has been read."""
    seen = threading.Semaphore(1)

    def total(messages, context):
        result = 0
        for message in messages:
            result += int(message)
            seen.release()
        return b"%d" % result

    def numbers():
        for i in range(100):
            assert seen.acquire(timeout=PATIENCE)
            yield b"%d" % i

    ends.serve(Total=client_stream(total))
    assert ends.client_stream("Total")(numbers(), timeout=PATIENCE) == b"4950"


def test_both_streaming_is_full_duplex_and_half_closes(ends):
    def talk(messages, context):
        context.send_initial_metadata([("begun", "yes")])
        for message in messages:
            yield message + b"!"
        yield b"you have ended"

    ends.serve(Talk=both_stream(talk))
    outgoing = queue.Queue()
    call = ends.both_stream("Talk")(iter(outgoing.get, None), timeout=PATIENCE)
    assert dict(call.initial_metadata())["begun"] == "yes"  # before anything was said
    for i in range(50):
        outgoing.put(b"%d" % i)
        assert next(call) == b"%d!" % i
    outgoing.put(None)
    assert list(call) == [b"you have ended"]
    assert call.code() is StatusCode.OK


def test_a_server_may_end_before_its_client(ends):
    def first(messages, context):
        return next(messages)

    ends.serve(First=client_stream(first))
    outgoing = queue.Queue()
    outgoing.put(b"one")
    assert ends.client_stream("First")(iter(outgoing.get, None), timeout=PATIENCE) == b"one"
    outgoing.put(None)


def test_metadata_in_every_place(ends):
    seen = []

    def tell(message, context):
        seen.extend(context.invocation_metadata())
        context.send_initial_metadata([("initial", "a"), ("initial-bin", b"\0\1\xff")])
        context.set_trailing_metadata([("trailing", "b"), ("trailing-bin", bytes(range(256)))])
        return b""

    ends.serve(Tell=unary(tell))
    value = "x" * 3000
    got, call = ends.unary("Tell").with_call(b"", timeout=PATIENCE, metadata=[
        ("twice", "1"), ("twice", "2"), ("long", value), ("some-bin", b"\xff\0\n")])
    pairs = [(one.key, one.value) for one in seen]
    assert ("long", value) in pairs and ("some-bin", b"\xff\0\n") in pairs
    assert ",".join(value for key, value in pairs if key == "twice").replace(" ", "") == "1,2"
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["initial"], initial["initial-bin"]) == ("a", b"\0\1\xff")
    assert (trailing["trailing"], trailing["trailing-bin"]) == ("b", bytes(range(256)))


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
def test_every_status_of_the_server_arrives(ends, code):
    def refuse(message, context):
        context.abort(code, "100% ü\n")

    ends.serve(Refuse=unary(refuse))
    error = failure(lambda: ends.unary("Refuse")(b"", timeout=PATIENCE))
    assert (error.code(), error.details()) == (code, "100% ü\n")


def test_an_unknown_method(ends):
    ends.serve()
    assert failure(lambda: ends.unary("None")(b"", timeout=PATIENCE)).code() is \
        StatusCode.UNIMPLEMENTED


def test_a_status_behind_messages(ends):
    def half(message, context):
        yield b"one"
        yield b"two"
        context.abort(StatusCode.DATA_LOSS, "no more")

    ends.serve(Half=server_stream(half))
    call = ends.server_stream("Half")(b"", timeout=PATIENCE)
    got = []
    error = failure(lambda: [got.append(message) for message in call])
    assert (got, error.code(), error.details()) == ([b"one", b"two"], StatusCode.DATA_LOSS,
                                                    "no more")


@pytest.mark.parametrize("size", [4 * MB, 16 * MB + 3])
def test_big_messages_both_ways(ends, size):
    ends.serve(Echo=unary(echo))
    message = pattern(size)
    assert ends.unary("Echo")(message, timeout=3 * PATIENCE) == message


def test_big_streams_both_ways(ends):
    ends.serve(Echo=both_stream(lambda messages, context: messages))
    pieces = [pattern(MB)] * 12
    got = list(ends.both_stream("Echo")(iter(pieces), timeout=3 * PATIENCE))
    assert got == pieces


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages(ends, kind):
    def encoding(message, context):
        context.set_compression(kind)
        return message

    ends.serve(Echo=unary(encoding))
    call = ends.channel(compression=kind).unary_unary(path_of("Echo"))
    message = b"again and " * 10000
    assert call(message, timeout=PATIENCE) == message


def test_200_calls_at_once(ends, stage):
    """None is answered before all have arrived. weir lets a connection have 100."""
    ends.serve(Wait=answer_together(200))
    assert calls_at_once(ends, "Wait", 200) == [b"%d" % i for i in range(200)]
    assert stage.count("weir_listener_connections_active", listener="web") == 2


def test_more_calls_than_a_connection_may_have(ends, stage):
    ends.serve(Echo=unary(echo))
    call = ends.unary("Echo")
    calls = [call.future(b"%d" % i, timeout=PATIENCE * 3) for i in range(500)]
    assert [one.result() for one in calls] == [b"%d" % i for i in range(500)]
    assert stage.count("weir_listener_connections_active", listener="web") == 1


def test_200_streams_at_once(ends):
    def talk(messages, context):
        for message in messages:
            yield message

    ends.serve(Talk=both_stream(talk))
    call = [ends.both_stream("Talk"), ends.both_stream("Talk")]
    queues = [queue.Queue() for _ in range(200)]
    calls = [call[i % 2](iter(one.get, None), timeout=PATIENCE * 3)
             for i, one in enumerate(queues)]
    for i in range(5):
        for j, one in enumerate(queues):
            one.put(b"%d %d" % (i, j))
        for j, one in enumerate(calls):
            assert next(one) == b"%d %d" % (i, j)
    for one in queues:
        one.put(None)
    assert all(list(one) == [] for one in calls)


# Deadlines and cancellation.

@pytest.mark.parametrize("first", [None, b"one"], ids=["before a message", "behind a message"])
def test_a_deadline_ends_both_sides(ends, first):
    watched = Watched(first)
    ends.serve(Wait=server_stream(watched))
    error = failure(lambda: list(ends.server_stream("Wait")(b"", timeout=1)))
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    assert watched.over.wait(PATIENCE)
    assert watched.left_s < 1.1  # grpcio rounds up


def test_a_cancelled_call_ends_at_the_server(ends, stage):
    counted = stage.ended("client_reset")
    watched = Watched(b"one")
    ends.serve(Wait=server_stream(watched))
    call = ends.server_stream("Wait")(b"", timeout=PATIENCE * 2)
    assert next(call) == b"one"
    call.cancel()
    assert watched.over.wait(PATIENCE)
    counted.grows()


def test_a_client_that_goes_ends_its_calls_at_the_server(ends):
    watched = Watched()
    ends.serve(Wait=server_stream(watched))
    channel = ends.channel()
    call = channel.unary_stream(path_of("Wait"))(b"", timeout=PATIENCE * 2)
    assert watched.begun.wait(PATIENCE)
    channel.close()
    assert watched.over.wait(PATIENCE)
    assert call.code() is StatusCode.CANCELLED


def test_cancelling_one_call_leaves_the_others(ends):
    """Each has begun: grpcio resets also streams whose heads it has not sent (issue 38758 of grpc),
    for which RFC 9113 section 5.1 has the connection ended."""
    ends.serve(Talk=both_stream(lambda messages, context: messages))
    call = ends.both_stream("Talk")
    queues = [queue.Queue() for _ in range(10)]
    calls = [call(iter(one.get, None), timeout=PATIENCE * 2) for one in queues]
    for one, its in zip(calls, queues):
        its.put(b"begun")
        assert next(one) == b"begun"
    for one in calls[::2]:
        one.cancel()
    for one, its in list(zip(calls, queues))[1::2]:
        its.put(b"still here")
        assert next(one) == b"still here"
        its.put(None)
        assert list(one) == []
    for its in queues[::2]:
        its.put(None)


# Failures of weir's own, as its client sees them.

def test_no_server_is_unavailable(ends):
    error = failure(lambda: ends.unary("Echo", "down")(b"", timeout=PATIENCE))
    assert (error.code(), error.details()) == (StatusCode.UNAVAILABLE,
                                               "no server could be connected")


def test_a_server_that_is_not_there_yet(ends):
    call = ends.unary("Echo")
    assert failure(lambda: call(b"", timeout=PATIENCE)).code() is StatusCode.UNAVAILABLE
    ends.serve(Echo=unary(echo))
    assert call(b"back", timeout=PATIENCE) == b"back"


def test_a_server_that_comes_back(ends):
    ends.serve(Echo=unary(echo))
    call = ends.unary("Echo")
    assert call(b"one", timeout=PATIENCE) == b"one"
    ends.stop()
    assert failure(lambda: call(b"two", timeout=PATIENCE)).code() is StatusCode.UNAVAILABLE
    ends.serve(Echo=unary(echo))
    assert call(b"three", timeout=PATIENCE) == b"three"


def test_a_message_over_max_body_size(ends):
    ends.serve(Echo=unary(echo))
    call = ends.unary("Echo", "small")
    assert call(b"x" * 900, timeout=PATIENCE) == b"x" * 900
    error = failure(lambda: call(b"x" * 100000, timeout=PATIENCE))
    assert error.code() is StatusCode.RESOURCE_EXHAUSTED


def test_a_silent_server(ends):
    watched = Watched()
    ends.serve(Wait=server_stream(watched))
    error = failure(lambda: list(ends.server_stream("Wait", "impatient")(b"", timeout=PATIENCE)))
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    assert error.details() == "the server made no progress for timeout_server"
    assert watched.over.wait(PATIENCE)


def test_a_service_answers_as_it_does_to_all(ends):
    """grpcio makes something of it by itself: it is no gRPC."""
    error = failure(lambda: ends.unary("Echo", "hello")(b"", timeout=PATIENCE))
    assert error.code() is StatusCode.UNKNOWN


# Streams that are silent for long; the pauses are those of a peer.

def test_who_only_listens_is_not_late(ends):
    """The server goes on for longer than the client's timeout; the request has no end."""
    def tick(messages, context):
        for i in range(12):
            time.sleep(0.2)
            yield b"%d" % i

    ends.serve(Tick=both_stream(tick))
    outgoing = queue.Queue()
    call = ends.both_stream("Tick", "paced")(iter(outgoing.get, None), timeout=PATIENCE)
    assert list(call) == [b"%d" % i for i in range(12)]
    outgoing.put(None)


def test_who_waits_for_a_slow_server_is_not_late(ends):
    """Silence for twice the client's timeout before each message of the server's."""
    def think(messages, context):
        for message in messages:
            time.sleep(1.6)
            yield message
            time.sleep(1.6)
            yield b"more"

    ends.serve(Think=both_stream(think))
    outgoing = queue.Queue()
    call = ends.both_stream("Think", "paced")(iter(outgoing.get, None), timeout=PATIENCE)
    outgoing.put(b"one")
    assert [next(call), next(call)] == [b"one", b"more"]
    outgoing.put(None)
    assert list(call) == []


@pytest.mark.parametrize("listener", ["paced", "impatient"])
def test_a_call_on_which_nothing_moves_has_the_longer_of_both_times(ends, listener):
    """One timeout is 800 ms for client or server, the other longer by 400 ms."""
    watched = Watched()
    ends.serve(Wait=both_stream(lambda messages, context: watched(next(messages), context)))
    outgoing = queue.Queue()
    outgoing.put(b"one")
    began = time.monotonic()
    call = ends.both_stream("Wait", f"{listener}_both")(iter(outgoing.get, None), timeout=PATIENCE)
    error = failure(lambda: list(call))
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    assert error.details() == "the server made no progress for timeout_server"
    assert time.monotonic() - began >= 1.2 - EARLY_S
    assert watched.over.wait(PATIENCE)
    outgoing.put(None)


def test_a_server_that_only_listens_is_not_late(ends):
    def total(messages, context):
        context.send_initial_metadata([("begun", "yes")])
        return b"%d" % sum(1 for _ in messages)

    def slow():
        for _ in range(17):
            time.sleep(0.1)
            yield b"one"

    ends.serve(Total=client_stream(total))
    assert ends.client_stream("Total", "impatient")(slow(), timeout=PATIENCE) == b"17"


def test_min_read_rate_is_not_asked_of_calls(ends):
    """Slower than it by far, for longer than its grace."""
    def slow():
        for _ in range(17):
            time.sleep(0.1)
            yield b"one"

    ends.serve(Total=client_stream(lambda messages, context: b"%d" % sum(1 for _ in messages)))
    assert ends.client_stream("Total", "paced")(slow(), timeout=PATIENCE) == b"17"


def test_calls_are_counted(ends, stage):
    ends.serve(Echo=unary(echo))
    counted = stage.counter("weir_http_requests_total", listener="web", code="2xx", method="POST")
    call = ends.unary("Echo")
    for _ in range(5):
        call(b"", timeout=PATIENCE)
    counted.grows(5)


# Draining.

def test_a_stream_goes_on_while_weir_drains(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    with GrpcEnds(stage) as ends:
        ends.serve(Talk=both_stream(lambda messages, context: messages))
        outgoing = queue.Queue()
        call = ends.both_stream("Talk")(iter(outgoing.get, None), timeout=PATIENCE * 2)
        outgoing.put(b"before")
        assert next(call) == b"before"
        stage.weir.drain()
        for i in range(20):
            outgoing.put(b"%d" % i)
            assert next(call) == b"%d" % i
        outgoing.put(None)
        assert list(call) == [] and call.code() is StatusCode.OK
        stage.weir.drained()


def test_a_drain_that_runs_out_is_unavailable(new_stage):
    stage = new_stage(INI, drain_timeout="500ms")
    with GrpcEnds(stage) as ends:
        watched = Watched(b"one")
        ends.serve(Wait=server_stream(watched))
        call = ends.server_stream("Wait")(b"", timeout=PATIENCE * 2)
        assert next(call) == b"one"
        stage.weir.signal(signal.SIGTERM)
        assert failure(lambda: next(call)).code() is StatusCode.UNAVAILABLE
        assert watched.over.wait(PATIENCE)
        stage.weir.drained(cut=1)
