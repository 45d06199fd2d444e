"""max_connection_rate: over it, clients wait in the backlog; nobody is refused."""

import time

import pytest

from harness.http1 import get
from harness.wait import readable

RATE = 10
INI = f"""
[listener web]
bind = @web @web_b
service = hi
max_connection_rate = {RATE}/s
[listener free]
bind = @free
service = hi
[service hi]
type = respond
body = hello
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_come_no_faster_than_the_rate(new_stage, workers):
    """A second's worth at once, then one by one; all addresses and workers together."""
    stage = new_stage(INI, workers=workers)
    began = time.monotonic()
    waiting = [stage.connect(name) for name in ("web", "web_b") for _ in range(13)]
    count = len(waiting)
    for client in waiting:
        client.send(get())
    seen = []
    while waiting:
        ready = readable(waiting)
        assert ready, f"{len(waiting)} clients wait for ever"
        for client in ready:
            assert client.read_response().body == b"hello"
            seen.append(time.monotonic() - began)
            waiting.remove(client)
        assert stage.connect("free").ask(get()).body == b"hello"
    # Sockets that had an accept under way may have brought one each beyond the last.
    sockets = 2 * workers
    assert len(seen) == count
    assert seen[-1] >= (count - RATE - sockets) / RATE
    assert stage.count("weir_listener_connections_rejected_total") == 0
    assert stage.count("weir_listener_accept_pauses_total", reason="connection_rate") > 0


def test_a_connection_that_is_open_costs_nothing(new_stage):
    stage = new_stage(INI)
    client = stage.connect()
    for _ in range(5 * RATE):
        assert client.ask(get()).body == b"hello"
    assert stage.count("weir_listener_accept_pauses_total", reason="connection_rate") == 0


def test_while_it_waits_weir_sleeps(new_stage):
    """Turns go by accepts and timers: it does not spin."""
    stage = new_stage(INI)
    clients = [stage.connect() for _ in range(3 * RATE)]
    for client in clients:
        client.send(get())
    before = stage.metrics()
    for client in clients:
        assert client.read_response().body == b"hello"
    after = stage.metrics()
    turns = after.sum("weir_uring_enter_total") - before.sum("weir_uring_enter_total")
    assert turns < 12 * len(clients)
