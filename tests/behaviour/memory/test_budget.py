"""The most that weir may take is a sum that it prints, and it can work with all of that in use."""

import re

from harness.http1 import answer, get, post
from harness.memory import MIB, WITH_ASAN, budget, pools, resident
from harness.stage import HELLO, WEB
from harness.weir import ROOT

INI = WEB + HELLO
CLIENTS = 10


def test_the_sum_can_be_checked_by_hand(new_stage):
    stage = new_stage(INI, workers=2, max_connections=102)
    (of_worker, worker_sum), (of_connection, connection_sum) = budget(stage.weir.log)
    assert sum(count * size for count, size in of_worker.values()) == worker_sum
    assert sum(count * size for count, size in of_connection.values()) == connection_sum
    line = re.search(r"memory at most: 2 workers x (\d+) \+ 102 connections x (\d+) = (\d+) bytes",
                     stage.weir.log)
    assert (int(line[1]), int(line[2])) == (worker_sum, connection_sum)
    total = int(line[3])
    assert total == 2 * worker_sum + 102 * connection_sum
    # The same, by pool, is in the metrics: no pool is missing in the sum.
    capacity = pools(stage.metrics(), "weir_memory_capacity_bytes")
    assert sum(capacity.values()) == total
    assert {name for name, size in capacity.items() if size} == set(of_worker) | set(of_connection)


ECHO = """
[listener raw]
bind = @raw
mode = tcp
service = back
[service back]
type = echo
"""
ONE = """
[listener web]
bind = @web
alpn = http/1.1
[route hello]
respond = 200 hello
"""


def test_what_nobody_speaks_has_no_part_in_the_sum(new_stage):
    """Without HTTP/2, and then without HTTP: what is left of it is the admin's."""
    capacity = {}
    for name, ini in (("both", ONE.replace("alpn = http/1.1\n", "")), ("h1", ONE), ("tcp", ECHO)):
        stage = new_stage(ini, workers=1, max_connections=1000)
        capacity[name] = pools(stage.metrics(), "weir_memory_capacity_bytes")
        assert stage.metrics().need("weir_http_requests_in_flight") == 1
    assert capacity["both"]["nghttp2"] == 1 << 30
    for of_h2 in ("nghttp2", "h2_session", "h2_stream", "h2_head", "h2_queue", "h2_frame"):
        assert capacity["both"][of_h2] > 0, of_h2
        assert capacity["h1"][of_h2] == capacity["tcp"][of_h2] == 0, of_h2
    for of_http in ("session", "head", "arena_small", "arena_large", "exchange"):
        assert 0 < capacity["tcp"][of_http] < capacity["h1"][of_http] / 4, of_http
    assert sum(capacity["tcp"].values()) < 192 * MIB


def test_the_manual_has_every_pool(new_stage):
    with open(f"{ROOT}/etc/METRICS.md") as file:
        words = set(re.findall(r"`(\w+)`", file.read().split("\n- **pool**: ")[1].split("\n\n")[0]))
    names = set(pools(new_stage(ECHO).metrics()))
    assert words == names | {"memory_bytes", "heap"}, "heap: where jemalloc is"


def test_the_admin_of_a_weir_without_http_has_all_its_connections(new_stage):
    stage = new_stage(ECHO, workers=1, max_connections=10)
    probes = [stage.weir.connect_admin() for _ in range(63)]
    for probe in probes:
        assert probe.ask(get("/healthz")).body == b"ok\n"
    used = stage.weir.metrics()
    assert used.need("weir_listener_connections_active", listener="admin") == 64
    for probe in probes:
        assert probe.ask(get("/metrics")).status == 200
        probe.close()


def test_room_for_many_costs_nothing_until_they_come(new_stage):
    few = new_stage(INI, max_connections=10).weir
    many = new_stage(INI, max_connections=15000).weir
    assert sum(pools(many.metrics()).values()) < sum(pools(few.metrics()).values()) + MIB
    if not WITH_ASAN:
        assert resident(many) < resident(few) + MIB


def all_within_bounds(stage):
    metrics = stage.metrics()
    used = pools(metrics, "weir_memory_used_bytes")
    held = pools(metrics)
    for name, bound in pools(metrics, "weir_memory_capacity_bytes").items():
        assert used[name] <= held[name] <= bound, name
    return used


def test_a_small_weir_works_with_all_it_may_hold_in_use(new_stage):
    """As many clients as it takes, each with a head at its limit that stops in the middle, then a
    body that the origin does not read yet, then an answer that nobody reads yet."""
    stage = new_stage(INI, max_connections=CLIENTS, workers=1)
    clients = [stage.connect(recv_buffer=4096) for _ in range(CLIENTS)]
    late = stage.connect()
    late.send(get("/hello"))
    body = bytes(range(256)) * 1024
    head = post("/", b"", "Fill: " + "f" * 15000, *[f"X-{n}: {n}" for n in range(80)])
    head = head.replace(b"Content-Length: 0", b"Content-Length: %d" % len(body))
    for client in clients:
        client.send(head[:-2])
    size = budget(stage.weir.log)[1][0]["head"][1]
    stage.weir.eventually_metric(CLIENTS * size, "weir_memory_used_bytes", pool="head")
    all_within_bounds(stage)
    for client in clients:
        client.send(head[-2:])
    upstreams = [stage.origin.accept() for _ in clients]
    for upstream in upstreams:
        assert len(upstream.read_request_head()["Fill"]) == 15000
    used = all_within_bounds(stage)
    assert used["arena_large"] > 0 and used["exchange"] > 0
    for client in clients:
        client.send(body)
    all_within_bounds(stage)
    for upstream in upstreams:
        assert upstream.read_exactly(len(body)) == body
    for upstream in upstreams:
        upstream.send(answer(200, body[:200000], "Fill: " + "f" * 15000))
    all_within_bounds(stage)
    assert late.has_nothing(), "it waits in the backlog"
    for client in clients:
        got = client.read_response()
        assert (got.status, got.body) == (200, body[:200000])
        client.close()
    assert late.read_response().body == b"hello"
    all_within_bounds(stage)
