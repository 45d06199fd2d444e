"""A WebSocket with every HTTP version of a client and of a server (RFC 6455, RFC 8441), h1s and h2s
being those in TLS."""

import signal

import pytest

from harness import versions
from harness.h2_client import ENABLE_CONNECT_PROTOCOL, MAX_CONCURRENT_STREAMS, H2Client
from harness.h2_tunnel import H2TunnelClient, H2TunnelServer
from harness.http1 import answer, get
from harness.versions import PAIRS, connect, every_pair, in_tls, is_h2, origin_of
from harness.websocket import (BINARY, CONTINUATION, KEY, MASK, PING, TEXT, accept_of, close,
                               expect_close, frame, random_text, switch, upgrade)

INI = """
[listener early]
bind = @early
upstream = h1
timeout_client = 300ms
timeout_request = 500ms
max_body_size = 1k
[listener none]
bind = @none
upstream = h1
websocket = off
[listener some]
bind = @some
upstream = h1
websocket = off
[route some]
listener = some
path = /some
upstream = h1
websocket = raw
[route off]
path = /off
upstream = h1
websocket = off
[route respond]
path = /respond
respond = 200 hello
""" + versions.INI + versions.listeners("checked", "websocket = checked")

every_tunnel = pytest.mark.parametrize("client, server, mode", [(*pair, mode) for pair in PAIRS
                                                                for mode in ("to", "checked")])


def ask(stage, client, server, path="/ws", mode="to"):
    """A client that has asked for a WebSocket."""
    return ask_on(connect(stage, client, server, mode), client, path)


def ask_on(peer, client, path="/ws"):
    if not is_h2(client):
        peer.send(upgrade(path, "Sec-WebSocket-Protocol: chat"))
        return peer
    end = H2TunnelClient(peer)
    end.ask(path, ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"))
    return end


def take(stage, server):
    """(the server's end, the request it was sent)."""
    origin = origin_of(stage, server)
    if is_h2(server):
        end = H2TunnelServer(origin)
        return end, end.request()
    end = origin.next()
    return end, end.read_request()


def let(server, end, seen):
    """The server agrees."""
    if not is_h2(server):
        end.send(switch(seen["Sec-WebSocket-Key"], "Sec-WebSocket-Protocol: chat"))
    else:
        end.head(200, ("sec-websocket-protocol", "chat"))


def began(client, end):
    """The client sees that it may."""
    if is_h2(client):
        head = end.head()
        assert head[":status"] == "200" and head["sec-websocket-protocol"] == "chat"
        assert "sec-websocket-accept" not in head and "upgrade" not in head
    else:
        got = end.read_response()
        assert got.status == 101 and got["Upgrade"] == "websocket"
        assert got["Sec-WebSocket-Accept"] == accept_of(KEY)
        assert got["Sec-WebSocket-Protocol"] == "chat"


def tunnel(stage, client, server, mode="to"):
    """(the client's end, the server's end), switched."""
    ours = ask(stage, client, server, mode=mode)
    theirs, seen = take(stage, server)
    let(server, theirs, seen)
    began(client, ours)
    return ours, theirs


@every_pair
def test_the_handshake_is_that_of_each_version(stage, client, server):
    ours = ask(stage, client, server)
    theirs, seen = take(stage, server)
    if not is_h2(server):
        assert (seen.method, seen.target, seen["Upgrade"]) == ("GET", "/ws", "websocket")
        assert seen["Connection"].lower() == "upgrade" and seen["Sec-WebSocket-Version"] == "13"
        assert (seen["Sec-WebSocket-Key"] == KEY) != is_h2(client)
    else:
        assert (seen.method, seen[":protocol"], seen.path) == ("CONNECT", "websocket", "/ws")
        assert seen[":scheme"] == ("https" if in_tls(server) else "http")
        assert seen["sec-websocket-version"] == "13"
        assert "sec-websocket-key" not in seen and "upgrade" not in seen
    let(server, theirs, seen)
    began(client, ours)


@every_tunnel
def test_frames_pass_both_ways(stage, client, server, mode):
    ours, theirs = tunnel(stage, client, server, mode)
    data = (frame(TEXT, "\u20ac".encode(), MASK) + frame(BINARY, b"x" * 300, MASK, fin=False) +
            frame(PING, b"p", MASK) + frame(CONTINUATION, b"y" * 70000, MASK))
    for _ in range(3):
        ours.send(data)
        theirs.expect(data)
    data = frame(TEXT, b"") + frame(BINARY, random_text(40000)) + frame(PING, b"q")
    for _ in range(3):
        theirs.send(data)
        ours.expect(data)


@every_tunnel
def test_frames_pass_byte_by_byte(stage, client, server, mode):
    ours, theirs = tunnel(stage, client, server, mode)
    data = frame(TEXT, b"hello", MASK) + frame(PING, b"p", MASK)
    ours.send_each_byte(data)
    theirs.expect(data)
    data = frame(TEXT, b"hello") + frame(BINARY, b"z" * 130)
    theirs.send_each_byte(data)
    ours.expect(data)


@every_tunnel
def test_a_close_ends_both(stage, client, server, mode):
    ours, theirs = tunnel(stage, client, server, mode)
    ours.send(close(1000, b"bye", MASK))
    theirs.expect(close(1000, b"bye", MASK))
    theirs.send(close(1000, b"bye"))
    ours.expect(close(1000, b"bye"))
    theirs.half_close()
    ours.expect_close()
    if mode == "to":
        ours.half_close()
    theirs.expect_close()


@every_pair
def test_half_closes_pass(stage, client, server):
    ours, theirs = tunnel(stage, client, server)
    ours.send(b"last words")
    ours.half_close()
    theirs.expect(b"last words")
    theirs.expect_close()
    theirs.send(b"answer")
    ours.expect(b"answer")
    theirs.half_close()
    ours.expect_close()


@every_tunnel
def test_a_reset_of_the_client_ends_the_servers_side(stage, client, server, mode):
    ours, theirs = tunnel(stage, client, server, mode)
    ours.send(frame(TEXT, b"x", MASK))
    theirs.expect(frame(TEXT, b"x", MASK))
    ours.reset()
    if mode == "checked":
        expect_close(theirs, 1001, is_masked=True)
    theirs.expect_end()


@every_tunnel
def test_a_reset_of_the_server_ends_the_clients_side(stage, client, server, mode):
    ours, theirs = tunnel(stage, client, server, mode)
    theirs.send(frame(TEXT, b"x"))
    ours.expect(frame(TEXT, b"x"))
    theirs.reset()
    if mode == "checked":
        expect_close(ours, 1001, is_masked=False)
    ours.expect_end()


@every_pair
def test_a_violation_closes_both_sides(stage, client, server):
    ours, theirs = tunnel(stage, client, server, "checked")
    ours.send(frame(TEXT, b"good", MASK) + frame(TEXT, b"x", MASK, rsv=2))
    theirs.expect(frame(TEXT, b"good", MASK))
    expect_close(theirs, 1001, is_masked=True)
    theirs.expect_end()
    expect_close(ours, 1002, is_masked=False)
    ours.expect_end()


@every_pair
def test_a_refusal_is_passed_on(stage, client, server):
    ours = ask(stage, client, server)
    theirs, _ = take(stage, server)
    if not is_h2(server):
        theirs.send(answer(403, b"no"))
    else:
        theirs.answer(403, b"no")
    if is_h2(client):
        assert ours.head()[":status"] == "403"
        ours.expect(b"no")
    else:
        got = ours.read_response()
        assert (got.status, got.body) == (403, b"no")


def test_an_answer_without_an_upgrade_is_502_over_h2(stage):
    """A 200 would say that the WebSocket is there."""
    ours = ask(stage, "h2", "h1")
    theirs, _ = take(stage, "h1")
    theirs.send(answer(200, b"what upgrade?"))
    head = ours.head()
    assert head[":status"] == "502" and "upgrade_ignored" in head["proxy-status"]


def test_an_answer_without_an_upgrade_is_one_over_h1(stage):
    ours = ask(stage, "h1", "h1")
    theirs, _ = take(stage, "h1")
    theirs.send(answer(200, b"what upgrade?"))
    assert ours.read_response().body == b"what upgrade?"


@pytest.mark.parametrize("client", ["h1", "h2"])
def test_a_server_without_extended_connect_is_502(stage, client):
    """Only its SETTINGS say so: the first request waits for them."""
    ours = ask(stage, client, "h2")
    theirs = H2TunnelServer(stage.origins["origin_h2"], settings={})
    theirs.server.until(lambda: theirs.server.acknowledged, "the acknowledgement of SETTINGS")
    for again in range(2):
        if client == "h2":
            head = ours.head()
            assert head[":status"] == "502" and "upgrade_unsupported" in head["proxy-status"]
        else:
            got = ours.read_response()
            assert (got.status, got.reason) == (502, "upgrade_unsupported")
        if again:
            break
        if client == "h2":
            ours.ask("/again")
        else:
            ours = ask(stage, "h1", "h2")
    assert not theirs.server.requests


def test_a_server_that_proves_nothing_is_502(stage):
    ours = ask(stage, "h2", "h1")
    theirs, _ = take(stage, "h1")
    theirs.send(switch(KEY))
    head = ours.head()
    assert head[":status"] == "502" and "bad_response" in head["proxy-status"]


@pytest.mark.parametrize("path", ["/off", "/respond"])
def test_where_no_websocket_can_be_it_is_refused(stage, path):
    ours = ask(stage, "h2", "h1", path)
    head = ours.head()
    assert head[":status"] == "403" and "websocket_refused" in head["proxy-status"]


def test_where_no_route_takes_a_websocket_none_is_offered(stage):
    """RFC 8441 section 3: who is not told that it may does not ask, and needs no 403 to know."""
    client = H2Client(stage.connect("none"))
    client.echo()
    client.until(lambda: 0 in client.opened, "SETTINGS")  # an answer to PING overtakes them
    assert MAX_CONCURRENT_STREAMS in client.settings
    assert ENABLE_CONNECT_PROTOCOL not in client.settings
    client.headers(1, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                       (":path", "/ws"), (":authority", "a.example")], end=False)
    client.until(lambda: client.on(1).fields, "an answer")
    assert client.on(1).status == 403 and client.on(1).reason == "websocket_refused"


def test_where_one_route_takes_a_websocket_it_is_offered(stage):
    client = H2TunnelClient(stage.connect("some"))  # waits for the offer
    client.ask("/some")
    upstream = stage.origin.next()
    upstream.send(switch(upstream.read_request()["Sec-WebSocket-Key"]))
    assert client.head()[":status"] == "200"


@pytest.mark.parametrize("lines", [(), ("Sec-WebSocket-Key: short",)])
def test_a_handshake_without_a_key_is_no_upgrade(stage, lines):
    """What is wrong with it the server says."""
    request = get("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                  *lines)
    seen, got = stage.exchange(request, answer(400, b"no key"), stage.connect("to_h1"))
    assert "Upgrade" not in seen and got.status == 400


@pytest.mark.parametrize("client, server", [("h1", "h1"), ("h1", "h2"), ("h2", "h1"), ("h2", "h2"),
                                            ("h1s", "h2s"), ("h2s", "h1s")])
def test_a_drain_tells_both_ends(new_stage, client, server):
    stage = new_stage(INI, drain_timeout="60s")
    ours, theirs = tunnel(stage, client, server, "checked")
    stage.weir.signal(signal.SIGTERM)
    expect_close(ours, 1001, is_masked=False)
    expect_close(theirs, 1001, is_masked=True)
    ours.send(close(1001, mask=MASK))
    theirs.send(close(1001))
    ours.expect_close()
    stage.clear()
    stage.weir.drained()


def test_what_comes_ahead_of_a_tunnel_is_no_body(stage):
    """It waits for the server, for long; neither max_body_size nor min_read_rate are about it."""
    end = ask_on(stage.connect("early"), "h2")
    server, seen = take(stage, "h1")
    late = stage.connect("early")
    late.send(b"GET /")
    assert late.read_response().reason == "request_timeout"
    end.send(b"a")
    end.send(b"b" * 2000)
    assert stage.connect("early").ask(get("/respond")).body == b"hello"
    let("h1", server, seen)
    began("h2", end)
    server.expect(b"a" + b"b" * 2000)
    server.send(b"back")
    end.expect(b"back")
