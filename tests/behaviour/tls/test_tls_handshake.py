"""Handshakes with clients: how they may come, fail, stall and be left."""

import ssl
import threading
import time

import pytest
from harness.bulk import Stopped
from harness.h2_client import NO_ERROR, H2Client
from harness.http1 import answer, get, post
from harness.proxy_protocol import v1, v2
from harness.tls import client_context, make_certificates
from harness.wait import eventually, readable

INI = """
[tls site]
certificate = weir.test.pem
[tls strict]
certificate = weir.test.pem
strict_sni = on
[tls guarded]
certificate = weir.test.pem
client_auth = require
ca = ca.pem
[tls lenient]
certificate = weir.test.pem
client_auth = optional
ca = ca.pem
[listener secure]
bind = @secure
tls = site
upstream = app
[listener hasty]
bind = @hasty
tls = site
upstream = app
timeout_handshake = 300ms
[listener strict]
bind = @strict
tls = strict
upstream = app
[listener guarded]
bind = @guarded
tls = guarded
upstream = app
[listener lenient]
bind = @lenient
tls = lenient
upstream = app
[upstream app]
server = @origin
"""

VERSIONS = pytest.mark.parametrize("version", [1.2, 1.3])


def failures(stage, reason):
    return stage.counter("weir_tls_handshake_failures_total", reason=reason)


def hello(stage):
    return client_hello(stage.directory)


def client_hello(directory):
    """A ClientHello as bytes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = client_context(directory)
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="weir.test").do_handshake()
    return outgoing.read()


@VERSIONS
def test_a_request_in_tls(stage, origin, version):
    label = {"version": str(version), "resumed": "no"}
    counted = stage.counter("weir_tls_handshakes_total", **label)
    client = stage.connect_tls(version=version)
    seen, got = stage.exchange(get("/a"), client=client)
    assert seen["X-Forwarded-Proto"] == "https"
    assert got.body == b"hello"
    assert counted.grown() == 1
    assert client.sock.tls.version() == f"TLSv{version}"


@VERSIONS
def test_a_handshake_that_comes_byte_by_byte(stage, version):
    client = stage.connect_tls(version=version, each_byte=True)
    assert stage.exchange(get("/a"), client=client)[1].body == b"hello"


def test_alpn_is_answered(stage):
    client = stage.connect_tls(alpn=["http/1.1"])
    assert client.sock.tls.selected_alpn_protocol() == "http/1.1"
    assert stage.exchange(get("/a"), client=client)[1].body == b"hello"


@VERSIONS
def test_a_session_is_resumed(stage, version):
    client = stage.connect_tls(version=version)
    stage.exchange(get("/a"), client=client)  # the ticket has come before the answer
    label = {"version": str(version), "resumed": "yes"}
    counted = stage.counter("weir_tls_handshakes_total", **label)
    again = stage.connect_tls(session=(client.context, client.sock.tls.session))
    assert again.sock.tls.session_reused
    assert stage.exchange(get("/a"), client=again)[1].body == b"hello"
    assert counted.grown() == 1


def test_the_ticket_comes_right_after_finished(stage):
    client = stage.connect_tls(version=1.3)
    client.sock.get()  # nothing was asked: only a ticket can come
    with pytest.raises(ssl.SSLWantReadError):
        client.sock.tls.read(1)
    assert client.sock.tls.session.has_ticket


# Failures.


@pytest.mark.parametrize("request_", [get("/"), post("/", b"x" * 9000), get("/", method="PATCH"),
                                      get("/", method="X")])
def test_plain_http_is_told_so(stage, origin, request_):
    failed = failures(stage, "tls_plain_http")
    client = stage.connect("secure")
    client.send(request_)
    got = client.read_response()
    assert (got.status, got.reason) == (400, "tls_plain_http")
    client.expect_end()
    assert origin.saw_nothing()
    failed.grows()


def test_plain_http_byte_by_byte_is_told_so(stage):
    client = stage.connect("secure")
    client.send(b"G")
    assert client.read_response().reason == "tls_plain_http"
    client.send(b"ET / HTTP/1.1\r\n\r\n")
    client.expect_end()


@pytest.mark.parametrize("nonsense", [b"\x00" * 64, b"ssh-2.0\r\n" * 4, b"\x16\x03\x01\x00\x04abcd",
                                      b"\x16\x03\x01\xff\xff" + b"x" * 2000,
                                      b"\x17\x03\x03\x00\x10" + b"d" * 16])
def test_what_is_no_tls_is_refused(stage, nonsense):
    failed = failures(stage, "tls_protocol")
    client = stage.connect("secure")
    client.send(nonsense)
    client.expect_end()
    failed.grows()


def test_nothing_in_common(stage):
    failed = failures(stage, "tls_nothing_shared")
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        stage.connect_tls(alpn=["spdy/1"])
    failed.grows()


@pytest.mark.parametrize("name", ["else.test", None])
def test_a_name_nobody_has_is_refused(stage, name):
    failed = failures(stage, "tls_unknown_name")
    client = stage.connect_tls("strict", handshake=False, server_name=name or "weir.test")
    if name is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client.sock.tls = context.wrap_bio(client.sock.incoming, client.sock.outgoing)
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        client.sock.handshake()
    failed.grows()


@VERSIONS
def test_a_client_without_its_certificate(stage, version):
    failed = failures(stage, "tls_certificate_missing")
    with pytest.raises(ssl.SSLError, match="(?i)certificate.required|handshake.failure"):
        stage.connect_tls("guarded", version=version).read_exactly(1)
    failed.grows()


@VERSIONS
def test_a_client_with_a_strange_certificate(stage, version):
    failed = failures(stage, "tls_bad_certificate")
    with pytest.raises(ssl.SSLError, match="(?i)unknown.ca"):
        stage.connect_tls("guarded", version=version, certificate="other-ca.pem").read_exactly(1)
    failed.grows()


@pytest.mark.parametrize("name", ["guarded", "lenient"])
@VERSIONS
def test_a_client_with_its_certificate(stage, name, version):
    client = stage.connect_tls(name, version=version, certificate="someone.test.pem")
    assert stage.exchange(get("/a"), client=client)[1].body == b"hello"


def test_a_certificate_may_be_optional(stage):
    client = stage.connect_tls("lenient")
    assert stage.exchange(get("/a"), client=client)[1].body == b"hello"


@VERSIONS
def test_a_client_that_does_not_trust_us(stage, version):
    failed = failures(stage, "tls_alert")
    client = stage.connect_tls(handshake=False, version=version, authority="ca.pem",
                               server_name="else.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        client.sock.handshake()
    failed.grows()
    client.sock = client.sock.sock  # what is left to see is no TLS
    client.expect_end()


# Time.


@pytest.mark.parametrize("part", ["nothing", "a byte", "half a hello", "no Finished"])
def test_a_handshake_that_stalls_is_ended(stage, part):
    failed = failures(stage, "handshake_timeout")
    began = time.monotonic()
    bytes_ = hello(stage)
    sent = {"nothing": 0, "a byte": 1, "half a hello": 100, "no Finished": len(bytes_)}[part]
    with Stopped(stage.weir):
        client = stage.connect("hasty")
        client.send(bytes_[:sent])
    client.expect_end()
    assert time.monotonic() - began >= 0.29
    failed.grows()


def test_bytes_that_come_slowly_do_not_stretch_it(stage):
    failed = failures(stage, "handshake_timeout")
    client = stage.connect("hasty")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for byte in hello(stage)[:-1]:
            client.send(bytes([byte]))
            time.sleep(0.01)
    failed.grows()


def test_a_handshake_that_is_late_sends_nothing_more(new_stage, tmp_path):
    """What a slow reader has not taken of it would keep the connection for as long as it likes."""
    make_certificates(tmp_path, "weir.test.pem")
    chain = (tmp_path / "weir.test.pem").read_text() + (tmp_path / "ca.pem").read_text() * 200
    (tmp_path / "long").write_text(chain)
    stage = new_stage(f"""
        [tls site]
        certificate = {tmp_path}/long
        [listener secure]
        bind = @secure
        tls = site
        upstream = app
        timeout_handshake = 300ms
        send_buffer = 4k
        [upstream app]
        server = @origin
        """)
    failed = failures(stage, "handshake_timeout")
    client = stage.connect("secure", recv_buffer=4096)
    client.send(client_hello(tmp_path))
    failed.grows()
    client.expect_reset()
    assert 0 < len(client.received) < 70000


def test_one_too_many_of_an_address_gets_no_handshake(new_stage):
    """Those who never finish theirs count as well, and nothing is said in clear."""
    stage = new_stage(INI.replace("bind = @secure", "bind = @secure\nmax_connections_per_ip = 2"))
    idle, halfway = stage.connect("secure"), stage.connect_tls(handshake=False)
    halfway.sock.step()
    try:
        refused = stage.connect("secure")
        refused.expect_reset()
        assert not refused.received
    except ConnectionResetError:  # that quickly
        pass
    assert stage.count("weir_listener_connections_rejected_total",
                       reason="max_connections_per_ip") == 1
    used = stage.count("weir_memory_used_bytes", pool="wire")
    idle.close()
    stage.weir.eventually_metric(used / 2, "weir_memory_used_bytes", pool="wire")
    halfway.sock.handshake()
    assert stage.exchange(get("/a"), client=halfway)[1].body == b"hello"
    assert stage.exchange(get("/b"), client=stage.connect_tls())[1].body == b"hello"


# Ends.


@pytest.mark.parametrize("size", [0, 1, 5, 100, 10000])
@pytest.mark.parametrize("way", ["fin", "reset"])
def test_clients_that_leave_inside_the_handshake(stage, size, way):
    reason = "client_closed" if way == "fin" else "client_reset"
    failed = failures(stage, reason)
    bytes_ = hello(stage)[:size]
    client = stage.connect("secure")
    client.send(bytes_)
    if size == 10000:
        client.read_exactly(1)
    if size != 0:
        # Its bytes have been seen.
        stage.weir.eventually_metric(lambda used: used > 0, "weir_memory_used_bytes", pool="wire")
    if way == "fin":
        client.half_close()
        client.expect_end()
        client.close()
    else:
        client.reset()
    if size != 0:
        failed.grows()
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="wire")
    if size == 0:
        assert failed.grown() == 0


def test_many_handshakes_at_once(stage, origin):
    origin.serve(lambda request: answer(200, request.target.encode()))
    clients = [stage.connect_tls(handshake=False) for _ in range(150)]
    for client in clients:
        client.sock.step()
    for number, client in enumerate(clients):
        client.sock.handshake()
        client.send(get(f"/{number}"))
    for number, client in enumerate(clients):
        assert client.read_response().body == f"/{number}".encode()


def test_who_is_slow_keeps_nobody_else_out(stage, origin):
    origin.serve()
    slow = [stage.connect("secure") for _ in range(100)]
    part = hello(stage)[:50]
    for client in slow:
        client.send(part)
    client = stage.connect_tls()
    assert client.ask(get()).status == 200


def test_all_places_taken_by_who_is_slow_are_given_on(new_stage):
    """More handshakes than may be under way at once, and none of them goes on: after a second the
    oldest makes room."""
    stage = new_stage(INI.replace("timeout_handshake = 300ms", "") +
                      "[defaults]\ntimeout_handshake = 60s\n", max_connections=3000)
    stage.origin.serve()
    failed, resets = failures(stage, "handshake_timeout"), failures(stage, "client_reset")
    part = hello(stage)[:50]
    slow = [stage.connect("secure") for _ in range(1030)]
    for client in slow:
        client.send(part)
    failed.grows(6)
    client = stage.connect_tls()
    assert client.ask(get()).status == 200
    failed.grows(7)
    assert resets.grown() == 0


def test_max_handshakes(new_stage):
    """One too many waits until the oldest has had its time, or is through."""
    stage = new_stage(INI.replace("timeout_handshake = 300ms", "timeout_handshake = 60s"),
                      max_handshakes=2)
    stage.origin.serve()
    failed = failures(stage, "handshake_timeout")
    text = hello(stage)
    slow = [stage.connect("hasty") for _ in range(2)]
    for client in slow:
        client.send(text[:50])
        stage.weir.eventually_metric(slow.index(client) + 1, "weir_tls_handshakes_in_flight")
    failed = failures(stage, "handshake_timeout")
    assert stage.connect_tls("hasty").ask(get()).status == 200
    assert failed.grown() == 1
    slow[0].expect_reset()
    slow[1].send(text[50:])
    slow[1].read_exactly(1)
    slow[1].reset()
    stage.weir.eventually_metric(0, "weir_tls_handshakes_in_flight")


def test_many_who_say_one_byte_keep_nobody_out(new_stage):
    """Were each given a second, the client behind them would be late by far."""
    stage = new_stage(INI.replace("timeout_handshake = 300ms", "timeout_handshake = 3s") +
                      "[defaults]\ntimeout_handshake = 60s\n", max_handshakes=4)
    stage.origin.serve()
    slow = [stage.connect("secure") for _ in range(20)]
    for client in slow:
        client.send(b"\x16")
    assert stage.connect_tls("hasty").ask(get()).status == 200
    # Which: those that came first, but what arrives together may be seen in any order.
    for _ in range(12):
        ended = readable(slow)
        assert ended, "a slow one has lost its place"
        ended[0].expect_reset()
        slow.remove(ended[0])


def test_a_proxy_header_comes_before_tls(new_stage):
    stage = new_stage("""
        [tls site]
        certificate = weir.test.pem
        [listener secure]
        bind = @secure
        tls = site
        upstream = app
        proxy_protocol = any
        trusted_proxies = 127.0.0.0/8
        [upstream app]
        server = @origin
        """)
    for header in (v1("192.0.2.7", "192.0.2.8", 1234, 443), v2("192.0.2.7", "192.0.2.8", 1, 443)):
        for together in (False, True):
            client = stage.connect_tls(handshake=False)
            raw = client.sock.sock
            if together:
                with pytest.raises(ssl.SSLWantReadError):
                    client.sock.tls.do_handshake()
                raw.sendall(header + client.sock.outgoing.read())
            else:
                raw.sendall(header)
            client.sock.handshake()
            seen, _ = stage.exchange(get("/a"), client=client)
            assert seen["X-Forwarded-For"] == "192.0.2.7"
            assert seen["X-Forwarded-Proto"] == "https"


def test_a_drain_waits_for_no_handshake(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    idle = stage.connect("secure")
    halfway = stage.connect("secure")
    halfway.send(hello(stage)[:60])
    stage.weir.eventually_metric(lambda used: used > 0, "weir_memory_used_bytes", pool="wire")
    stage.weir.signal(15)
    assert halfway.expect_end() == "reset"
    idle.expect_end()
    stage.weir.drained()


def test_a_drain_is_told_to_whose_handshake_ends_in_it(new_stage):
    stage = new_stage(INI, drain_timeout="20s")
    client = stage.connect_tls(alpn=["h2"], handshake=False)
    client.sock.step()
    assert client.sock.get()
    stage.weir.signal(15)
    eventually(lambda: b"draining" in stage.weir.admin_get("/readyz").body, "the drain")
    client.sock.handshake()
    h2 = H2Client(client)
    h2.expect_goaway(NO_ERROR)
    assert h2.goaways == [(0x7fffffff, NO_ERROR), (0, NO_ERROR)]
    assert stage.weir.wait_exit() == 0


def test_a_slow_client_that_is_gone_when_its_place_is_wanted(new_stage):
    """The first one's RST, and the hello of who gets its place, come in one turn."""
    stage = new_stage(INI, max_connections=2000)
    part = hello(stage)[:50]
    slow = [stage.connect("secure") for _ in range(1024)]
    for client in slow:
        client.send(part)
    stage.weir.eventually_metric(lambda used: used >= 1024 * 192, "weir_memory_used_bytes",
                                 pool="wire")
    next_one = stage.connect("secure")
    time.sleep(1.1)
    with Stopped(stage.weir):
        slow[0].reset()
        next_one.send(hello(stage))
    next_one.read_exactly(1)


def test_churn_leaves_nothing(stage, origin):
    """2,000 connections, a quarter of them left in the middle."""
    origin.serve()
    errors = []

    def churn(first):
        try:
            for number in range(first, first + 500):
                if number % 4 == 0:
                    client = stage.connect_tls(handshake=False)
                    client.sock.step()
                    client.reset()
                    continue
                client = stage.connect_tls(version=1.2 if number % 2 else 1.3)
                assert client.ask(get()).status == 200
                if number % 3 == 0:
                    client.sock.notify()
                client.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn, args=(at,)) for at in range(0, 2000, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="wire")
