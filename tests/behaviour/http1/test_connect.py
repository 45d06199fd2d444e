"""CONNECT: refused, unless a route says `connect = on`; then the server decides (RFC 9110 section
9.3.6)."""

import errno
import socket
import threading

import pytest

from harness.http1 import answer, answer_head, get
from harness.wait import eventually

INI = """
[listener web]
bind = @web
upstream = app
[listener closed]
bind = @closed
upstream = app
[route tunnels]
listener = web
method = CONNECT
host = db.example
upstream = app
connect = on
[upstream app]
server = @origin
timeout_tunnel = 60s
"""

CONNECT = b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"
ESTABLISHED = answer_head(200, phrase="Connection established")


def open_tunnel(client, origin):
    client.send(CONNECT)
    upstream = origin.next()
    seen = upstream.read_request()
    assert (seen.method, seen.target) == ("CONNECT", "db.example:5432")
    upstream.send(ESTABLISHED)
    head = client.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    # A tunnel has no body, so nothing may say that there is one.
    assert b"content-length" not in head.lower() and b"transfer-encoding" not in head.lower()
    return upstream


def test_connect_is_passed_on_where_a_route_allows_it(stage, client, origin):
    upstream = open_tunnel(client, origin)
    for data in (b"\x00\xff\r\n\r\n", get("/not-a-request"), b"0\r\n\r\n"):
        client.send(data)
        upstream.expect(data)
        upstream.send(data[::-1])
        client.expect(data[::-1])


@pytest.mark.parametrize("target", ["closed", "other-host"])
def test_connect_is_refused_elsewhere(stage, origin, target):
    client = stage.connect("closed" if target == "closed" else "web")
    host = b"db.example" if target == "closed" else b"other.example"
    client.send(CONNECT.replace(b"db.example", host))
    assert client.read_response().status == 405
    assert origin.saw_nothing()


def test_bytes_right_behind_the_heads_belong_to_the_tunnel(stage, client, origin):
    upstream = origin.asked_by(client, CONNECT + b"early bytes of the client")
    upstream.send(ESTABLISHED + b"early bytes of the server")
    upstream.expect(b"early bytes of the client")
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    client.expect(b"early bytes of the server")


def test_who_has_to_authenticate_asks_again(stage, client, origin):
    upstream = origin.asked_by(client, CONNECT)
    upstream.send(answer(407, b"who are you"))
    got = client.read_response(method="CONNECT")
    assert (got.status, got.body) == (407, b"who are you")
    # The connection is as good as before.
    client.send(CONNECT)
    upstream.read_request()
    upstream.send(ESTABLISHED)
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("status, early", [
    (403, b""), (403, get("/smuggled")), (407, get("/smuggled")), (503, get("/smuggled"))],
    ids=["nothing", "403", "407", "503"])
def test_bytes_behind_a_connect_that_is_refused_are_no_requests(stage, client, origin, status,
                                                                early):
    """RFC 9931: they were somebody else's, meant for the tunnel."""
    requests = stage.counter("weir_http_requests_total", listener="web")
    upstream = origin.asked_by(client, CONNECT + early)
    upstream.send(answer(status, b"no"))
    got = client.read_response(method="CONNECT")
    assert (got.status, got.body, got["Connection"]) == (status, b"no", "close")
    client.expect_end()
    assert requests.grown() == 1


def test_neither_are_those_that_weir_refuses(stage, origin):
    client = stage.connect("closed")
    client.send(CONNECT + get("/smuggled"))
    got = client.read_response(method="CONNECT")
    assert (got.status, got["Connection"]) == (405, "close")
    client.expect_end()
    assert origin.saw_nothing()


def test_half_close_is_passed_on(stage, client, origin):
    upstream = open_tunnel(client, origin)
    client.send(b"last words")
    client.half_close()
    upstream.expect(b"last words")
    upstream.expect_close()
    upstream.send(b"still here")
    client.expect(b"still here")
    upstream.close()
    client.expect_close()


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_after_ones_own_fin(stage, client, origin, side):
    """Nothing is read of who has sent FIN, nor sent to it: it is watched."""
    upstream = open_tunnel(client, origin)
    one, other = (client, upstream) if side == "client" else (upstream, client)
    one.half_close()
    other.expect_close()
    one.reset()
    stage.weir.eventually_metric(0, "weir_tunnel_slots_used")
    if side == "client":
        # Having read the FIN, a socket says EPIPE where it would say ECONNRESET.
        eventually(lambda: other.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE,
                   "the server is reset")


def test_megabytes_through_the_tunnel_are_spliced(stage, client, origin):
    upstream = open_tunnel(client, origin)
    data = bytes(range(256)) * 4096 * 8
    for sender, reader in ((upstream, client), (client, upstream)):
        sending = threading.Thread(target=sender.send, args=(data,))
        sending.start()
        reader.expect(data)
        sending.join()
    assert stage.count("weir_spliced_bytes_total") > len(data)
