"""What weir takes is bounded, counted, and given back: after bursts of connections its resident set
is what it was before, and at all times the sum of its pools is what the kernel says.

One weir for all bursts. The first of them runs each load once in small; what weir takes afterwards,
at rest, is what it must come back to within 5 % after each large one.
"""

import os
import subprocess
import time

import pytest

from harness.http1 import answer, answer_chunked, get, post
from harness.memory import KIB, MIB, WITH_ASAN, budget, pools, resident
from harness.wait import eventually

INI = """
[listener web]
bind = @web
upstream = app
send_buffer = 32k
[listener inner]
bind = @inner
service = hello
[route hello]
listener = web
path = /hello
respond = 200 hello
[route inner]
listener = web
path = /inner
upstream = inner
[upstream app]
server = @origin max_connections=5000
[upstream inner]
keepalive_timeout = 1s
server = @inner max_connections=1000
[service hello]
type = respond
body = hello
"""
GLOBAL = {"max_connections": 12000}

BACK = 1.05
PAGE = os.sysconf("SC_PAGE_SIZE")
# Start-up heap that was allocated and is never touched on one side; stacks and the program's own
# variables on the other.
SLACK = MIB
# What trimming leaves at the low end of a pool, and what the scrapes that look at it use.
RESERVE = {"buffer_small": MIB + 256 * KIB, "buffer_bulk": MIB}
RESERVE_OTHERS = 320 * KIB
BODY = b"b" * (MIB // 2)

# The loads are small there, and resident sets are not compared.
SCALE = 16 if WITH_ASAN else 1


@pytest.fixture(scope="module")
def churn(tmp_path_factory):
    program = tmp_path_factory.mktemp("churn") / "churn"
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "churn.c")
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-pthread",
                    "-o", program, source], check=True)
    return str(program)


def adds_up(weir):
    """No pool is over its bound, and sum and truth agree in both directions; returns the truth.

    Objects are counted whole. Of a large one that holds little only the first page may be there:
    the truth is between the sum of whole objects and the sum of their first pages.
    """
    metrics = weir.metrics()
    held, used = pools(metrics), pools(metrics, "weir_memory_used_bytes")
    bounds = pools(metrics, "weir_memory_capacity_bytes")
    for name, bound in bounds.items():
        assert used[name] <= held[name] <= bound, f"{name}: {used[name]} {held[name]} {bound}"
    truth = resident(weir)
    if not WITH_ASAN:
        (of_worker, _), (of_connection, _) = budget(weir.log)
        sizes = {name: size for name, (_, size) in {**of_worker, **of_connection}.items()}
        most = sum(held.values())
        least = sum(value * min(1, PAGE / sizes.get(name, 1)) if name != "ring" else value
                    for name, value in held.items())
        assert truth <= most * 1.02 + SLACK, f"{held} are {most}, RSS is {truth}"
        assert truth >= least * 0.98 - SLACK, f"{held} are at least {least}, RSS is {truth}"
        said = metrics.need("weir_memory_resident_bytes")
        assert abs(said - truth) <= 0.02 * truth, f"weir says {said}, smaps {truth}"
    return truth


def excess(weir):
    """What there is left to give back, by pool: held, not in use, and over the reserve."""
    metrics = weir.metrics()
    held, used = pools(metrics), pools(metrics, "weir_memory_used_bytes")
    over = {name: held[name] - used[name] - RESERVE.get(name, RESERVE_OTHERS) for name in used}
    return {name: bytes for name, bytes in over.items() if bytes > 0}


def heap(weir):
    return weir.metrics().need("weir_heap_allocated_bytes_total")


# The loads. Each leaves its connections to the stage, and says what weir took at most.

def idle(stage, count):
    clients = [stage.connect() for _ in range(count)]
    for client in clients:
        client.send(get("/hello"))
    for client in clients:
        assert client.read_response().body == b"hello"
    stage.weir.eventually_metric(lambda now: now >= count, "weir_listener_connections_active",
                                 listener="web")
    peak = adds_up(stage.weir)
    for client in clients[::97]:
        assert client.ask(get("/hello")).body == b"hello"
    return peak


def active(stage, count):
    clients = [stage.connect() for _ in range(count)]
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
    upstreams = [stage.origin.accept() for _ in clients]
    stage.weir.eventually_metric(lambda now: now >= count, "weir_http_requests_in_flight")
    peak = adds_up(stage.weir)
    for upstream in upstreams:
        upstream.send(answer(200, upstream.read_request().target.encode()))
    for number, client in enumerate(clients):
        assert client.read_response().body == b"/%d" % number
    return peak


def slow_readers(stage, count):
    """Each is sent half a megabyte and takes nothing, until queues are full; then it takes it."""
    stage.origin.serve(lambda request: answer_chunked(BODY))
    clients = [stage.connect(recv_buffer=4096) for _ in range(count)]
    for client in clients:
        client.send(get("/big"))
    for client in clients:
        assert client.read_response_head().status == 200

    def queued():
        used = pools(stage.metrics(), "weir_memory_used_bytes")
        return used["buffer_small"] + used["buffer_bulk"]

    eventually(lambda: queued() >= count * 48 * KIB,
               lambda: f"the queues are full: {queued()} bytes for {count} clients")
    peak = adds_up(stage.weir)
    for client in clients:
        client.widen()
        body = b""
        while part := client.read_chunk():
            body += part
        assert body == BODY
        assert client.read_trailers() == []
    return peak


def slow_writers(stage, count):
    """Heads that stop in the middle, all at once, and go on byte by byte; then bodies the same."""
    stage.origin.serve(lambda request: answer(200, request.body))
    clients = [stage.connect() for _ in range(count)]
    head = post("/slow", b"", "Fill: " + "f" * 3000).replace(b"Content-Length: 0",
                                                             b"Content-Length: 30")
    for client in clients:
        client.send(head[:-20])
    stage.weir.eventually_metric(lambda now: now >= count * 4096, "weir_memory_used_bytes",
                                 pool="head")
    peak = adds_up(stage.weir)
    rest = head[-20:] + b"0123456789" * 3
    for at in range(len(rest)):
        for client in clients:
            client.send(rest[at:at + 1])
    for client in clients:
        assert client.read_response().body == b"0123456789" * 3
    return peak


def run_churn(stage, program, count):
    done = subprocess.run([program, str(stage.things["web"].number), str(count), "16", "/hello",
                           "/hello", "/hello", "/inner"], capture_output=True, text=True,
                          timeout=80)
    assert done.returncode == 0, done.stderr


def settled(stage):
    """Nothing is left to give back. Looked at as rarely as a monitor would: each scrape takes a
    buffer, and after a burst those that the kernel was lent for it come first."""
    stage.clear()
    over = {}
    for _ in range(60):
        over = excess(stage.weir)
        if not over:
            return
        time.sleep(0.5)
    raise AssertionError(f"weir has not given back what it does not use: {over}")


@pytest.fixture
def rest(stage, churn):
    """What weir takes after all of that in small: once for each weir."""
    if not hasattr(stage, "rest"):
        idle(stage, 1100)
        stage.clear()
        active(stage, 1100)
        stage.clear()
        slow_readers(stage, 80 // SCALE)
        stage.clear()
        slow_writers(stage, 100)
        stage.clear()
        run_churn(stage, churn, 1600)
        settled(stage)
        stage.rest = adds_up(stage.weir)
        stage.heap = heap(stage.weir)
    return stage.rest


def came_back(stage, rest, peak=None):
    """Memory is there again, and all the while nothing was taken from the heap."""
    assert heap(stage.weir) == stage.heap
    if not WITH_ASAN and peak is not None:
        assert peak > rest * BACK + MIB, "the load was too small to see anything"
    settled(stage)
    adds_up(stage.weir)
    if not WITH_ASAN:
        eventually(lambda: resident(stage.weir) <= rest * BACK,
                   lambda: f"RSS is {resident(stage.weir) / rest:.3f} of {rest}", within=30)


def test_after_10000_idle_connections_memory_is_back(stage, rest):
    came_back(stage, rest, idle(stage, 10000 // SCALE))


def test_after_4096_requests_in_flight_memory_is_back(stage, rest):
    came_back(stage, rest, active(stage, 4096 // SCALE))


def test_after_200_slow_readers_memory_is_back(stage, rest):
    came_back(stage, rest, slow_readers(stage, 200 // SCALE))


def test_after_500_slow_writers_memory_is_back(stage, rest):
    came_back(stage, rest, slow_writers(stage, 500 // SCALE))


def test_after_a_churn_of_200000_connections_memory_is_back(stage, rest, churn):
    run_churn(stage, churn, 200000 // SCALE)
    came_back(stage, rest)
