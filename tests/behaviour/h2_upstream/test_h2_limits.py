"""A server that takes fewer streams at once than weir knew: nothing is lost, or waits in vain."""

import pytest

from harness.bulk import Stopped
from harness.h2_client import H2Client
from harness.h2_server import (MAX_STREAMS, ONE_AND_TWO, REFUSED_STREAM, H2Server, H2Service, ask,
                               finish)
from harness.http1 import get

INI = ONE_AND_TWO


def test_streams_run_into_the_limit_the_server_enforces(stage):
    """It lowers its limit, and refuses what was on its way: nothing is lost."""
    clients = {"/0": ask(stage, get("/0"))}
    server = H2Server(stage.origin.accept())
    first = server.next_request()
    server.until(lambda: server.acknowledged, "the acknowledgement of the first SETTINGS")
    server.h2.update_settings({MAX_STREAMS: 1})
    clients["/1"] = ask(stage, get("/1"))
    second = server.next_request()
    server.flush()
    server.refuse(second, REFUSED_STREAM)
    other = H2Server(stage.origin.accept())
    again = other.next_request()
    assert again.path == "/1"
    finish(clients["/1"], other, again)
    finish(clients["/0"], server, first)


def lowered(stage, name, ask):
    """(client, server, first): a connection with one request, whose server lowers its limit to 1 as
    weir gives it what `ask` asks for: nghttp2 has that, and keeps it."""
    client = H2Client(stage.connect(name))
    client.get(1, "/0")
    server = H2Server(stage.origin.accept())
    first = server.next_request()
    server.until(lambda: server.acknowledged, "the acknowledgement of the first SETTINGS")
    client.echo()
    client.until(lambda: 0 in client.opened, "the connection's window")
    with Stopped(stage.weir):
        ask(client)
        server.settings({MAX_STREAMS: 1})
    return client, server, first


@pytest.mark.parametrize("name, origin", [("web", "origin"), ("two", "origin_b")])
def test_what_a_lowered_limit_holds_back_goes_elsewhere(stage, name, origin):
    """Nothing of it was sent: so it may, whatever its method."""
    counted = stage.counter("weir_upstream_retries_total", reason="server_refused")

    def ask(client):
        client.get(3, "/get")
        client.post(5, "/post", b"body")

    client, server, first = lowered(stage, name, ask)
    with H2Service(stage.origins[origin],
                   lambda other, again: other.answer(again, 200, b"got " + again.body)):
        assert client.answer(3).body == b"got " and client.answer(5).body == b"got body"
    assert counted.grown() == 2
    server.answer(first, 200, b"first")
    assert client.answer(1).body == b"first"
    assert not server.unseen


def test_what_cannot_be_given_again_waits_for_the_limit(stage):
    """Of a long body weir keeps no copy, so that it cannot go elsewhere: it has its turn."""
    body = b"b" * 60_000
    client, server, first = lowered(stage, "web", lambda client: client.post(3, "/long", body))
    server.echo()
    client.echo()
    assert client.on(3).fields is None and client.on(3).code is None
    server.answer(first, 200, b"first")
    assert client.answer(1).body == b"first"
    request = server.whole_request()
    assert request.path == "/long" and request.body == body
    server.answer(request, 200, b"good")
    assert client.answer(3).body == b"good"


def test_what_its_client_takes_back_is_not_sent_when_its_turn_comes(stage):
    body = b"b" * 60_000
    client, server, first = lowered(stage, "web", lambda client: client.post(3, "/long", body))
    client.reset_stream(3)
    client.echo()
    server.answer(first, 200, b"first")
    assert client.answer(1).body == b"first"
    client.get(5, "/next")
    request = server.next_request()
    assert request.path == "/next"
    server.answer(request, 200, b"good")
    assert client.answer(5).body == b"good"


def test_what_waits_for_the_limit_of_a_server_that_goes_was_refused(stage):
    """It has not looked at it, and has said so: nobody has to wonder what was done."""
    counted = stage.ended("server_refused")
    body = b"b" * 60_000
    client, server, first = lowered(stage, "web", lambda client: client.post(3, "/long", body))
    server.go_away(first.id)
    server.answer(first, 200, b"first")
    assert client.answer(1).body == b"first"
    server.upstream.half_close()
    got = client.answer(3)
    assert (got.status, got.reason) == (503, "server_refused")
    counted.grows()


def test_a_server_that_goes_just_when_it_is_asked_has_refused(stage):
    """Its GOAWAY and its FIN are there before the request has gone out."""
    counted = stage.counter("weir_upstream_retries_total", reason="server_refused")
    client = H2Client(stage.connect())
    client.get(1, "/0")
    server = H2Server(stage.origin.accept())
    first = server.next_request()
    server.answer(first, 200, b"first")
    assert client.answer(1).body == b"first"
    client.echo()
    with Stopped(stage.weir):
        client.post(3, "/post", b"body")
        server.go_away(first.id)
        server.upstream.half_close()
    other = H2Server(stage.origin.accept())
    again = other.whole_request()
    assert (again.path, again.body) == ("/post", b"body")
    other.answer(again, 200, b"good")
    assert client.answer(3).body == b"good"
    assert counted.grown() == 1
    assert not server.unseen
