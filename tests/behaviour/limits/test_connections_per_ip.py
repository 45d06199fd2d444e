"""max_connections_per_ip: counted exactly, over all workers; one too many is told 429."""

import threading

import pytest

from harness.http1 import get
from harness.wait import eventually

INI = """
[listener web]
bind = @web @web_b
service = hi
max_connections_per_ip = 4
[listener net6]
bind = @port6
service = hi
max_connections_per_ip = 1
[listener local]
bind = @unix_local @beside
service = hi
max_connections_per_ip = 1
[listener free]
bind = @free
service = hi
[service hi]
type = respond
body = hello
"""
GLOBAL = {"workers": 2}
PER_IP = 4


def rejected(stage):
    return stage.count("weir_listener_connections_rejected_total",
                       reason="max_connections_per_ip")


def served(client):
    assert client.ask(get()).body == b"hello"
    return client


def refused(client):
    got = client.read_response()
    assert (got.status, got.reason) == (429, "max_connections_per_ip")
    assert (got["Retry-After"], got["Connection"]) == ("1", "close")
    client.expect_close()
    client.close()


def test_one_address_over_its_limit_gets_429(stage):
    """Nothing need be sent for it; others are served, and so is this one after an end."""
    before = rejected(stage)
    mine = [served(stage.connect(name)) for name in ("web", "web_b") * 2]
    for name in ("web", "web_b") * 3:
        refused(stage.connect(name))
    assert rejected(stage) - before == 6
    for last in range(2, 6):
        served(stage.connect(source=f"127.0.0.{last}"))
    served(stage.connect("free"))
    mine.pop().close()
    eventually(lambda: stage.count("weir_listener_connections_active", listener="web") == 3 + 4,
               "it is gone")
    mine.append(served(stage.connect()))
    refused(stage.connect())
    for client in mine:
        served(client)


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_however_a_connection_ends_its_place_is_free(stage, how):
    for _ in range(3):
        mine = [served(stage.connect()) for _ in range(PER_IP)]
        refused(stage.connect())
        for client in mine:
            getattr(client, how)()
        eventually(lambda: stage.count("weir_listener_connections_active", listener="web") == 0,
                   "they are gone")


def test_of_many_at_once_exactly_the_limit_is_served(stage):
    """Workers accept side by side: they count together."""
    for last in (7, 8, 9):
        clients = [stage.connect(name, source=f"127.0.0.{last}")
                   for name in ("web", "web_b") for _ in range(16)]
        for client in clients:
            client.send(get())
        statuses = [client.read_response().status for client in clients]
        assert sorted(statuses) == [200] * PER_IP + [429] * (len(clients) - PER_IP)


def test_ipv6_is_counted_by_network(stage):
    """::1 is the only address here: that others of its /64 count too is a unit test's claim."""
    first = served(stage.connect("port6"))
    refused(stage.connect("port6"))
    first.close()
    eventually(lambda: stage.count("weir_listener_connections_active", listener="net6") == 0,
               "it is gone")
    served(stage.connect("port6"))


def test_unix_sockets_are_not_counted(stage):
    for client in [stage.connect("unix_local") for _ in range(10)]:
        served(client)


def test_a_crowd_that_is_refused_disturbs_nobody(stage):
    """More than are told so at once: the others are reset, and the rest of the world is served."""
    mine = [served(stage.connect()) for _ in range(PER_IP)]
    before = rejected(stage)
    ended = []

    def connect():
        try:
            return stage.connect()
        except ConnectionResetError:  # that quickly
            ended.append("reset")
            return None

    def attack():
        for _ in range(10):
            crowd = [connect() for _ in range(60)]
            ended.extend(client.expect_end() for client in crowd if client)

    attacker = threading.Thread(target=attack)
    attacker.start()
    while attacker.is_alive():
        served(stage.connect("free")).close()
        one = served(stage.connect(source="127.0.0.77"))
        one.reset()
    attacker.join()
    assert len(ended) == 600 == rejected(stage) - before
    for client in mine:
        served(client)


def test_who_is_told_why_he_is_refused_holds_no_place(new_stage):
    """One place, and many addresses that speak plain HTTP to it: none waits for those before it."""
    stage = new_stage("""
    [listener secure]
    bind = @secure
    tls = site
    service = hi
    max_connections_per_ip = 1
    [tls site]
    certificate = weir.test.pem
    [service hi]
    type = respond
    """, max_connections=1)
    told = []
    for last in range(2, 40):
        client = stage.connect("secure", source=f"127.0.0.{last}")
        client.send(get())
        assert client.read_response().status == 400
        told.append(client)  # it sends no FIN: weir waits for that
    for client in told:
        client.expect_close()
    before = rejected(stage)
    again = stage.connect("secure", source="127.0.0.2")
    again.send(get())
    assert again.read_response().status == 400
    assert rejected(stage) == before
