"""max_connections of a listener and of all: clients wait in the backlog; the overrun is told so."""

import signal

import pytest

from harness.http1 import get
from harness.wait import readable

INI = """
[listener web]
bind = @web @web_b @unix_web
service = hi
max_connections = 3
[listener side]
bind = @side
service = hi
[service hi]
type = respond
body = hello
"""


def served(client):
    assert client.ask(get()).body == b"hello"
    return client


def rejected(stage, reason):
    return stage.count("weir_listener_connections_rejected_total", reason=reason)


def test_a_listener_at_its_max_connections_lets_clients_wait(stage):
    """Its addresses share the number; another listener has room."""
    first = [served(stage.connect(name)) for name in ("web", "web_b", "unix_web")]
    late = [stage.connect(name) for name in ("web", "web_b", "unix_web")]
    for client in late:
        client.send(get())
    served(stage.connect("side"))
    for client in first:
        served(client)
    assert stage.count("weir_listener_connections_active", listener="web") == 3
    assert all(client.has_nothing() for client in late)
    while late:
        first.pop().close()
        ready = readable(late)
        assert len(ready) == 1, "one place was free"
        assert ready[0].read_response().body == b"hello"
        assert stage.count("weir_listener_connections_active", listener="web") == 3
        first.insert(0, ready[0])
        late.remove(ready[0])
    assert rejected(stage, "max_connections") == 0
    assert stage.count("weir_listener_accept_pauses_total", reason="max_connections") > 0
    stage.weir.says("3 connections in this worker is reached")


@pytest.mark.parametrize("workers", [1, 2])
def test_many_more_than_fit_are_served_after_each_other(new_stage, workers):
    """On every address clients wait: the place that one leaves is taken by one, nobody is told."""
    stage = new_stage(INI, workers=workers)
    clients = [stage.connect(name) for name in ("web", "web_b", "unix_web") for _ in range(40)]
    for client in clients:
        client.send(get("/", "Connection: close"))
    for client in clients:
        assert client.read_response().status == 200
        client.expect_end()
        client.close()
    assert rejected(stage, "max_connections") == 0


def test_the_overrun_is_answered_503(new_stage):
    """When the listener stops, those in its backlog have no later: they are told, not reset."""
    stage = new_stage(INI, drain_timeout="60s")
    first = [served(stage.connect()) for _ in range(3)]
    late = [stage.connect(name) for name in ("web", "web", "web_b", "unix_web")]
    stage.weir.signal(signal.SIGTERM)
    for client in late:
        got = client.read_response()
        assert (got.status, got.reason) == (503, "max_connections")
        assert (got["Retry-After"], got["Connection"]) == ("1", "close")
    assert rejected(stage, "max_connections") == 4
    for client in late[:-1]:
        client.send(get())  # it was on its way: no RST may destroy the answer
    for client in late:
        assert client.expect_end() == "fin"
        client.close()
    for client in first:
        client.close()
    stage.weir.drained()


def test_who_is_told_so_and_stays_holds_up_no_drain(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    first = [served(stage.connect()) for _ in range(3)]
    late = stage.connect()
    stage.weir.signal(signal.SIGTERM)
    assert late.read_response().status == 503
    late.expect_close()
    for client in first:
        client.close()
    # It sends no FIN: weir waits for it a second, not a minute.
    stage.weir.drained()
