"""Connections to servers are limited by what a worker has: requests wait for one, and clients are
accepted all the same."""

import threading
import time
from contextlib import ExitStack

import pytest

from harness.h2_client import H2Client
from harness.h2_server import H2Service
from harness.http1 import answer, get
from harness.weir import few_files

INI = """
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin
keepalive = 1
[upstream other]
server = @origin_other
[route other]
path = /other
upstream = other
[upstream bounded]
protocol = h2
server = @origin_bounded max_connections=50
[route bounded]
path = /bounded
upstream = bounded
[route own]
path = /own
respond = 200 own
"""
CLIENTS, STREAMS = 5, 100


def test_requests_wait_for_a_connection_to_a_server(new_stage):
    """More of them than there are slots for connections of all kinds."""
    stage = new_stage(INI, max_connections=10)
    gate = threading.Event()
    begun = threading.Semaphore(0)

    def handler(request):
        begun.release()
        gate.wait(10)
        return answer(200, request.target.encode())

    stage.origin.serve(handler)
    clients = [H2Client(stage.connect()) for _ in range(CLIENTS)]
    for client in clients:
        for stream in range(1, 2 * STREAMS, 2):
            client.get(stream, f"/{stream}")
    for _ in range(100):
        assert begun.acquire(timeout=10)
    for _ in range(10 - CLIENTS):
        late = stage.connect()
        late.send(get("/own"))
        assert late.read_response().body == b"own"
    gate.set()
    for client in clients:
        for stream in range(1, 2 * STREAMS, 2):
            assert client.answer(stream).body == b"/%d" % stream
    assert stage.count("weir_upstream_connect_failures_total", reason="no_memory") > 0


class Gate:
    """Requests begin at the server, and are answered once it is open."""

    def __init__(self, origin):
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        origin.serve(self.handle)

    def handle(self, request):
        self.begun.release()
        self.gate.wait(20)
        return answer(200, request.target.encode())

    def has_begun(self, count):
        for _ in range(count):
            assert self.begun.acquire(timeout=10)

    def open(self):
        self.gate.set()


@pytest.fixture
def ends():
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("name", ["other", "bounded"])
def test_a_server_without_a_connection_is_waited_for_too(new_stage, name, ends):
    """All slots are taken by connections to another one: the end of any of them makes room."""
    stage = new_stage(INI, max_connections=4)
    gate = Gate(stage.origin)
    origin = stage.origins[f"origin_{name}"]
    if name == "other":
        origin.serve(lambda request: answer(200, b"other"))
    else:
        ends.enter_context(
            H2Service(origin, lambda server, request: server.answer(request, 200, b"bounded")))
    clients = [H2Client(stage.connect()) for _ in range(2)]
    for client in clients:
        for stream in range(1, 2 * STREAMS, 2):
            client.get(stream, f"/{stream}")
    gate.has_begun(133)  # a client's each, an idle one's, the spare ones
    late = [stage.connect() for _ in range(2)]
    for client in late:
        client.send(get(f"/{name}"))
    stage.weir.eventually_metric(2, "weir_upstream_queue_length", upstream=name)
    turns = stage.counter("weir_uring_enter_total")
    time.sleep(0.3)  # a worker that tried again and again would turn thousands of times
    assert turns.grown() < 200
    gate.open()
    for client in late:
        assert client.read_response().body == name.encode()
    for client in clients:
        for stream in range(1, 2 * STREAMS, 2):
            assert client.answer(stream).body == b"/%d" % stream


def test_one_client_leaves_descriptors_to_the_others(new_stage):
    """Its requests are more than there are descriptors."""
    stage = new_stage(INI, preexec=few_files(100))
    gate = Gate(stage.origin)
    client = H2Client(stage.connect())
    for stream in range(1, 2 * STREAMS, 2):
        client.get(stream, f"/{stream}")
    gate.has_begun(20)
    stage.weir.eventually_metric(lambda waiting: waiting > 0, "weir_upstream_queue_length")
    for _ in range(10):
        other = stage.connect()
        other.send(get("/own"))
        assert other.read_response().body == b"own"
    gate.open()
    for stream in range(1, 2 * STREAMS, 2):
        assert client.answer(stream).body == b"/%d" % stream
    assert stage.count("weir_listener_accept_pauses_total") == 0
