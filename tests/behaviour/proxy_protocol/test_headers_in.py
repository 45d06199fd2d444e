"""proxy_protocol: the header is read, however it comes; its address is the client's; what is no
header is never a request."""

import contextlib
import fcntl
import struct
import termios
import time

import pytest

from harness import proxy_protocol as pp
from harness.http1 import answer, get, post
from harness.programs import connect, haproxy
from harness.stage import WEB
from harness.wait import eventually
from harness.weir import Port

TIMEOUT_S = 0.3
EARLY_S = 0.02  # the worker's clock is read once a turn

INI = """
[defaults]
timeout_handshake = 5s
[listener any]
bind = @any @port6 @unix
upstream = app
proxy_protocol = any
trusted_proxies = 127.0.0.1 ::1, unix:
[listener v1]
bind = @v1
upstream = app
proxy_protocol = v1
trusted_proxies = 127.0.0.0/8
[listener v2]
bind = @v2
upstream = app
proxy_protocol = v2
trusted_proxies = 0.0.0.0/0 ::/0
[listener short]
bind = @short
upstream = app
proxy_protocol = any
trusted_proxies = 127.0.0.1
timeout_handshake = 300ms
[listener hash]
bind = @hash
upstream = hash
proxy_protocol = any
trusted_proxies = 127.0.0.1
[route port]
path = /facts
respond = 200 $client_ip $client_port
[upstream app]
server = @origin
[upstream hash]
server = @origin
server = @origin_b
server = @origin_c
balance = source_ip
"""

REJECTED = "weir_listener_connections_rejected_total"
V6 = {"source": "2001:db8::7", "destination": "2001:db8::1"}
LONG = pp.tlv(pp.NOOP, bytes(1460 - 28 - 3))  # up to the longest header taken

# A header, and whom it tells of.
HEADERS = {
    "v1": (pp.v1(), "203.0.113.9", 4711),
    "v1-ports-at-their-edges": (pp.v1(source_port=65535, destination_port=0), "203.0.113.9", 65535),
    "v1-longest-v4": (pp.v1("255.255.255.255", "255.255.255.255", 65535, 65535),
                      "255.255.255.255", 65535),
    "v1-v6": (pp.v1(**V6), "2001:db8::7", 4711),
    "v1-longest-v6": (pp.v1("2001:0db8:1111:2222:3333:4444:5555:6666",
                            "2001:0db8:1111:2222:3333:4444:5555:6666", 65535, 65535),
                      "2001:db8:1111:2222:3333:4444:5555:6666", 65535),
    "v2": (pp.v2(), "203.0.113.9", 4711),
    "v2-v6": (pp.v2(**V6), "2001:db8::7", 4711),
    "v2-mapped": (pp.v2("::ffff:203.0.113.9", "::1"), "203.0.113.9", 4711),
    "v2-tlvs": (pp.v2(tlvs=pp.tlv(0x01, b"h2") + pp.tlv(0xe0, b"") + pp.tlv(pp.SSL, bytes(60))),
                "203.0.113.9", 4711),
    "v2-longest": (pp.v2(tlvs=LONG), "203.0.113.9", 4711),
    "v2-crc": (pp.with_crc(), "203.0.113.9", 4711),
    "v2-crc-between": (pp.with_crc(pp.tlv(2, b"name"), pp.tlv(pp.NOOP, bytes(9)), **V6),
                       "2001:db8::7", 4711),
    "v2-unix": (pp.v2_raw(pp.PROXY, pp.UNIX, bytes(216)), "unix", None),
}
# They tell of nobody: the socket's own address holds.
OF_NOBODY = {
    "v1-unknown": b"PROXY UNKNOWN\r\n",
    "v1-unknown-with-addresses": pp.v1(family="UNKNOWN"),
    "v1-unknown-longest": b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
    "v2-local": pp.v2_raw(pp.LOCAL, pp.UNSPEC, b""),
    "v2-local-with-addresses": pp.v2_raw(pp.LOCAL, pp.TCP4, bytes(12)),
    "v2-local-of-no-family": pp.v2_raw(pp.LOCAL, 0xff, b"rubbish"),
    "v2-unspec": pp.v2_raw(pp.PROXY, pp.UNSPEC, b"rubbish"),
    "v2-udp": pp.v2_raw(pp.PROXY, pp.UDP4, bytes(12)),
}
MALFORMED = {
    "request": get("/"),
    "byte": b"X",
    "nul": b"\0",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "lower-case": b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "no-space": b"PROXYTCP4 ",
    "v1-no-family": b"PROXY \r\n",
    "v1-family": b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1-two-spaces": b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
    "v1-space-at-end": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
    "v1-field-too-many": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
    "v1-field-missing": b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    "v1-port-too-large": pp.v1(source_port=65536),
    "v1-port-zeros": b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
    "v1-port-empty": b"PROXY TCP4 1.2.3.4 1.2.3.4  2\r\n",
    "v1-port-sign": b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
    "v1-v6-as-tcp4": pp.v1(**V6, family="TCP4"),
    "v1-v4-as-tcp6": pp.v1(family="TCP6"),
    "v1-address-zeros": pp.v1("203.0.113.09"),
    "v1-address-name": pp.v1("localhost"),
    "v1-address-scope": pp.v1("fe80::1%lo", "::1"),
    "v1-bare-lf": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
    "v1-bare-cr": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rG",
    "v1-lf-in-unknown": b"PROXY UNKNOWN \n\r\n",
    "v1-too-long": b"PROXY UNKNOWN " + b"x" * 93,
    "v1-too-long-by-one": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v2-command": pp.v2_raw(0x22, pp.TCP4, bytes(12)),
    "v2-family": pp.v2_raw(pp.PROXY, 0x41, bytes(216)),
    "v2-transport": pp.v2_raw(pp.PROXY, 0x13, bytes(12)),
    "v2-short-v4": pp.v2_raw(pp.PROXY, pp.TCP4, bytes(11)),
    "v2-short-v6": pp.v2_raw(pp.PROXY, pp.TCP6, bytes(35)),
    "v2-short-unix": pp.v2_raw(pp.PROXY, pp.UNIX, bytes(215)),
    "v2-too-long": pp.v2(tlvs=pp.tlv(pp.NOOP, bytes(1460 - 28 - 2)))[:16],
    "v2-longest-of-all": pp.SIGNATURE + b"\x21\x11\xff\xff",
    "v2-tlv-head-cut": pp.v2(tlvs=b"\4\0"),
    "v2-tlv-value-cut": pp.v2(tlvs=b"\4\0\3ab"),
    "v2-crc": pp.with_crc(wrong=1),
    "v2-crc-size": pp.v2(tlvs=pp.tlv(pp.CRC32C, bytes(3))),
    "v2-crc-twice": pp.with_crc(before=pp.tlv(pp.CRC32C, bytes(4))),
    "v2-signature": pp.SIGNATURE[:-1] + b"\r",
}


def shares(stage, client, target="/"):
    """Reads the request that has come, and answers; gives X-Forwarded-For as the origin saw it."""
    upstream = stage.origin.next()
    request = upstream.read_request()
    assert request.target == target
    upstream.send(answer(200, b"hello"))
    assert client.read_response().body == b"hello"
    return request["X-Forwarded-For"]


def rejected(stage, reason):
    return stage.count(REJECTED, reason=reason)


@contextlib.contextmanager
def rejects(stage, reason, by=1):
    before = rejected(stage, reason)
    all_before = rejected_in_all(stage)
    yield
    stage.weir.eventually_metric(before + by, REJECTED, reason=reason)
    assert rejected_in_all(stage) == all_before + by, "and for no other reason"
    assert stage.origin.saw_nothing()


def resets(client, send):
    """The reset may come while bytes are still being sent: the send is told of it then."""
    try:
        send()
    except ConnectionResetError:
        return
    client.expect_reset()


def rejected_in_all(stage):
    return stage.count(REJECTED)


def forwarded(text):
    return "unknown" if text == "unix" else text


@pytest.mark.parametrize("name", HEADERS)
def test_the_carried_address_is_the_clients(stage, name):
    header, ip, port = HEADERS[name]
    client = stage.connect("any")
    client.send(header)
    client.send(get("/"))
    assert shares(stage, client) == forwarded(ip)
    client.send(get("/facts"))
    assert client.read_response().body.decode() == f"{ip} {port or ''}"
    client.send(get("/again"))
    assert shares(stage, client, "/again") == forwarded(ip), "for all requests of the connection"


@pytest.mark.parametrize("name", [*HEADERS, *OF_NOBODY])
def test_header_and_request_in_one_packet(stage, name):
    header, ip, _ = HEADERS.get(name) or (OF_NOBODY[name], "127.0.0.1", None)
    client = stage.connect("any")
    client.send(header + get("/"))
    assert shares(stage, client) == forwarded(ip)


@pytest.mark.parametrize("name", [*HEADERS, *OF_NOBODY])
def test_header_and_request_byte_by_byte(stage, name):
    header, ip, _ = HEADERS.get(name) or (OF_NOBODY[name], "127.0.0.1", None)
    client = stage.connect("any")
    client.send_each_byte(header + get("/"))
    assert shares(stage, client) == forwarded(ip)


@pytest.mark.parametrize("header", [pp.v1(), pp.v2(), pp.with_crc()], ids=["v1", "v2", "crc"])
def test_header_and_request_split_anywhere(stage, header):
    whole = header + get("/")
    for at in range(1, len(header) + 3):
        client = stage.connect("any")
        client.send(whole[:at])
        stage.has_read()
        client.send(whole[at:])
        assert shares(stage, client) == "203.0.113.9"
        client.close()


def test_a_body_behind_the_header_comes_through_whole(stage):
    body = bytes(range(256)) * 800
    client = stage.connect("any")
    client.send(pp.v2() + post("/", body))
    upstream = stage.origin.next()
    assert upstream.read_request().body == body
    upstream.send(answer(200))
    assert client.read_response().status == 200


def test_pipelined_requests_behind_the_header_are_answered_in_order(stage):
    client = stage.connect("any")
    client.send(pp.v1() + get("/1") + get("/2"))
    for target in ("/1", "/2"):
        assert shares(stage, client, target) == "203.0.113.9"


def test_a_half_close_behind_header_and_request(stage):
    client = stage.connect("any")
    client.send(pp.v2() + get("/"))
    client.half_close()
    assert shares(stage, client) == "203.0.113.9"
    client.expect_close()


@pytest.mark.parametrize("name", OF_NOBODY)
def test_without_an_address_the_sockets_own_holds(stage, name):
    client = stage.connect("any")
    client.send(OF_NOBODY[name] + get("/facts"))
    port = client.sock.getsockname()[1]
    assert client.read_response().body.decode() == f"127.0.0.1 {port}"


@pytest.mark.parametrize("name", ["port6", "unix"])
def test_over_ipv6_and_unix_sockets(stage, name):
    client = stage.connect(name)
    client.send(pp.v2(**V6) + get("/"))
    assert shares(stage, client) == "2001:db8::7"


@pytest.mark.parametrize("name, header", [("v1", pp.v1()), ("v2", pp.v2())])
def test_its_own_version_is_taken(stage, name, header):
    client = stage.connect(name)
    client.send(header + get("/"))
    assert shares(stage, client) == "203.0.113.9"


@pytest.mark.parametrize("name, header", [
    ("v1", pp.v2()), ("v2", pp.v1()), ("any", pp.v2_raw(0x31, pp.TCP4, bytes(12))),
    ("v2", pp.v2_raw(0x11, pp.TCP4, bytes(12)))], ids=["v2-of-v1", "v1-of-v2", "v3", "v1-binary"])
def test_other_versions_are_rejected(stage, name, header):
    with rejects(stage, "proxy_header_version"):
        client = stage.connect(name)
        client.send(header + get("/"))
        client.expect_reset()
        assert client.received == b""


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_headers_are_rejected(stage, name):
    with rejects(stage, "proxy_header_malformed"):
        client = stage.connect("any")
        client.send(MALFORMED[name])
        client.expect_reset()
        assert client.received == b""


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_headers_byte_by_byte(stage, name):
    with rejects(stage, "proxy_header_malformed"):
        client = stage.connect("any")
        resets(client, lambda: client.send_each_byte(MALFORMED[name]))
        assert client.received == b""


def test_a_second_header_is_no_request(stage):
    client = stage.connect("any")
    client.send(pp.v1() + pp.v1() + get("/"))
    assert client.read_response().status == 400
    client.expect_end()
    assert stage.origin.saw_nothing()


@pytest.mark.parametrize("start", [b"", b"P", pp.v1()[:-1], pp.v2()[:5], pp.v2()[:-1]],
                         ids=["nothing", "byte", "v1", "v2-signature", "v2"])
def test_a_header_that_does_not_come_is_rejected(stage, start):
    with rejects(stage, "proxy_header_timeout"):
        began = time.monotonic()
        client = stage.connect("short")
        client.send(start)
        client.expect_reset()
        assert time.monotonic() - began >= TIMEOUT_S - EARLY_S, "before its time"
        assert client.received == b""


def test_bytes_do_not_put_the_timeout_off(stage):
    with rejects(stage, "proxy_header_timeout"):
        client = stage.connect("short")

        def send():
            for byte in pp.v1(**V6):
                client.send(bytes([byte]))
                time.sleep(0.03)  # the pause of a slow peer

        resets(client, send)


def test_the_timeout_is_the_headers_alone(stage):
    client = stage.connect("short")
    client.send(pp.v1())
    time.sleep(TIMEOUT_S + 0.1)  # a peer that is idle after its header
    client.send(get("/"))
    assert shares(stage, client) == "203.0.113.9"


@pytest.mark.parametrize("sent", [b"", pp.v1("127.0.0.1") + get("/")], ids=["nothing", "header"])
def test_an_untrusted_address_is_rejected(stage, sent):
    with rejects(stage, "proxy_untrusted"):
        try:
            client = stage.connect("any", source="127.0.0.2")
        except ConnectionResetError:
            return  # that soon
        resets(client, lambda: client.send(sent))


def test_trust_is_each_listeners_own(stage):
    client = stage.connect("v1", source="127.0.0.2")
    client.send(pp.v1() + get("/"))
    assert shares(stage, client) == "203.0.113.9"


def test_what_ends_within_the_header_is_counted(stage):
    with rejects(stage, "client_closed"):
        client = stage.connect("any")
        client.send(pp.v2()[:20])
        client.half_close()
        client.expect_end()
    with rejects(stage, "client_reset"):
        client = stage.connect("any")
        client.send(pp.v2()[:20])
        stage.weir.eventually_metric(lambda n: n > 0, "weir_memory_used_bytes", pool="pp_gate")
        eventually(lambda: unread(client) == 0, "weir has read the bytes")
        client.reset()


def unread(client):
    """Bytes of a client that weir has not acknowledged."""
    return struct.unpack("i", fcntl.ioctl(client.sock, termios.TIOCOUTQ, bytes(4)))[0]


def test_a_probe_of_the_port_is_not_counted(stage):
    before = rejected_in_all(stage)
    probe = stage.connect("any")
    probe.half_close()
    probe.expect_close()
    stage.connect("any").reset()
    client = stage.connect("any")
    client.send(pp.v1() + get("/"))
    shares(stage, client)
    assert rejected_in_all(stage) == before


def test_hashing_is_by_the_carried_address(stage):
    for origin in stage.origins.values():
        origin.serve()
    names = {}
    for number in range(24):
        for _ in range(2):
            client = stage.connect("hash")
            client.send(pp.v2(f"203.0.113.{number}") + get("/"))
            name = client.read_response().body
            assert names.setdefault(number, name) == name, "one client, one server"
    assert len(set(names.values())) == 3, "clients of one proxy are spread"


def test_memory_of_a_header_is_given_back(stage):
    clients = []
    for number in range(50):
        client = stage.connect("any")
        client.send(pp.v2(f"203.0.113.{number}") + get("/facts"))
        assert client.read_response().body.decode() == f"203.0.113.{number} 4711"
        clients.append(client)
    waiting = stage.connect("any")
    waiting.send(b"PROXY")
    stage.weir.eventually_metric(50 * 64, "weir_memory_used_bytes", pool="conn_ends")
    stage.weir.eventually_metric(lambda size: size > 0, "weir_memory_used_bytes", pool="pp_gate")
    for client in [*clients, waiting]:
        client.close()
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="conn_ends")
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="pp_gate")


PATIENT = WEB.replace("bind = @web", """bind = @web
proxy_protocol = any
trusted_proxies = 127.0.0.1
timeout_handshake = 60s""")


def test_connections_that_wait_for_a_header_do_not_hold_up_a_drain(new_stage):
    stage = new_stage(PATIENT, drain_timeout="60s")
    idle, begun, late = (stage.connect() for _ in range(3))
    begun.send(b"PROXY")
    stage.weir.eventually_metric(3, "weir_listener_connections_active", listener="web")
    stage.weir.drain()
    late.send(pp.v1() + get("/"))
    upstream = stage.origin.next()
    assert upstream.read_request()["X-Forwarded-For"] == "203.0.113.9"
    upstream.send(answer(200, b"hello"))
    assert late.read_response()["Connection"] == "close"
    idle.expect_close()
    begun.expect_reset()
    stage.weir.drained()


def test_a_cut_ends_connections_that_wait_for_a_header(new_stage):
    stage = new_stage(PATIENT, drain_timeout="100ms")
    client = stage.connect()
    client.send(b"PROXY")
    stage.weir.eventually_metric(1, "weir_listener_connections_active", listener="web")
    stage.weir.signal(15)
    client.expect_reset()
    assert stage.weir.wait_exit() == 0


BEFORE_WEIR = """
listen front
    mode {mode}
    bind 127.0.0.1:{port}
    server weir {weir} {options}
"""


@pytest.mark.parametrize("mode", ["http", "tcp"])
@pytest.mark.parametrize("options", [
    "send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"])
def test_haproxy_before_weir(stage, tmp_path, mode, options):
    port = Port()
    config = BEFORE_WEIR.format(mode=mode, port=port.number, weir=stage.address("any"),
                                options=options)
    with contextlib.closing(port), haproxy(tmp_path, config, port):
        client = connect(port)
        stage.clients.append(client)
        own = client.sock.getsockname()
        client.send(get("/facts"))
        assert client.read_response().body.decode() == f"{own[0]} {own[1]}"
        client.close()
