"""TLS to servers: who is believed, what is resumed, how they fail and end."""

import contextlib
import ctypes
import time

import pytest
from harness.bulk import MUCH, Sending
from harness.h2_server import H2Server
from harness.http1 import answer, answer_head, get, post
from harness.tls import TO_ORIGIN, TlsSocket, server_context
from harness.wait import eventually

INI = f"""
[defaults]
max_body_size = 0
min_read_rate = 0
timeout_handshake = 900ms
[tls site]
certificate = weir.test.pem
[listener patient]
bind = @patient
timeout_handshake = 300ms
upstream = patient
[upstream patient]
server = @origin
{TO_ORIGIN}
timeout_handshake = 1500ms
[listener web]
bind = @web
upstream = app
[listener both]
bind = @both
tls = site
upstream = app
[listener tcp]
bind = @tcp
mode = tcp
upstream = app
[listener named]
bind = @named
upstream = named
[listener strange]
bind = @strange
upstream = strange
[listener unasked]
bind = @unasked
upstream = unasked
[listener second]
bind = @second
upstream = second
[listener told]
bind = @told
upstream = told
[listener known]
bind = @known
upstream = known
[listener h2]
bind = @h2
upstream = h2
[listener without]
bind = @without
tls = site
alpn = http/1.1
upstream = app
[listener refused]
bind = @refused
upstream = refused
[listener refused_first]
bind = @refused_first
upstream = refused_first
[upstream h2]
protocol = h2
server = @origintls
{TO_ORIGIN}
[upstream refused]
protocol = h2
server = @without
tls = on
verify = off
[upstream refused_first]
protocol = h2
balance = first
server = @without
server = @origintls
tls = on
verify = off
[upstream app]
server = @origintls
{TO_ORIGIN}
[upstream named]
server = @origintls
tls = on
ca = ca.pem
server_name = else.test
[upstream strange]
server = @origintls
tls = on
ca = other-ca.pem
server_name = origin.test
[upstream unasked]
server = @origintls
tls = on
verify = off
[upstream second]
balance = first
server = @origin
server = @origintls
{TO_ORIGIN}
[upstream told]
server = @origin
{TO_ORIGIN}
send_proxy = v1
[upstream known]
server = @origintls
{TO_ORIGIN}
certificate = someone.test.pem
; names the certificate of @origintls: origin.test.pem
"""


@pytest.fixture
def server(stage):
    return stage.origins["origintls"]


def handshakes(stage, **labels):
    return stage.counter("weir_upstream_tls_handshakes_total", **labels)


def failures(stage, reason):
    return stage.counter("weir_upstream_connect_failures_total", reason=reason)


@contextlib.contextmanager
def speaking(server, context):
    """The origin with another context of TLS; None: it does not speak it."""
    kept, server.tls = server.tls, context and (lambda: context)
    try:
        yield
    finally:
        server.tls = kept


def test_a_request_goes_on_in_tls(stage, server):
    client = stage.connect()
    counted = handshakes(stage)
    for number in range(3):
        client.send(get(f"/{number}"))
        upstream = server.next()
        seen = upstream.read_request()
        assert (seen.target, seen["X-Forwarded-Proto"]) == (f"/{number}", "http")
        upstream.send(answer(200, b"from tls"))
        assert client.read_response().body == b"from tls"
    assert len(server.connections) == 1
    assert counted.grown() == 1


def test_the_server_is_asked_for_by_its_name(stage, server):
    names = []
    context = server_context(stage.directory)
    context.sni_callback = lambda tls, name, used: names.append(name)
    with speaking(server, context):
        client = stage.connect()
        upstream = server.asked_by(client, get())
        upstream.send(answer())
        client.read_response()
    assert names == ["origin.test"]


@pytest.mark.parametrize("version", [1.2, 1.3])
def test_a_session_is_resumed(stage, server, version):
    context = server_context(stage.directory, version=version)
    with speaking(server, context):
        for number in range(4):
            client = stage.connect()
            upstream = server.asked_by(client, get())
            upstream.send(answer(200, b"x", "Connection: close"))
            client.read_response()
            upstream.expect_close()
            assert upstream.sock.notified
            upstream.close()
            stage.weir.eventually_metric(0, "weir_upstream_connections")
            if number == 0:
                resumed = handshakes(stage, resumed="yes")
        assert resumed.grown() == 3


def test_long_bodies_both_ways_in_tls_on_both_sides(stage, server):
    client = stage.connect_tls("both")
    sending = Sending(client, post("/", MUCH))
    upstream = server.next()
    upstream.read_request_head()
    assert upstream.read_exactly(len(MUCH)) == MUCH
    sending.done()
    back = Sending(upstream, answer(200, MUCH))
    assert client.read_response().body == MUCH
    back.done()


def test_bytes_of_a_tunnel(stage, server):
    client = stage.connect("tcp")
    client.send(b"question")
    upstream = server.next()
    upstream.expect(b"question")
    sending = Sending(upstream, MUCH)
    assert client.read_exactly(len(MUCH)) == MUCH
    sending.done()
    client.half_close()
    assert upstream.read_to_end() == b"" and upstream.sock.notified
    upstream.send(b"last")
    upstream.half_close()
    assert client.read_to_end() == b"last"


# Who is believed.


def failed(stage, name, server, reason, status=502):
    counted = failures(stage, reason)
    client = stage.connect(name)
    client.send(get())
    upstream = server.accept()
    got = client.read_response()
    assert (got.status, got.reason) == (status, reason)
    assert not upstream.received
    counted.grows()
    return upstream


@pytest.mark.parametrize("name", ["named", "strange"])
def test_a_server_with_another_name(stage, server, name):
    upstream = failed(stage, name, server, "tls_bad_certificate")
    if not upstream.error:
        upstream.expect_end()


def test_a_server_that_is_not_asked_who_it_is(stage, server):
    server.serve()
    assert stage.connect("unasked").ask(get()).status == 200


def test_a_server_that_wants_a_certificate(stage, server):
    context = server_context(stage.directory, authority="ca.pem")
    with speaking(server, context):
        client = stage.connect("known")
        upstream = server.asked_by(client, get())
        subject = dict(pair[0] for pair in upstream.sock.tls.getpeercert()["subject"])
        assert subject["commonName"] == "someone.test"
        upstream.send(answer())
        assert client.read_response().status == 200


def test_a_server_that_ends_with_an_alert(stage, server):
    context = server_context(stage.directory, version=1.2)
    context.set_ciphers("DHE-RSA-AES128-GCM-SHA256")  # nothing for its kind of key
    with speaking(server, context):
        failed(stage, "web", server, "tls_alert")


# HTTP/2 that is not agreed on.


KEPT = []  # what OpenSSL calls


def insists(context, name):
    """A server that chooses that protocol by ALPN, whatever it was offered: RFC 7301 section 3.2
    forbids it, and Python has no word for it (SSL_CTX_set_alpn_select_cb(3))."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p),
                            ctypes.POINTER(ctypes.c_ubyte), ctypes.c_void_p, ctypes.c_uint,
                            ctypes.c_void_p)

    @kind
    def choose(_, chosen, size, *offered):
        chosen[0], size[0] = name, len(name)
        return 0  # SSL_TLSEXT_ERR_OK

    inside = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    library = ctypes.CDLL("libssl.so.3")
    library.SSL_CTX_set_alpn_select_cb.argtypes = [ctypes.c_void_p, kind, ctypes.c_void_p]
    library.SSL_CTX_set_alpn_select_cb(inside, choose, None)
    KEPT.append(choose)
    return context


def test_a_server_that_chooses_another_protocol(stage, server):
    with speaking(server, insists(server_context(stage.directory), b"http/1.1")):
        upstream = failed(stage, "h2", server, "tls_alpn_refused")
        assert upstream.sock.tls.selected_alpn_protocol() == "http/1.1"
        upstream.expect_end()
    stage.weir.says("cannot connect: the server takes no HTTP/2 over TLS")


def test_a_server_that_refuses_what_is_offered(stage):
    """By an alert, as nginx and weir do: here it is another listener of this weir."""
    counted = failures(stage, "tls_alpn_refused")
    got = stage.connect("refused").ask(get())
    assert (got.status, got.reason) == (502, "tls_alpn_refused")
    counted.grows()


def test_a_server_without_h2_is_a_connect_failure_and_the_next_is_tried(stage, server):
    client = stage.connect("refused_first")
    client.send(get("/next"))
    h2 = H2Server(server.accept())
    h2.answer(h2.next_request(), 200, b"from the next")
    assert client.read_response().body == b"from the next"


def test_a_server_that_knows_no_alpn_is_believed_to_speak_h2(stage, server):
    """As with HAProxy's `proto h2`: the file says so."""
    with speaking(server, server_context(stage.directory)):
        client = stage.connect("h2")
        client.send(get())
        h2 = H2Server(server.accept())
        h2.answer(h2.next_request(), 200, b"as said")
        assert client.read_response().body == b"as said"


# What is no TLS.


def test_a_server_that_speaks_in_clear(stage, server):
    with speaking(server, None):
        counted = failures(stage, "tls_protocol")
        client = stage.connect()
        client.send(get())
        upstream = server.accept()
        upstream.read_exactly(10)
        upstream.send(answer(400, b"a TLS hello?"))
        got = client.read_response()
        assert (got.status, got.reason) == (502, "tls_protocol")
        counted.grows()
        upstream.expect_end()


@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_server_that_leaves_inside_the_handshake(stage, server, way):
    reason = "server_closed" if way == "close" else "server_reset"
    with speaking(server, None):
        counted = failures(stage, reason)
        client = stage.connect()
        client.send(get())
        upstream = server.accept()
        upstream.read_exactly(100)
        upstream.look()
        if way == "close":
            upstream.half_close()
        else:
            upstream.reset()
        got = client.read_response()
        assert (got.status, got.reason) == (502, reason)
        counted.grows()


def test_a_server_that_stalls(stage, server):
    with speaking(server, None):
        counted = failures(stage, "handshake_timeout")
        began = time.monotonic()
        client = stage.connect()
        client.send(get())
        upstream = server.accept()
        got = client.read_response()
        assert (got.status, got.reason) == (504, "handshake_timeout")
        assert time.monotonic() - began >= 0.89
        counted.grows()
        upstream.expect_end()


def test_an_upstream_may_have_a_time_of_its_own(stage, origin):
    """[defaults] has less: then it would end before."""
    began = time.monotonic()
    client = stage.connect("patient")
    client.send(get())
    upstream = origin.accept()
    upstream.read_exactly(100)
    got = client.read_response()
    assert (got.status, got.reason) == (504, "handshake_timeout")
    assert time.monotonic() - began >= 1.49
    upstream.expect_end()


def test_the_next_server_is_tried(stage, origin, server):
    client = stage.connect("second")
    client.send(get())
    first = origin.accept()
    first.read_exactly(100)
    first.send(b"no TLS here\r\n\r\n")
    upstream = server.asked()
    upstream.send(answer(200, b"second"))
    assert client.read_response().body == b"second"


def test_a_proxy_header_goes_first_in_clear(stage, origin):
    origin_tls = server_context(stage.directory)
    client = stage.connect("told")
    client.send(get("/told"))
    upstream = origin.accept()
    line = upstream.read_until(b"\r\n")
    assert line.startswith(b"PROXY TCP4 127.0.0.1 ")
    raw, upstream.sock = upstream.sock, TlsSocket(upstream.sock, origin_tls, server_side=True)
    upstream.sock.incoming.write(upstream.take(len(upstream.buffered)))
    upstream.sock.handshake()
    assert upstream.read_request().target == "/told"
    upstream.send(answer(200, b"told"))
    assert client.read_response().body == b"told"
    assert raw is upstream.sock.sock


# Ends of answers.


def until_close(stage, server, name="web"):
    client = stage.connect(name)
    upstream = server.asked_by(client, get())
    upstream.send(answer_head(200) + b"some of it")
    assert client.read_response_head().status == 200
    assert client.read_chunk() == b"some of it"
    return client, upstream


def test_an_answer_that_ends_with_notice_is_whole(stage, server):
    client, upstream = until_close(stage, server)
    upstream.half_close()
    assert client.read_chunk() == b""


def test_an_answer_that_ends_without_notice_is_cut(stage, server):
    client, upstream = until_close(stage, server)
    upstream.sock.sock.shutdown(1)
    eventually(lambda: client.look() or client.ended, "the answer ended")
    assert b"0\r\n" not in client.buffered
    stage.weir.eventually_metric(lambda count: count > 0, "weir_http_exchanges_ended_total",
                                 reason="server_closed")


def test_an_answer_of_known_length_needs_no_notice(stage, server):
    client = stage.connect()
    upstream = server.asked_by(client, get())
    upstream.send(answer(200, b"all of it"))
    upstream.sock.sock.shutdown(1)
    assert client.read_response().body == b"all of it"
    assert client.has_nothing()


def test_a_tunnel_that_ends_without_notice_is_reset(stage, server):
    client = stage.connect("tcp")
    client.send(b"x")
    upstream = server.next()
    upstream.expect(b"x")
    upstream.sock.sock.shutdown(1)
    client.expect_reset()


def test_idle_connections_are_closed_with_notice_in_a_drain(new_stage):
    stage = new_stage("""
        [listener web]
        bind = @web
        upstream = app
        [upstream app]
        server = @origintls
        tls = on
        verify = off
        ; origin.test.pem
        """, drain_timeout="60s")
    server = stage.origins["origintls"]
    client = stage.connect()
    upstream = server.asked_by(client, get())
    upstream.send(answer())
    client.read_response()
    client.close()
    stage.weir.signal(15)
    upstream.expect_close()
    assert upstream.sock.notified
    stage.weir.drained()
