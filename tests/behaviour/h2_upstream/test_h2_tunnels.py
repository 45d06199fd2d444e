"""Tunnels whose end comes while weir still holds bytes: none is lost, nothing waits in vain."""

import time

import pytest

from harness.bulk import Stopped, pattern
from harness.h2_client import H2Client
from harness.h2_server import CANCEL, INTERNAL_ERROR
from harness.h2_tunnel import H2TunnelClient, H2TunnelServer
from harness.http1 import answer_head, get
from harness.websocket import upgrade

INI = """
[listener web]
bind = @web
upstream = h2
[listener narrow]
bind = @narrow
upstream = h2
send_buffer = 16k
[listener plain]
bind = @plain
upstream = h1
[route tunnel]
listener = plain
connect = on
upstream = h1
[listener local]
bind = @local
upstream = local
[upstream h2]
protocol = h2
server = @origin
[upstream local]
protocol = h2
timeout_tunnel = 1s
server = @originunix
[upstream h1]
server = @originslow
"""

NO_ERROR = 0
# As much as a stream may send; behind it a client that does not read is full.
BODY = pattern(65000)


def ask(stage, kind, name="web", **more):
    peer = stage.connect(name, **more)
    if kind == "h1":
        peer.send(upgrade("/ws"))
        return peer
    client = H2TunnelClient(peer)
    client.ask("/ws", ("sec-websocket-version", "13"))
    return client


def began(client):
    if isinstance(client, H2TunnelClient):
        assert client.head()[":status"] == "200"
    else:
        assert client.read_response_head().status == 101


def says_all(stage, server, then=lambda: None):
    """The whole of a tunnel comes in one turn, with what follows it."""
    with Stopped(stage.weir):
        server.head(200)
        server.send(BODY)
        server.half_close()
        then()


def reads_all(client):
    """All of it, and the end: its other direction had none."""
    began(client)
    assert client.read_exactly(len(BODY)) == BODY
    client.expect_end()


def ask_slowly(stage):
    """(client, server, request): the answer before the tunnel is still on its way, as the client
    does not read."""
    client = stage.connect("narrow", recv_buffer=4096)
    client.send(get("/first") + upgrade("/ws"))
    server = H2TunnelServer(stage.origin)
    server.server.answer(server.server.next_request(), 200, BODY)
    return client, server, server.request()


def reads_late(client):
    assert client.read_response().body == BODY
    began(client)
    assert client.read_exactly(len(BODY)) == BODY


@pytest.mark.parametrize("kind", ["h1", "h2"])
@pytest.mark.parametrize("end", ["close", "go away and close"])
def test_what_a_server_says_before_it_goes_arrives(stage, kind, end):
    client = ask(stage, kind)
    server = H2TunnelServer(stage.origin)
    request = server.request()

    def go():
        if end != "close":
            server.server.go_away(request.id)
        server.server.close()

    says_all(stage, server, go)
    reads_all(client)


@pytest.mark.parametrize("end", ["go away", "close", "reset"])
def test_what_a_slow_client_has_not_read_outlives_the_connection(stage, end):
    """Both directions have ended, and the client reads late."""
    client, server, request = ask_slowly(stage)
    says_all(stage, server)
    client.half_close()
    server.wait(lambda: request.ended, "the client's end")
    server.server.echo()  # what it had not would be gone with a reset
    if end == "go away":
        server.server.go_away(request.id)
        server.server.expect_end()
    else:
        getattr(server.server, end)()
        stage.weir.eventually_metric(0, "weir_upstream_connections", state="active")
    reads_late(client)
    client.expect_close()


@pytest.mark.parametrize("held", [True, False], ids=["held", "passed"])
@pytest.mark.parametrize("code", [NO_ERROR, CANCEL, INTERNAL_ERROR])
def test_a_stream_that_its_server_has_ended_and_reset_is_over(stage, code, held):
    """It takes nothing any more: there is nothing to wait for."""
    before = stage.count("weir_http_exchanges_ended_total", reason="server_reset")
    client, server, request = ask_slowly(stage)
    says_all(stage, server, lambda: held and server.server.refuse(request, code))
    reads_late(client)
    client.expect_close()
    if not held:
        server.server.refuse(request, code)
    stage.weir.eventually_metric(0, "weir_h2_streams_active")
    failed = stage.count("weir_http_exchanges_ended_total", reason="server_reset") - before
    assert failed == (0 if code == NO_ERROR else 1)


@pytest.mark.parametrize("end", ["half_close", "close"])
def test_what_a_client_says_before_it_goes_arrives(stage, end):
    """All of it came ahead of the tunnel, and the server reads late."""
    client = H2Client(stage.connect("plain"))
    client.echo()
    client.headers(1, [(":method", "CONNECT"), (":authority", "tunnel.example:443")], end=False)
    upstream = stage.origins["originslow"].accept()
    upstream.read_head("request")
    body = pattern(200_000)
    client.data(1, body, end=True)
    client.echo()
    upstream.send(answer_head(200))
    assert client.answer_head(1).status == 200
    if end == "close":
        upstream.half_close()
        client.until(lambda: client.on(1).ended, "the end")
    client.stingy = True    # it says nothing any more
    getattr(client.peer, end)()
    assert upstream.read_exactly(len(body)) == body
    if end == "half_close":
        upstream.send(b"back")
        upstream.half_close()
        client.until(lambda: client.on(1).ended, "the end")
        assert client.on(1).body == b"back"
    upstream.expect_end()


def test_a_server_that_reads_slowly_from_a_unix_socket_is_not_idle(stage):
    """That it has read something its kernel tells once, to whoever asks first."""
    client = ask(stage, "h1", "local")
    server = H2TunnelServer(stage.origins["originunix"])
    server.request()
    server.head(200)
    began(client)
    passed = stage.counter("weir_tunnel_bytes_total", direction="to_upstream")
    for piece in range(1, 31):
        client.send(bytes(1000))
        passed.grows(1000 * piece)
    for _ in range(130):
        time.sleep(0.02)  # the server's pace
        server.server.feed(server.server.peer.sock.recv(200))
    assert server.read_exactly(30_000) == bytes(30_000)
    server.send(b"all")
    assert client.read_exactly(3) == b"all"
