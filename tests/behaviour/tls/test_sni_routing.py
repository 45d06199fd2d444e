"""Routes by the name in a ClientHello, on listeners that leave TLS to the server."""

import ssl
import time

import pytest

from harness.http1 import get
from harness.wait import readable

INI = """
[listener pass]
bind = @pass
mode = tcp
upstream = rest
[listener hasty]
bind = @hasty
mode = tcp
upstream = rest
timeout_handshake = 300ms
[listener only]
bind = @only
mode = tcp
[listener plain]
bind = @plain
mode = tcp
upstream = rest
[route one]
listener = pass only hasty
sni = a.example
upstream = one
[route more]
listener = pass
sni = *.b.example c.example
upstream = more
[route back]
listener = pass
sni = echo.example
service = echo
[route split]
listener = pass
sni = split.example
upstream = one 60, more 40
[route hole]
listener = pass
sni = hole.example
upstream = hole
[upstream hole]
server = @hole
timeout_connect = 60s
[service echo]
type = echo
[upstream one]
server = @origin_a
[upstream more]
server = @origin_b
[upstream rest]
server = @origin
"""


def hello(name, version=None):
    """A ClientHello as OpenSSL writes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("the handshake was done before it began")


def in_records(data, size):
    """The same message in records of at most `size` bytes."""
    message = data[5:]
    pieces = [message[at:at + size] for at in range(0, len(message), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def assert_arrives(stage, data, origin, listener="pass", by_bytes=False):
    client = stage.connect(listener)
    if by_bytes:
        client.send_each_byte(data)
    else:
        client.send(data)
    upstream = stage.origins[origin].accept()
    upstream.expect(data)
    upstream.send(b"answer")
    client.expect(b"answer")
    client.send(b"more")
    upstream.expect(b"more")
    return client, upstream


def test_the_name_decides_and_every_byte_arrives(stage):
    assert_arrives(stage, hello("a.example"), "origin_a")
    assert_arrives(stage, hello("x.b.example"), "origin_b")
    assert_arrives(stage, hello("x.y.b.example"), "origin_b")
    assert_arrives(stage, hello("c.example"), "origin_b")
    assert_arrives(stage, hello("a.example", ssl.TLSVersion.TLSv1_2), "origin_a")
    assert_arrives(stage, hello("A.EXAMPLE"), "origin_a")


def test_other_names_and_none_go_to_the_listeners_own_upstream(stage):
    assert_arrives(stage, hello("b.example"), "origin")
    assert_arrives(stage, hello("other.example"), "origin")
    assert_arrives(stage, hello(None), "origin")


def test_a_route_may_split_its_connections(stage):
    socks = {stage.origins[name].sock: name for name in ("origin_a", "origin_b")}
    text, taken = hello("split.example"), []
    for _ in range(100):
        stage.connect("pass").send(text)
        for sock in readable(socks):
            taken.append(socks[sock])
            stage.origins[taken[-1]].accept().expect(text)
    assert len(taken) == 100
    assert 15 <= taken.count("origin_b") <= 65


def test_what_is_not_tls_goes_to_the_listeners_own_upstream(stage):
    assert_arrives(stage, get("/"), "origin")
    assert_arrives(stage, b"\x00", "origin")


def test_a_hello_may_come_byte_by_byte_and_in_many_records(stage):
    assert_arrives(stage, hello("a.example"), "origin_a", by_bytes=True)
    assert_arrives(stage, in_records(hello("a.example"), 60), "origin_a")
    assert_arrives(stage, in_records(hello("x.b.example"), 9), "origin_b", by_bytes=True)


def test_what_follows_the_hello_waits_for_the_server(stage):
    data = hello("a.example") + b"early" * 1000
    assert_arrives(stage, data, "origin_a")


def test_a_long_beginning_that_never_becomes_a_hello(stage):
    # Records of one byte each: over a receive buffer before the name could come.
    data = in_records(hello("a.example"), 1)[:6] + b"\x16\x03\x01\x00\x01\x00" * 3000
    client = stage.connect("pass")
    client.send(data)
    upstream = stage.origins["origin"].accept()
    upstream.expect(data)
    client.close()


def test_a_service_can_be_chosen(stage):
    client = stage.connect("pass")
    data = hello("echo.example")
    client.send(data)
    client.expect(data)


def test_without_a_match_and_an_upstream_it_is_reset(stage):
    counted = stage.relays_ended("no_route")
    assert_arrives(stage, hello("a.example"), "origin_a", listener="only")
    for data in (hello("b.example"), hello(None), get("/")):
        client = stage.connect("only")
        client.send(data)
        client.expect_reset()
    counted.grows(3)


def test_a_half_close_behind_the_hello_arrives(stage):
    data = hello("a.example")
    client = stage.connect("pass")
    client.send(data)
    client.half_close()
    upstream = stage.origins["origin_a"].accept()
    assert upstream.read_to_end() == data
    upstream.send(b"late")
    upstream.half_close()
    assert client.read_to_end() == b"late"


def test_an_end_inside_the_hello_is_passed_on(stage):
    data = hello("a.example")[:100]
    client = stage.connect("pass")
    client.send(data)
    client.half_close()
    upstream = stage.origins["origin"].accept()
    assert upstream.read_to_end() == data
    upstream.half_close()
    client.expect_close()


def test_a_hello_that_does_not_come_ends_the_connection(stage):
    counted = stage.relays_ended("hello_timeout")
    silent = stage.connect("hasty")
    halfway = stage.connect("hasty")
    halfway.send(hello("a.example")[:100])
    for client in (silent, halfway):
        client.expect_reset()
    counted.grows(2)
    assert stage.origins["origin_a"].accept_now() is None
    # Where no route asks for a name nothing is waited for.
    client = stage.connect("plain")
    upstream = stage.origins["origin"].accept()
    upstream.send(b"first")
    client.expect(b"first")


def test_a_client_that_resets_inside_its_hello(stage):
    counted = stage.relays_ended("client_reset")
    client = stage.connect("pass")
    client.send(hello("a.example")[:50])
    client.reset()
    counted.grows()


@pytest.mark.parametrize("fin", [False, True])
def test_a_client_that_resets_behind_its_hello_ends_the_connect(stage, fin):
    """The hello took its time; what it was is not read again."""
    ends = stage.relays_ended("client_reset")
    client = stage.connect("pass")
    data = hello("hole.example")
    client.send(data[:100])
    time.sleep(1.2)  # the client's pace
    client.send(data[100:])
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="connecting")
    if fin:
        client.half_close()
        stage.has_read()
    client.reset()
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="connecting")
    ends.grows()


def test_a_server_that_refuses_resets_the_client(new_stage):
    stage = new_stage("""
[listener pass]
bind = @pass
mode = tcp
[route one]
listener = pass
sni = a.example
upstream = one
[upstream one]
server = @dead
""")
    client = stage.connect("pass")
    client.send(hello("a.example"))
    client.expect_reset()
