"""Connections to servers are limited by what a worker has: requests wait for one, and clients are
accepted all the same."""

import threading

from harness.h2_client import H2Client
from harness.http1 import answer, get

INI = """
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin
keepalive = 1
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
