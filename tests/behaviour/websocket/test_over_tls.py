"""A WebSocket whose client comes over TLS, by HTTP/1.1 or by HTTP/2 as ALPN says."""

import socket

import pytest

from harness.certificates import Authority, client as context_of
from harness.h2_tunnel import H2TunnelClient
from harness.peer import Client
from harness.wait import PATIENCE
from harness.websocket import (MASK, PING, TEXT, close, expect_close, frame, open_tunnel,
                               random_text, switch)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp("certificates"))
    ca.site = ca.issue("site", "site.example")
    return ca


@pytest.fixture(params=["raw", "checked"])
def mode(request):
    return request.param


@pytest.fixture
def tls_stage(new_stage, ca, mode):
    return new_stage(f"""
[listener web]
bind = @web
upstream = app
tls = site
alpn = h2 http/1.1
websocket = {mode}
[tls site]
certificate = {ca.site.crt}
key = {ca.site.key}
[upstream app]
server = @origin
""", drain_timeout="5s")


def shaken(stage, ca, protocol):
    context = context_of(ca)
    context.set_alpn_protocols([protocol])
    sock = socket.create_connection(stage.things["web"].target, PATIENCE)
    sock = context.wrap_socket(sock, server_hostname="site.example")
    assert sock.selected_alpn_protocol() == protocol
    peer = Client(sock)
    stage.clients.append(peer)
    return peer


def tunnel(stage, ca, protocol):
    peer = shaken(stage, ca, protocol)
    if protocol == "http/1.1":
        return open_tunnel(peer, stage.origin)
    ours = H2TunnelClient(peer)
    ours.ask("/ws", ("sec-websocket-version", "13"))
    theirs = stage.origin.next()
    seen = theirs.read_request()
    theirs.send(switch(seen["Sec-WebSocket-Key"]))
    assert ours.head()[":status"] == "200"
    return ours, theirs


both = pytest.mark.parametrize("protocol", ["http/1.1", "h2"])


@both
def test_frames_pass_both_ways(tls_stage, ca, protocol):
    ours, theirs = tunnel(tls_stage, ca, protocol)
    for size in (0, 5, 200, 40000):
        data = frame(TEXT, random_text(size), MASK) + frame(PING, b"p", MASK)
        ours.send(data)
        theirs.expect(data)
        data = frame(TEXT, random_text(size)) + frame(PING, b"q")
        theirs.send(data)
        ours.expect(data)


@both
def test_a_close_ends_both(tls_stage, ca, protocol):
    ours, theirs = tunnel(tls_stage, ca, protocol)
    ours.send(close(1000, mask=MASK))
    theirs.expect(close(1000, mask=MASK))
    theirs.send(close(1000))
    ours.expect(close(1000))
    theirs.close()
    ours.expect_close()


@both
def test_a_violation_is_told(tls_stage, ca, protocol, mode):
    ours, theirs = tunnel(tls_stage, ca, protocol)
    bad = frame(TEXT, b"x", MASK, rsv=4)
    ours.send(bad)
    if mode == "raw":
        theirs.expect(bad)
    else:
        expect_close(theirs, 1001, is_masked=True)
        expect_close(ours, 1002, is_masked=False)
