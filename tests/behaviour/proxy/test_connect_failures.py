"""Servers that cannot be connected: the next is tried; when none is left, the client is told."""

import socket
import time

import pytest

from harness.http1 import answer, get, post

INI = """
[listener refused]
bind = @refused
upstream = refused
[listener all_refused]
bind = @all_refused
upstream = all_refused
[listener one_alive]
bind = @one_alive
upstream = one_alive
[listener hole]
bind = @to_hole
upstream = hole
[listener hole_then_alive]
bind = @to_both
upstream = hole_then_alive
[listener backup]
bind = @backup
upstream = backup
[listener nounix]
bind = @nounix
upstream = nounix

[upstream refused]
server = @dead
[upstream all_refused]
server = @dead
server = @dead_b
server = @dead_c
[upstream one_alive]
balance = first
server = @dead
server = @dead_b
server = @origin
[upstream hole]
server = @hole
timeout_connect = 300ms
[upstream hole_then_alive]
balance = first
server = @hole
server = @origin
timeout_connect = 300ms
[upstream backup]
server = @dead
server = @origin backup
[upstream nounix]
server = unix:/nonexistent/socket
"""


def test_no_server_gives_503(stage):
    got = stage.connect("refused").ask(get())
    assert (got.status, got.reason) == (503, "connect_failed")


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_a_dead_server_is_logged_with_its_error(new_stage, protocol):
    """Once in a while: every request makes a failure."""
    stage = new_stage(f"""
    [listener web]
    bind = @web
    upstream = app
    [upstream app]
    protocol = {protocol}
    server = @dead
    """)
    client = stage.connect()
    for _ in range(200):
        assert client.ask(get()).status == 503
    assert stage.count("weir_upstream_connect_failures_total") == 200
    said = stage.weir.says("cannot connect")
    lines = [line for line in said.splitlines() if "cannot connect" in line]
    assert f"upstream app: server {stage.address('dead')}: cannot connect: Connection refused" \
        in lines[0]
    assert len(lines) <= 5, "one in 10 s"


def test_all_connects_fail(stage):
    failures = stage.counter("weir_upstream_connect_failures_total")
    retries = stage.counter("weir_upstream_retries_total")
    got = stage.connect("all_refused").ask(get())
    assert (got.status, got.reason) == (503, "connect_failed")
    assert "connection_refused" in got["Proxy-Status"]
    failures.grows(3)
    assert retries.grown() == 2, "behind the last one there is none"


def test_a_missing_unix_socket_is_a_failed_connect(stage):
    got = stage.connect("nounix").ask(get())
    assert (got.status, got.reason) == (503, "connect_failed")


def test_the_next_server_is_tried(stage, origin):
    retries = stage.counter("weir_upstream_retries_total", reason="connect_failed")
    client = stage.connect("one_alive")
    client.send(get("/moved"))
    upstream = origin.next()
    assert upstream.read_request().target == "/moved"
    upstream.send(answer(200, b"alive"))
    assert client.read_response().body == b"alive"
    retries.grows(2)


def test_a_post_is_sent_to_the_next_server_too(stage, origin):
    """Nothing of it has been sent anywhere yet."""
    client = stage.connect("one_alive")
    client.send(post("/", b"body" * 1000))
    upstream = origin.next()
    assert upstream.read_request().body == b"body" * 1000
    upstream.send(answer(200, b"alive"))
    assert client.read_response().body == b"alive"


def test_a_backup_takes_over(stage, origin):
    client = stage.connect("backup")
    upstream = origin.asked_by(client, get())
    upstream.send(answer(200, b"backup"))
    assert client.read_response().body == b"backup"


def test_connect_timeout(stage):
    client = stage.connect("to_hole")
    started = time.monotonic()
    got = client.ask(get())
    assert time.monotonic() - started >= 0.28
    assert (got.status, got.reason) == (504, "connect_timeout")
    assert "connection_timeout" in got["Proxy-Status"]


def test_connect_timeout_then_the_next_server(stage, origin):
    client = stage.connect("to_both")
    upstream = origin.asked_by(client, get())
    upstream.send(answer(200, b"alive"))
    assert client.read_response().body == b"alive"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_leaves_while_weir_connects(stage, how):
    client = stage.connect("to_hole")
    client.send(get())
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="connecting")
    client.close() if how == "close" else client.reset()
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="connecting")


def test_client_connection_survives_failed_connects(stage, origin):
    client = stage.connect("refused")
    for _ in range(3):
        got = client.ask(get())
        assert (got.status, got["Connection"]) == (503, None)


def test_a_body_sent_to_nobody_does_not_confuse_the_next_request(stage):
    client = stage.connect("refused")
    client.send(post("/", get("/smuggled") * 3) + get("/next"))
    for _ in range(2):
        assert client.read_response().reason == "connect_failed"
    client.half_close()
    client.expect_close()  # nothing of the body was a request


def test_server_comes_back(new_stage):
    """A server that refused is tried again as soon as it listens."""
    spare = socket.socket()
    spare.bind(("127.0.0.1", 0))
    stage = new_stage(f"""
        [listener web]
        bind = @web
        upstream = app
        [upstream app]
        server = 127.0.0.1:{spare.getsockname()[1]}
        """)
    client = stage.connect()
    assert client.ask(get()).status == 503
    spare.listen()
    client = stage.connect()
    client.send(get())
    spare.settimeout(10)
    upstream, _ = spare.accept()
    assert upstream.recv(1000).startswith(b"GET / ")
    upstream.sendall(answer(200, b"back"))
    assert client.read_response().body == b"back"
    upstream.close()
    spare.close()
