"""send_proxy: every connection to a server begins with a header that tells of one client, and is no
other client's."""

import pytest

from harness import proxy_protocol as pp
from harness.http1 import answer, get, post
from harness.programs import haproxy

INI = """
[listener v1]
bind = @v1 @port6_v1 @unix_v1
upstream = v1
[listener v2]
bind = @v2 @port6_v2 @unix_v2
upstream = v2
[listener again]
bind = @again
upstream = again
[listener chain]
bind = @chain
upstream = inner
[listener inner]
bind = @inner
upstream = v2
proxy_protocol = any
trusted_proxies = 127.0.0.1
[listener inner6]
bind = @inner6
upstream = v1
proxy_protocol = any
trusted_proxies = 127.0.0.1
[upstream v1]
server = @origin
send_proxy = v1
[upstream v2]
server = @origin
send_proxy = v2
[upstream again]
server = @dead
server = @dead_b
server = @origin
balance = first
send_proxy = v1
[listener haproxy_v1]
bind = @front_v1
upstream = haproxy_v1
[listener haproxy_v2]
bind = @front_v2
upstream = haproxy_v2
[upstream inner]
server = @inner
send_proxy = v1
[upstream haproxy_v1]
server = @haproxy
send_proxy = v1
[upstream haproxy_v2]
server = @haproxy
send_proxy = v2
"""

BEHIND_WEIR = """
frontend behind
    mode http
    bind 127.0.0.1:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%ci %cp %fi %fp"
"""

READ = {"v1": pp.read_v1, "v2": pp.read_v2}
NOBODY = {"v1": pp.Told("UNKNOWN"), "v2": pp.Told("LOCAL")}
VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


def ends_of(client):
    """What a header must tell of a client's connection."""
    source, destination = client.sock.getsockname(), client.sock.getpeername()
    kind = "TCP6" if ":" in source[0] else "TCP4"
    return pp.Told(kind, source[:2], destination[:2])


def served(stage, client, version, request=None):
    """Sends a request; the origin's side of it, its header told."""
    client.send(request or get("/"))
    upstream = stage.origin.accept()
    told = READ[version](upstream)
    assert upstream.read_request().method
    upstream.send(answer(200, b"hello"))
    assert client.read_response().body == b"hello"
    return told, upstream


@VERSIONS
@pytest.mark.parametrize("family", ["", "port6_"])
def test_the_header_comes_first(stage, version, family):
    client = stage.connect(family + version)
    told, _ = served(stage, client, version)
    assert told == ends_of(client)


@VERSIONS
def test_of_a_unix_client_nobody_is_told(stage, version):
    told, _ = served(stage, stage.connect("unix_" + version), version)
    assert told == NOBODY[version]


@VERSIONS
def test_connections_are_not_shared(stage, version):
    """Neither between clients nor between requests: each ends with its answer."""
    first, second = stage.connect(version), stage.connect(version)
    for client in (first, second, first):
        told, upstream = served(stage, client, version)
        assert told == ends_of(client)
        upstream.expect_end()
    assert stage.metrics().sum("weir_upstream_connections", state="idle") == 0


@VERSIONS
def test_a_long_body_follows_the_header(stage, version):
    body = bytes(range(256)) * 2000
    client = stage.connect(version)
    client.send(post("/", body))
    upstream = stage.origin.accept()
    assert READ[version](upstream) == ends_of(client)
    assert upstream.read_request().body == body
    upstream.send(answer(200))
    assert client.read_response().status == 200


def test_the_next_server_gets_the_header_as_well(stage):
    client = stage.connect("again")
    told, _ = served(stage, client, "v1")
    assert told == ends_of(client)


@pytest.mark.parametrize("header", [pp.v1(), pp.v2()], ids=["v1", "v2"])
def test_what_was_told_is_told_on(stage, header):
    client = stage.connect("inner")
    client.send(header)
    told, _ = served(stage, client, "v2")
    assert told == pp.Told("TCP4", ("203.0.113.9", 4711), ("198.51.100.1", 443))


@pytest.mark.parametrize("ends, told", [
    (("::ffff:203.0.113.9", "::ffff:198.51.100.1"),
     pp.Told("TCP4", ("203.0.113.9", 4711), ("198.51.100.1", 443))),
    (("::ffff:203.0.113.9", "2001:db8::1"),
     pp.Told("TCP6", ("::ffff:cb00:7109", 4711), ("2001:db8::1", 443))),
    (("2001:db8::7", "2001:db8::1"),
     pp.Told("TCP6", ("2001:db8::7", 4711), ("2001:db8::1", 443)))],
    ids=["both-mapped", "one-mapped", "none-mapped"])
@pytest.mark.parametrize("version, name", [("v2", "inner"), ("v1", "inner6")])
def test_ipv6_and_mapped_ipv4(stage, ends, told, version, name):
    client = stage.connect(name)
    client.send(pp.v2(*ends))
    assert served(stage, client, version)[0] == told


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", pp.v2_raw(pp.LOCAL, 0, b"")])
def test_where_nothing_was_told_the_sockets_ends_are(stage, header):
    client = stage.connect("inner")
    client.send(header)
    assert served(stage, client, "v2")[0] == ends_of(client)


@pytest.mark.parametrize("header", [pp.v2_raw(pp.PROXY, pp.UNIX, bytes(216))])
def test_of_a_carried_unix_client_nobody_is_told(stage, header):
    client = stage.connect("inner")
    client.send(header)
    assert served(stage, client, "v2")[0] == NOBODY["v2"]


def test_weir_behind_weir(stage):
    """Two hops: what the first sees is what the origin is told."""
    client = stage.connect("chain")
    client.send(get("/"))
    upstream = stage.origin.accept()
    assert pp.read_v2(upstream) == ends_of(client)
    request = upstream.read_request()
    assert request["X-Forwarded-For"] == "127.0.0.1, 127.0.0.1"
    upstream.send(answer(200, b"hello"))
    assert client.read_response().body == b"hello"


@VERSIONS
def test_haproxy_behind_weir(stage, tmp_path, version):
    port = stage.things["haproxy"]
    with haproxy(tmp_path, BEHIND_WEIR.format(port=port.number), port):
        client = stage.connect("front_" + version)
        client.send(get("/"))
        told = [*client.sock.getsockname(), *client.sock.getpeername()]
        assert client.read_response().body.decode() == " ".join(map(str, told))


def test_a_client_that_leaves_during_the_connect_leaves_nothing(new_stage):
    stage = new_stage("""
    [listener web]
    bind = @web
    upstream = hole
    [upstream hole]
    server = @hole
    send_proxy = v2
    timeout_connect = 300ms
    """)
    client = stage.connect()
    client.send(get("/"))
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="connecting")
    assert stage.count("weir_memory_used_bytes", pool="conn_ends") == 64
    client.reset()
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="connecting")
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="conn_ends")
