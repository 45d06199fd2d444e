"""While every server is at its max_connections, requests wait: in which order, how long, how many,
and what ends the waiting."""

import re
import time

import pytest

from harness.http1 import answer, chunk, get, post
from harness.wait import eventually

# weir counts in whole milliseconds of a clock that it reads once a turn.
EARLY_S = 0.02

INI = """
[defaults]
timeout_queue = 60s
[listener one]
bind = @one
upstream = one
[upstream one]
server = @origin max_connections=1

[listener secure]
bind = @secure
upstream = one
tls = site
[tls site]
certificate = weir.test.pem

[listener two]
bind = @two
upstream = two
[upstream two]
balance = first
server = @origin max_connections=1
server = @origin_b max_connections=1

[listener hashed]
bind = @hashed
upstream = hashed
[upstream hashed]
balance = source_ip
server = @origin max_connections=1
server = @origin_b max_connections=1

[listener halfdead]
bind = @halfdead
upstream = halfdead
[upstream halfdead]
balance = first
server = @dead
server = @origin max_connections=1

[listener late]
bind = @late
upstream = late
[upstream late]
timeout_queue = 300ms
server = @origin max_connections=1

[listener newest]
bind = @newest
upstream = newest
[upstream newest]
timeout_queue = 5s
server = @origin max_connections=1

[listener small]
bind = @small
upstream = small
[upstream small]
queue = 2
server = @origin max_connections=1

[listener hole]
bind = @deaf
upstream = hole
[upstream hole]
timeout_connect = 1500ms
server = @hole max_connections=1

[listener four]
bind = @four
upstream = four
[upstream four]
server = @origin max_connections=4
"""


def served(origin, target="/held"):
    """The connection on which weir now asks for `target`."""
    upstream = origin.next()
    assert upstream.read_request().target == target
    return upstream


def hold(stage, name, origin=None):
    """A request that has a server's only place."""
    client = stage.connect(name)
    client.send(get("/held"))
    return client, served(origin or stage.origin)


def finish(client, upstream, *lines):
    upstream.send(answer(200, b"done", *lines))
    assert client.read_response().body == b"done"


def waiting(stage, name, count):
    stage.weir.eventually_metric(count, "weir_upstream_queue_length", upstream=name)


def queue_up(stage, name, *targets):
    """One client for each target, each surely in the queue before the next comes."""
    clients = []
    for target in targets:
        before = stage.count("weir_upstream_queue_length", upstream=name)
        clients.append(stage.connect(name))
        clients[-1].send(get(target))
        waiting(stage, name, before + 1)
    return clients


def serve_in_order(stage, pairs):
    """The origin is asked for each target in turn, and each client has its answer."""
    for client, target in pairs:
        finish(client, served(stage.origin, target))


# The order.

def test_requests_are_served_in_the_order_of_their_arrival(stage, origin):
    held = hold(stage, "one")
    targets = [f"/{number}" for number in range(6)]
    clients = queue_up(stage, "one", *targets)
    assert len(origin.open_connections()) == 1
    finish(*held)
    serve_in_order(stage, zip(clients, targets))
    assert len(origin.connections) == 1
    waiting(stage, "one", 0)


def test_the_newest_come_first_once_the_oldest_has_waited_for_half_of_the_timeout(stage):
    held = hold(stage, "newest")
    old = queue_up(stage, "newest", "/old")[0]
    half_is_over = time.monotonic() + 2.5 + 0.05
    eventually(lambda: time.monotonic() > half_is_over, "half of timeout_queue passes")
    young, youngest = queue_up(stage, "newest", "/young", "/youngest")
    finish(*held)
    serve_in_order(stage, [(youngest, "/youngest"), (young, "/young"), (old, "/old")])
    # Without anybody who has waited for long, the order is that of arrival again.
    held = hold(stage, "newest")
    first, second = queue_up(stage, "newest", "/1", "/2")
    finish(*held)
    serve_in_order(stage, [(first, "/1"), (second, "/2")])


def test_a_pipelined_request_waits_behind_those_that_came_before_it(stage):
    held = hold(stage, "one")
    first = stage.connect("one")
    first.send(get("/a1") + get("/a2"))
    waiting(stage, "one", 1)
    second = queue_up(stage, "one", "/b")[0]
    finish(*held)
    upstream = served(stage.origin, "/a1")
    upstream.send(answer(200, b"a1"))
    assert first.read_response().body == b"a1"
    serve_in_order(stage, [(second, "/b"), (first, "/a2")])


# The limits.

def test_a_full_queue_refuses_the_next(stage):
    held = hold(stage, "small")
    clients = queue_up(stage, "small", "/1", "/2")
    full = stage.ended("queue_full")
    refused = stage.connect("small")
    for _ in range(2):
        got = refused.ask(get("/3"))
        assert (got.status, got.reason) == (503, "queue_full")
        assert int(got["Retry-After"]) > 0
        assert "connection_limit_reached" in got["Proxy-Status"]
    assert full.grown() == 2
    waiting(stage, "small", 2)
    finish(*held)
    upstream = served(stage.origin, "/1")
    waiting(stage, "small", 1)
    refused.send(get("/4"))  # there is a place again
    waiting(stage, "small", 2)
    finish(clients[0], upstream)
    serve_in_order(stage, [(clients[1], "/2"), (refused, "/4")])


def test_a_request_that_waits_too_long_is_refused(stage, origin):
    held = hold(stage, "late")
    late = stage.ended("queue_timeout")
    client = stage.connect("late")
    began = time.monotonic()
    client.send(get("/late"))
    got = client.read_response()
    assert time.monotonic() - began >= 0.3 - EARLY_S
    assert (got.status, got.reason) == (503, "queue_timeout")
    assert int(got["Retry-After"]) > 0
    assert late.grown() == 1
    waiting(stage, "late", 0)
    finish(*held)
    client.send(get("/again"))  # the same connection is as good as before
    finish(client, served(origin, "/again"))
    assert len(origin.connections) == 1


def test_each_is_late_by_itself(stage):
    held = hold(stage, "late")
    clients = [stage.connect("late") for _ in range(5)]
    for client in clients:
        client.send(get("/late"))
    for client in clients:
        assert client.read_response().reason == "queue_timeout"
    finish(*held)


def test_what_comes_of_a_body_is_dropped_with_its_late_request(stage):
    held = hold(stage, "late")
    client = stage.connect("late")
    client.send(post("/late", b"x" * 200000)[:1000])
    assert client.read_response().reason == "queue_timeout"
    client.expect_end()
    finish(*held)


# Leaving.

WHOLE = get("/gone")
LAST = get("/gone", "Connection: close")
BODY = post("/gone", b"x" * 100)[:-50]
CHUNKED = get("/gone", "Transfer-Encoding: chunked", method="POST") + chunk(b"abc")


@pytest.mark.parametrize("request_bytes, how, reason", [
    (WHOLE, "reset", "client_reset"),
    (LAST, "reset", "client_reset"),
    (BODY, "reset", "client_reset"),
    (CHUNKED, "reset", "client_reset"),
    (BODY, "half_close", "client_closed"),
    (CHUNKED, "close", "client_closed"),
], ids=["whole-reset", "last-reset", "body-reset", "chunked-reset", "body-fin", "chunked-fin"])
def test_who_leaves_while_waiting_is_not_served(stage, request_bytes, how, reason):
    held = hold(stage, "one")
    gone = stage.ended(reason)
    client = stage.connect("one")
    client.send(request_bytes)
    waiting(stage, "one", 1)
    behind = queue_up(stage, "one", "/behind")[0]
    getattr(client, how)()
    waiting(stage, "one", 1)
    gone.grows()
    finish(*held)
    serve_in_order(stage, [(behind, "/behind")])
    assert b"/gone" not in b"".join(bytes(one.received) for one in stage.origin.connections)


@pytest.mark.parametrize("how, reason, secure", [
    ("reset", "client_reset", False), ("close", "client_closed", False),
    ("half_close", "client_closed", True)])
def test_who_leaves_a_long_body_while_waiting_gives_its_place(stage, how, reason, secure):
    """None of the body is read: what the client has sent of it stands before its end."""
    held = hold(stage, "one")
    gone = stage.ended(reason)
    client = stage.connect_tls() if secure else stage.connect("one")
    client.send(post("/gone", b"x" * 100_000)[:-50_000])
    waiting(stage, "one", 1)
    getattr(client, how)()
    waiting(stage, "one", 0)
    gone.grows()
    finish(*held)
    assert b"/gone" not in b"".join(bytes(one.received) for one in stage.origin.connections)


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
def test_who_has_sent_a_long_body_and_closes_its_direction_is_served(stage, origin, secure):
    """Over TLS a part of a record may have been read, which shows in no socket."""
    held = hold(stage, "one")
    client = stage.connect_tls() if secure else stage.connect("one")
    body = b"x" * 40_000
    client.send(post("/half", body))
    client.half_close()
    waiting(stage, "one", 1)
    time.sleep(1.5)  # the pause of a client, in which weir has looked for its end
    finish(*held)
    upstream = origin.next()
    assert upstream.read_request().body == body
    finish(client, upstream)
    client.expect_close()


def test_a_client_that_only_closes_its_direction_is_served(stage, origin):
    held = hold(stage, "one")
    client = queue_up(stage, "one", "/half")[0]
    client.half_close()
    finish(*held)
    finish(client, served(origin, "/half"))
    client.expect_close()


# What gives a place.

def test_a_connection_that_ends_with_its_answer_gives_its_place(stage, origin):
    held = hold(stage, "one")
    clients = queue_up(stage, "one", "/1", "/2")
    finish(*held, "Connection: close")
    upstream = served(origin, "/1")
    assert upstream is not held[1]
    finish(clients[0], upstream, "Connection: close")
    finish(clients[1], served(origin, "/2"))
    assert len(origin.connections) == 3


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_server_that_leaves_gives_its_place(stage, origin, how):
    client, upstream = hold(stage, "one")
    next_client = queue_up(stage, "one", "/1")[0]
    getattr(upstream, how)()
    assert client.read_response().status == 502
    finish(next_client, served(origin, "/1"))


def test_a_client_that_leaves_gives_its_place(stage, origin):
    client, upstream = hold(stage, "one")
    next_client = queue_up(stage, "one", "/1")[0]
    client.reset()
    upstream.expect_end()
    finish(next_client, served(origin, "/1"))


def test_a_connect_that_fails_gives_its_place(stage):
    failures = stage.counter("weir_upstream_connect_failures_total", reason="connect_timeout")
    first = stage.connect("deaf")
    first.send(get())
    second = stage.connect("deaf")
    second.send(get())
    waiting(stage, "hole", 1)
    assert first.read_response().reason == "connect_timeout"
    waiting(stage, "hole", 0)
    assert second.read_response().reason == "connect_timeout"
    failures.grows(2)


def test_the_server_that_has_room_serves_the_next(stage):
    origin, other = stage.origin, stage.origins["origin_b"]
    held = hold(stage, "two", origin)
    held_other = hold(stage, "two", other)
    clients = queue_up(stage, "two", "/1", "/2", "/3")
    finish(*held_other)
    finish(clients[0], served(other, "/1"))
    upstream = served(other, "/2")
    finish(*held)
    finish(clients[2], served(origin, "/3"))
    finish(clients[1], upstream)


def test_a_hashed_client_takes_whichever_server_has_room(stage):
    """All clients here hash to one server; the other one is taken as that is busy."""
    client = stage.connect("hashed")
    client.send(get("/held"))
    both = stage.origins.values()
    eventually(lambda: any(one.open_connections() for one in both), "a connect")
    own, other = sorted(both, key=lambda one: not one.connections)
    held_own = client, served(own)
    held_other = hold(stage, "hashed", other)
    first, second = queue_up(stage, "hashed", "/1", "/2")
    finish(*held_other)
    finish(first, served(other, "/1"))
    upstream = served(other, "/2")
    finish(*held_own)
    finish(second, upstream)


def test_a_dead_server_beside_a_busy_one_does_not_end_the_waiting(stage):
    held = hold(stage, "halfdead")
    clients = queue_up(stage, "halfdead", "/1", "/2")
    finish(*held)
    serve_in_order(stage, zip(clients, ["/1", "/2"]))


def test_the_limit_is_never_exceeded_and_all_are_served(stage, origin):
    origin.serve(lambda request: answer(200, request.target.encode()))
    clients = [stage.connect("four") for _ in range(200)]
    for number, client in enumerate(clients):
        client.send(get(f"/{number}") + get(f"/{number}/more"))
    for number, client in enumerate(clients):
        assert client.read_response().body == f"/{number}".encode()
        assert client.read_response().body == f"/{number}/more".encode()
    assert len(origin.connections) == 4
    waiting(stage, "four", 0)


# Bodies.

@pytest.mark.parametrize("size", [10, 16384, 16385, 300000])
def test_a_body_waits_with_its_request(stage, origin, size):
    held = hold(stage, "one")
    body = bytes(number % 251 for number in range(size))
    client = stage.connect("one")
    request = post("/body", body)
    head = len(request) - size
    client.send(request[:head + size // 2])
    waiting(stage, "one", 1)
    client.send(request[head + size // 2:])
    finish(*held)
    upstream = origin.next()
    assert upstream.read_request().body == body
    finish(client, upstream)
    finish(*hold(stage, "one"))


def test_a_chunked_body_waits_with_its_request(stage, origin):
    held = hold(stage, "one")
    client = stage.connect("one")
    client.send(get("/body", "Transfer-Encoding: chunked", method="POST"))
    waiting(stage, "one", 1)
    parts = [bytes([65 + number]) * 9000 for number in range(6)]
    for part in parts:
        client.send(chunk(part))
    finish(*held)
    client.send(b"0\r\nTrailer-Field: x\r\n\r\n")
    upstream = origin.next()
    request = upstream.read_request()
    assert request.body == b"".join(parts) and request.trailers == [("trailer-field", "x")]
    finish(client, upstream)


def test_a_long_body_is_not_read_before_its_turn(stage, origin):
    held = hold(stage, "one")
    client = stage.connect("one")
    client.send(post("/long", b"x" * 9000000)[:200])
    waiting(stage, "one", 1)
    before = stage.count("weir_client_bytes_received_total")
    assert client.send_until_stuck(b"x" * 65536) > 1000000
    # What was under way, and the scrape.
    assert stage.count("weir_client_bytes_received_total") - before < 65536
    client.reset()
    finish(*held)


def test_expect_continue_waits_with_its_request(stage, origin):
    held = hold(stage, "one")
    client = stage.connect("one")
    client.send(post("/asks", b"hello", "Expect: 100-continue")[:-5])
    waiting(stage, "one", 1)
    finish(*held)
    upstream = origin.asked(whole=False)
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.read_response_head().status == 100
    client.send(b"hello")
    upstream.expect(b"hello")
    finish(client, upstream)


# The process.

CUT = """
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin max_connections=1
timeout_queue = 60s
"""


def test_a_drain_still_serves_who_waits(new_stage):
    stage = new_stage(CUT, drain_timeout="60s")
    held = hold(stage, "web")
    clients = []
    for number in range(3):
        clients.append(stage.connect())
        clients[-1].send(get(f"/{number}"))
        waiting(stage, "app", number + 1)
    stage.weir.drain()
    finish(*held)
    serve_in_order(stage, [(client, f"/{number}") for number, client in enumerate(clients)])
    stage.weir.drained()


def test_drain_timeout_cuts_who_waits(new_stage):
    stage = new_stage(CUT, drain_timeout="200ms")
    client, upstream = hold(stage, "web")
    queued = stage.connect()
    queued.send(get("/1"))
    waiting(stage, "app", 1)
    stage.weir.drain()
    for one in (client, queued):
        got = one.read_response()
        assert (got.status, got.reason) == (503, "drain_cut")
    stage.weir.drained(cut=2)


def test_workers_share_the_queue(new_stage):
    """Two places and two of the queue for both of them: one of each has each worker."""
    stage = new_stage(CUT.replace("max_connections=1", "max_connections=2\nqueue = 2"), workers=2)
    # Thirty connections all on one side of the kernel's hash: one in 2^29.
    clients = [stage.connect() for _ in range(30)]
    for client in clients:
        client.send(get("/"))
    stage.weir.eventually_metric(26, "weir_http_exchanges_ended_total", reason="queue_full")
    waiting(stage, "app", 2)
    eventually(lambda: len(stage.origin.open_connections()) == 2, "two connections")
    answered = 0
    for _ in range(4):
        upstream = stage.origin.asked()
        upstream.send(answer(200, b"done"))
    for client in clients:
        got = client.read_response()
        answered += got.status == 200
        assert got.status == 200 or got.reason == "queue_full"
    assert answered == 4


def test_a_limit_holds_for_all_workers_together(new_stage):
    """Three places for two workers: two for one of them, one for the other."""
    stage = new_stage(CUT.replace("max_connections=1", "max_connections=3"), workers=2)
    clients = [stage.connect() for _ in range(30)]  # as above
    for client in clients:
        client.send(get("/"))
    waiting(stage, "app", 27)
    for _ in range(30):
        upstream = stage.origin.asked()
        assert len(stage.origin.open_connections()) <= 3
        upstream.send(answer(200, b"done"))
    for client in clients:
        assert client.read_response().body == b"done"
    assert "is less than there are workers" not in stage.weir.log


def test_a_limit_below_the_workers_is_warned_of(new_stage):
    stage = new_stage("""
    [listener web]
    bind = @web
    upstream = app
    max_connections = 1
    [upstream app]
    server = @origin max_connections=1
    server = @origin_b max_connections=2
    """, workers=2, max_connections=1)
    warned = re.findall(r"(\S+ \S+): max_connections = 1 is less than there are workers: "
                        r"each of the 2 may have one", stage.weir.log)
    assert warned == ["all listeners", "listener web", f"server {stage.origin.address}"], warned


# The metrics.

def test_length_and_seconds_are_what_happened(stage):
    seconds = "weir_upstream_queue_seconds"
    before = stage.metrics()
    finish(*hold(stage, "one"))  # who need not wait is not observed
    held = hold(stage, "one")
    began = time.monotonic()
    clients = queue_up(stage, "one", "/1", "/2")
    metrics = stage.metrics()
    assert metrics.need("weir_upstream_queue_length", upstream="one") == 2
    assert metrics.need("weir_upstream_queue_length", upstream="two") == 0
    assert metrics.need("weir_upstream_queue_length") == 2
    assert metrics.need(f"{seconds}_count") == before.need(f"{seconds}_count")
    time.sleep(0.1)  # the server is slow
    finish(*held)
    serve_in_order(stage, zip(clients, ["/1", "/2"]))
    took = time.monotonic() - began
    after = stage.metrics()
    assert after.need(f"{seconds}_count") == before.need(f"{seconds}_count") + 2
    waited = after.need(f"{seconds}_sum") - before.need(f"{seconds}_sum")
    assert 2 * (0.1 - EARLY_S) <= waited <= 2 * took
