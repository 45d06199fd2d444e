"""Idle upstream connections: kept, counted, limited; and what happens when one of them dies."""

import pytest

from harness.http1 import answer, answer_head, get, post, post_chunked
from harness.wait import eventually

INI = """
[listener web]
bind = @web
upstream = app
max_body_size = 0
[listener few]
bind = @few
upstream = few
[listener none]
bind = @none
upstream = none
[listener limited]
bind = @limited
upstream = limited
[listener two]
bind = @two
upstream = two
[upstream app]
server = @origin
[upstream few]
server = @origin
keepalive = 2
[upstream none]
server = @origin
keepalive = 0
[upstream limited]
queue = 0
server = @origin max_connections=2
[upstream two]
balance = first
server = @origin max_connections=1
server = @origin_b max_connections=1
"""


def hold(stage, name, target="/"):
    client = stage.connect(name)
    upstream = stage.origin.asked_by(client, get(target))
    return client, upstream


def finish(client, upstream):
    upstream.send(answer(200, b"done"))
    assert client.read_response().body == b"done"


def warm(stage, name="web"):
    """Leaves one idle connection in the pool and returns its origin end."""
    stage.exchange(get("/warm"), client=stage.connect(name))
    upstream = stage.origin.connections[-1]
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="idle")
    return upstream


def test_connects_and_reuses_are_counted(stage):
    connects = stage.counter("weir_upstream_connects_total")
    reuses = stage.counter("weir_upstream_reuses_total")
    for _ in range(5):
        stage.exchange(get())
    connects.grows()
    reuses.grows(4)


def test_no_more_than_keepalive_idle_connections_are_kept(stage):
    held = [hold(stage, "few") for _ in range(5)]
    for client, upstream in held:
        finish(client, upstream)
    stage.weir.eventually_metric(2, "weir_upstream_connections", state="idle")
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="active")
    eventually(lambda: len(stage.origin.open_connections()) == 2, "three were ended")


def test_keepalive_0_keeps_none(stage, origin):
    client = stage.connect("none")
    for number in range(3):
        stage.exchange(get(), client=client)
        origin.connections[number].expect_close()
    assert len(origin.connections) == 3


def test_the_freshest_idle_connection_is_taken_first(stage, origin):
    """So that the pool can shrink to what is needed."""
    first, second = hold(stage, "web"), hold(stage, "web")
    finish(*first)
    finish(*second)
    stage.weir.eventually_metric(2, "weir_upstream_connections", state="idle")
    client, upstream = hold(stage, "web")
    assert upstream is second[1]
    finish(client, upstream)


def test_server_max_connections(stage, origin):
    held = [hold(stage, "limited") for _ in range(2)]
    client = stage.connect("limited")
    got = client.ask(get())
    assert (got.status, got.reason) == (503, "server_busy")
    assert "connection_limit_reached" in got["Proxy-Status"]
    for one in held:
        finish(*one)
    client, upstream = hold(stage, "limited")
    finish(client, upstream)
    assert len(origin.connections) == 2


def test_a_server_at_its_limit_is_passed_over(stage):
    client, upstream = hold(stage, "two")
    other = stage.connect("two")
    second = stage.origins["origin_b"].asked_by(other, get())
    finish(other, second)
    finish(client, upstream)


def test_server_max_connections_with_many_clients_is_never_exceeded(stage, origin):
    held = [hold(stage, "limited") for _ in range(2)]
    waiting = [stage.connect("limited") for _ in range(10)]
    for client in waiting:
        client.send(get())
    for client in waiting:
        assert client.read_response().status == 503
    assert len(origin.open_connections()) == 2
    for one in held:
        finish(*one)


# Requests whose reused connection dies.

@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_idempotent_request_on_a_dying_connection_is_sent_again(stage, origin, method, how):
    old = warm(stage)
    retries = stage.counter("weir_upstream_retries_total")
    client = stage.connect()
    client.send(get("/again", method=method))
    assert origin.next() is old
    old.read_request()
    (old.close if how == "close" else old.reset)()
    fresh = origin.accept()
    seen = fresh.read_request()
    assert (seen.method, seen.target) == (method, "/again")
    fresh.send(answer_head(200, "Content-Length: 0"))
    assert client.read_response(method).status == 200
    retries.grows()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_post_on_a_dying_connection_gives_502(stage, origin, how):
    """The origin may have acted on it."""
    old = warm(stage)
    client = stage.connect()
    client.send(post("/once", b"body"))
    assert origin.next() is old
    old.read_request()
    (old.close if how == "close" else old.reset)()
    got = client.read_response()
    assert got.status == 502 and got.reason in ("server_closed", "server_reset")
    assert len(origin.connections) == 1


def test_unknown_methods_are_not_sent_again(stage, origin):
    old = warm(stage)
    client = stage.connect()
    client.send(get("/once", method="BREW"))
    origin.next().read_request()
    old.close()
    assert client.read_response().status == 502
    assert len(origin.connections) == 1


def test_a_request_is_sent_again_only_once(stage, origin):
    """The second connection is fresh: its death is the answer."""
    old = warm(stage)
    client = stage.connect()
    client.send(get("/again"))
    origin.next().read_request()
    old.close()
    fresh = origin.accept()
    fresh.read_request()
    fresh.close()
    got = client.read_response()
    assert (got.status, got.reason) == (502, "server_closed")


def test_sent_again_once_even_when_all_idle_connections_are_dying(stage, origin):
    """However many dead ones the pool holds, no request runs three times."""
    held = [hold(stage, "web") for _ in range(3)]
    for one in held:
        finish(*one)
    stage.weir.eventually_metric(3, "weir_upstream_connections", state="idle")
    client = stage.connect()
    client.send(get("/again"))
    tried = []
    for _ in range(2):
        tried.append(origin.asked())
        tried[-1].close()
    assert client.read_response().status == 502
    assert [one for one in origin.connections if b"/again" in one.received] == tried


def test_nothing_is_sent_again_after_the_first_byte_of_an_answer(stage, origin):
    old = warm(stage)
    client = stage.connect()
    client.send(get("/again"))
    origin.next().read_request()
    old.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    old.close()
    got = client.read_response()
    assert (got.status, got.reason) == (502, "server_closed")
    assert len(origin.connections) == 1


def test_nothing_is_sent_again_after_an_interim_answer(stage, origin):
    old = warm(stage)
    client = stage.connect()
    client.send(get("/again"))
    origin.next().read_request()
    old.send(answer_head(103, "Link: </a>"))
    assert client.read_response().status == 103
    old.close()
    assert client.read_response().status == 502
    assert len(origin.connections) == 1


def test_a_streamed_body_is_not_sent_again(stage, origin):
    """PUT may be repeated, but what has gone by is not kept."""
    old = warm(stage)
    client = stage.connect()
    client.send(post("/put", b"x" * 500000, method="PUT"))
    assert origin.next() is old
    old.read_request_head()
    old.read_exactly(300000)
    old.reset()
    got = client.read_response()
    assert (got.status, got.reason) == (502, "server_reset")
    assert len(origin.connections) == 1


def test_a_short_chunked_put_on_a_dying_connection_is_sent_again(stage, origin):
    """All of its body is still there."""
    old = warm(stage)
    client = stage.connect()
    client.send(post_chunked("/put", b"hello", method="PUT"))
    assert origin.next() is old
    old.read_request()
    old.close()
    fresh = origin.accept()
    assert fresh.read_request().body == b"hello"
    finish(client, fresh)


def test_fresh_connection_that_dies_is_not_retried(stage, origin):
    client = stage.connect()
    upstream = origin.asked_by(client, get("/once"))
    upstream.close()
    assert client.read_response().status == 502
    assert len(origin.connections) == 1


def test_connection_with_an_aborted_answer_is_not_reused(stage, origin):
    client = stage.connect()
    upstream = origin.asked_by(client, get())
    upstream.send(answer(200, b"0123456789")[:-5])
    client.read_response_head()
    client.reset()
    upstream.expect_end()
    _, got = stage.exchange(get("/next"), answer(200, b"next"))
    assert got.body == b"next" and len(origin.connections) == 2


def test_connection_with_an_early_answer_is_not_reused(stage, origin):
    """Half a request is still owed on it."""
    client = stage.connect()
    upstream = origin.asked_by(client, post("/", b"x" * 100)[:-50], whole=False)
    upstream.send(answer(403, b"no"))
    assert client.read_response().body == b"no"
    client.close()
    upstream.expect_end()
    _, got = stage.exchange(get("/next"), answer(200, b"next"))
    assert got.body == b"next" and len(origin.connections) == 2


def test_pools_of_two_workers_serve_all(new_stage):
    stage = new_stage("""
        [listener web]
        bind = @web
        upstream = app
        [upstream app]
        server = @origin
        """, workers=2)
    stage.origin.serve()
    for _ in range(60):
        client = stage.connect()
        for _ in range(3):
            assert client.ask(get()).body == b"origin"
        client.close()
    assert len(stage.origin.connections) < 20
