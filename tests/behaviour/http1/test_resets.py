"""One side leaves, at each stage of an exchange: by FIN, by RST or by half-close.

The other side is told. Nothing stays behind: the leak check that follows every test looks for it.
"""

import pytest

from harness.http1 import answer, answer_chunked, answer_head, get, post, post_chunked
from harness.peer import Ended, WasReset

INI = """
[listener web]
bind = @web
upstream = app
max_body_size = 0
[upstream app]
server = @origin
"""

LEAVE = ["close", "reset", "half_close"]
CUT = ["close", "reset"]


def leave(peer, how):
    {"close": peer.close, "reset": peer.reset, "half_close": peer.half_close}[how]()


def usable(stage):
    """weir still serves, whatever it still has to do for those who left."""
    stage.origin.clear()
    stage.origin.serve(lambda request: answer(200, request.target.encode()))
    assert stage.connect().ask(get("/after")).body == b"/after"


def aborted_and_ended(stage, side, reason):
    """Two counters: who left, and why the exchange ended."""
    return stage.counter("weir_http_aborts_total", side=side), stage.ended(reason)


# The client leaves.

@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("sent",
                         [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: test\r\n\r"])
def test_client_leaves_before_its_head_is_complete(stage, client, how, sent):
    client.send(sent)
    leave(client, how)
    if how == "half_close":
        client.expect_end() if not sent else ended_with_at_most(client, 400, 408)
    usable(stage)
    assert [request.target for request in stage.origin.requests] == ["/after"]


def ended_with_at_most(client, *statuses):
    """The connection ends, after an error answer or after nothing."""
    if client.expect_end() == "fin" and client.received:
        assert int(client.received[9:12]) in statuses


@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("raw", [post("/", b"x" * 100)[:-50], post_chunked("/", b"hello")[:-5],
                                 post_chunked("/", b"hello")[:-7]],
                         ids=["length", "chunked", "chunk"])
def test_client_leaves_inside_its_body(stage, client, origin, how, raw):
    upstream = origin.asked_by(client, raw, whole=False)
    leave(client, how)
    upstream.expect_end()
    assert not upstream.saw_whole_request()
    if how == "half_close":
        ended_with_at_most(client, 400, 408)
    usable(stage)


def test_client_closes_mid_request(stage, client, origin):
    aborts, ends = aborted_and_ended(stage, "client", "client_closed")
    upstream = origin.asked_by(client, post("/", b"x" * 100)[:-50], whole=False)
    client.close()
    upstream.expect_end()
    assert not upstream.saw_whole_request()
    aborts.grows()
    ends.grows()


def test_client_resets(stage, client, origin):
    aborts, ends = aborted_and_ended(stage, "client", "client_reset")
    upstream = origin.asked_by(client, get())
    client.reset()
    upstream.expect_end()
    aborts.grows()
    ends.grows()


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_waits_for_its_last_answer_resets(stage, origin, begun):
    """It is not read any more, as no other request may come."""
    aborts, ends = aborted_and_ended(stage, "client", "client_reset")
    waiting = []
    for raw in (get("/", "Connection: close"), b"GET / HTTP/1.0\r\n\r\n", get()):
        client = stage.connect()
        upstream = origin.asked_by(client, raw)
        if raw == get():
            client.half_close()
        if begun:
            upstream.send(answer_head(200, "Content-Length: 100") + b"some")
            client.read_until(b"some")
        waiting.append((client, upstream))
    for client, _ in waiting:
        client.reset()
    for _, upstream in waiting:
        upstream.expect_end()
    aborts.grows(3)
    ends.grows(3)


def test_client_half_close_after_its_request_still_gets_the_answer(stage, client, origin):
    """FIN says no more requests, not no more interest."""
    client.send(get())
    client.half_close()
    upstream = origin.asked()
    upstream.send(answer(200, b"still here"))
    assert client.read_response().body == b"still here"
    client.expect_close()


def test_client_half_close_after_its_body_still_gets_a_long_answer(stage, client, origin):
    client.send(post("/", b"body"))
    client.half_close()
    upstream = origin.next()
    assert upstream.read_request().body == b"body"
    upstream.send(answer_chunked(*[b"x" * 5000] * 100))
    assert len(client.read_response().body) == 500000
    client.expect_close()


def test_client_half_close_gets_an_answer_that_fills_every_buffer(stage, origin):
    """A send that waits for room must also wait when the other side has sent its FIN."""
    client = stage.connect(recv_buffer=4096)
    client.send(get())
    client.half_close()
    upstream = origin.asked()
    upstream.send(answer_head(200, "Content-Length: 1000000000"))
    head = client.read_response_head()
    sent = upstream.send_until_stuck(b"0123456789abcdef" * 4096)
    assert head.status == 200
    client.widen()
    while len(client.received) < sent:
        assert client.fill(), f"cut after {len(client.received)} of {sent} bytes"


def test_client_half_close_after_pipelined_requests_gets_all_answers(stage, client, origin):
    origin.serve(lambda request: answer(200, request.target.encode()))
    client.send(get("/1") + get("/2") + get("/3"))
    client.half_close()
    assert [client.read_response().body for _ in range(3)] == [b"/1", b"/2", b"/3"]
    client.expect_close()


def test_client_half_close_between_requests_closes(stage, client):
    stage.exchange(get(), client=client)
    client.half_close()
    client.expect_close()


@pytest.mark.parametrize("how", CUT)
def test_client_is_gone_when_the_answer_comes(stage, client, origin, how):
    upstream = origin.asked_by(client, get())
    leave(client, how)
    try:
        upstream.send(answer(200, b"x" * 100000))
    except (BrokenPipeError, ConnectionResetError):
        pass
    usable(stage)


@pytest.mark.parametrize("how", CUT)
@pytest.mark.parametrize("lines",
                         [["Content-Length: 100000000"], ["Transfer-Encoding: chunked"], []],
                         ids=["length", "chunked", "until-close"])
def test_client_leaves_inside_the_answer(stage, client, origin, how, lines):
    """The origin is told, too: it need not send the rest."""
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, *lines) + b"5\r\nhello\r\n")
    client.read_response_head()
    leave(client, how)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            upstream.send(b"5\r\nhello\r\n" * 10000)
    usable(stage)


@pytest.mark.parametrize("how", CUT)
def test_client_leaves_while_its_answer_is_stuck(stage, origin, how):
    client = stage.connect(recv_buffer=4096)
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, "Content-Length: 1000000000"))
    client.read_response_head()
    upstream.send_until_stuck(b"x" * 100000)
    leave(client, how)
    upstream.expect_end()
    usable(stage)


@pytest.mark.parametrize("how", CUT)
def test_client_leaves_while_its_body_is_stuck(stage, client, origin, how):
    client.send(get("/", "Content-Length: 1000000000", method="POST"))
    upstream = origin.asked(whole=False)
    client.send_until_stuck(b"x" * 100000)
    leave(client, how)
    upstream.expect_end()
    assert not upstream.saw_whole_request()
    usable(stage)


@pytest.mark.parametrize("how", CUT)
def test_client_leaves_after_100_continue(stage, client, origin, how):
    client.send(get("/", "Content-Length: 100", "Expect: 100-continue", method="POST"))
    upstream = origin.asked(whole=False)
    upstream.send(answer_head(100))
    assert client.read_response().status == 100
    leave(client, how)
    upstream.expect_end()
    usable(stage)


@pytest.mark.parametrize("how", LEAVE)
def test_client_leaves_when_idle(stage, client, how):
    stage.exchange(get(), client=client)
    leave(client, how)
    usable(stage)


@pytest.mark.parametrize("how", CUT)
def test_client_leaves_with_requests_in_the_pipeline(stage, client, origin, how):
    client.send(get("/1") + get("/2") + get("/3"))
    upstream = origin.next()
    assert upstream.read_request().target == "/1"
    leave(client, how)
    try:
        upstream.send(answer(200, b"x" * 100))
    except (BrokenPipeError, ConnectionResetError):
        pass
    usable(stage)


# The origin leaves.

@pytest.mark.parametrize("how, reason", [("close", "server_closed"), ("reset", "server_reset"),
                                         ("half_close", "server_closed")])
@pytest.mark.parametrize("sent",
                         [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
                          answer_head(103, "Link: </a>")],
                         ids=["nothing", "a byte", "half a head", "an interim answer"])
def test_origin_leaves_before_its_head_is_complete(stage, client, origin, how, reason, sent):
    """A POST on a fresh connection: nothing may be tried again."""
    upstream = origin.asked_by(client, post("/", b"body"))
    upstream.send(sent)
    if sent.startswith(b"HTTP/1.1 103"):
        assert client.read_response().status == 103
    leave(upstream, how)
    got = client.read_response()
    assert (got.status, got.reason) == (502, reason)
    assert len(origin.connections) == 1
    usable(stage)


def test_server_closes_early(stage, client, origin):
    aborts, ends = aborted_and_ended(stage, "upstream", "server_closed")
    upstream = origin.asked_by(client, get())
    upstream.close()
    got = client.read_response()
    assert (got.status, got.reason) == (502, "server_closed")
    assert "http_response_incomplete" in got["Proxy-Status"]
    aborts.grows()
    ends.grows()


def test_server_resets(stage, client, origin):
    aborts, ends = aborted_and_ended(stage, "upstream", "server_reset")
    upstream = origin.asked_by(client, get())
    upstream.reset()
    got = client.read_response()
    assert (got.status, got.reason) == (502, "server_reset")
    assert "connection_terminated" in got["Proxy-Status"]
    aborts.grows()
    ends.grows()


@pytest.mark.parametrize("how", CUT)
def test_origin_leaves_at_accept(stage, client, origin, how):
    """Before it has read anything of a request that must not be sent twice."""
    client.send(post("/", b"body"))
    leave(origin.accept(), how)
    got = client.read_response()
    assert got.status == 502 and got.reason in ("server_closed", "server_reset")
    usable(stage)


@pytest.mark.parametrize("how", CUT)
def test_origin_leaves_inside_the_request_body(stage, client, origin, how):
    upstream = origin.asked_by(client, post("/", b"x" * 100)[:-50], whole=False)
    leave(upstream, how)
    got = client.read_response()
    assert got.status == 502 and got.reason in ("server_closed", "server_reset")
    usable(stage)


@pytest.mark.parametrize("how", CUT)
def test_origin_leaves_while_the_request_body_is_stuck(stage, client, origin, how):
    client.send(get("/", "Content-Length: 1000000000", method="POST"))
    upstream = origin.asked(whole=False)
    client.send_until_stuck(b"x" * 100000)
    leave(upstream, how)
    got = client.read_response()
    assert got.status == 502 and got.reason in ("server_closed", "server_reset")
    client.expect_end()
    usable(stage)


@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("sent", [answer(200, b"0123456789")[:-5], answer(200, b"0123456789")[:-10],
                                  answer_chunked(b"hello")[:-5], answer_chunked(b"hello")[:-2],
                                  answer_chunked(b"hello", trailers=["X-T: 1"])[:-4],
                                  answer_chunked(b"hello")[:-8]],
                         ids=["length", "no body yet", "no last chunk", "no trailer end",
                              "in trailers", "in a chunk"])
def test_origin_leaves_inside_its_answer(stage, client, origin, how, sent):
    """The client must see that the answer is cut: never a clean end."""
    upstream = origin.asked_by(client, get())
    upstream.send(sent)
    head = client.read_response_head()
    leave(upstream, how)
    with pytest.raises((Ended, WasReset)):
        client.read_body(head)
    assert len(origin.connections) == 1
    usable(stage)


def test_origin_reset_inside_a_close_delimited_answer_is_not_its_end(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200) + b"until the ")
    head = client.read_response_head()
    client.read_until(b"until the ")
    upstream.reset()
    if head.chunked:
        with pytest.raises((Ended, WasReset)):
            client.read_until(b"0\r\n\r\n")
    else:
        client.expect_reset()
    usable(stage)


@pytest.mark.parametrize("how", LEAVE)
def test_origin_leaves_when_idle(stage, client, origin, how):
    """It is noticed, and the next request takes a new connection."""
    idle = stage.counter("weir_upstream_connections", state="idle")
    stage.exchange(get(), client=client)
    idle.grows()
    leave(origin.connections[0], how)
    idle.grows(0)
    retries = stage.counter("weir_upstream_retries_total")
    _, got = stage.exchange(post("/", b"not to be sent twice"), answer(200, b"new"), client)
    assert got.body == b"new"
    assert retries.grown() == 0


@pytest.mark.parametrize("how", LEAVE)
def test_origin_leaves_right_after_its_answer(stage, client, origin, how):
    upstream = origin.asked_by(client, get())
    upstream.send(answer(200, b"bye"))
    leave(upstream, how)
    if how != "reset":
        assert client.read_response().body == b"bye"
        _, got = stage.exchange(get(), answer(200, b"new"), client)
        assert got.body == b"new"
    else:
        # RST may overtake the answer in the kernel: then it is a lost answer, told as such.
        assert client.read_response().status in (200, 502)


def test_both_sides_leave_at_once(stage, origin):
    for how in CUT:
        for _ in range(20):
            client = stage.connect()
            upstream = origin.asked_by(client, post("/", b"x" * 1000)[:-500], whole=False)
            leave(client, how)
            leave(upstream, how)
            origin.connections.remove(upstream)
    usable(stage)
