"""What `weir explain` says about tunnels, PROXY headers, bodies and the admin is what happens."""

import subprocess

import pytest

from harness.http1 import answer, get, post
from harness.proxy_protocol import read_v1, v1, v2
from harness.weir import BINARY

RUN_S = 20
UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]

INI = """
[listener web]
bind = @web
upstream = app
max_body_size = 1000
[route off]
path = /off
websocket = off
upstream = app
[route checked]
path = /checked
websocket = checked
upstream = app
[route here]
path = /here
respond = 200 here
[route tunnel]
method = CONNECT
host = inner.example
connect = on
upstream = app
[listener told]
bind = @told
upstream = told
[listener any]
bind = @any
upstream = app
proxy_protocol = any
trusted_proxies = 127.0.0.0/8
[listener second]
bind = @second
upstream = app
proxy_protocol = v2
trusted_proxies = 127.0.0.0/8
[listener bytes]
bind = @bytes
mode = tcp
upstream = told
[upstream app]
server = @origin
[upstream told]
server = @origin_b
send_proxy = v1
"""


@pytest.fixture
def explain(stage):
    """explain(METHOD, URL, ...): (exit status, lines)."""

    def explain(*arguments):
        done = subprocess.run([BINARY, "-c", stage.weir.file, "explain", *arguments], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_S)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return explain


def options(*fields):
    return [word for field in fields for word in ("-H", field)]


def sent(lines):
    at = next(at for at, line in enumerate(lines) if line.startswith("sends "))
    return [line[10:] for line in lines[at:]]


def head_of(request):
    return request.head.decode().split("\r\n")[:-2]


@pytest.mark.parametrize("path, mode", [("/", "raw"), ("/checked", "checked")])
def test_an_upgrade_goes_on_as_explained(stage, explain, client, origin, path, mode):
    fields = [*UPGRADE, "Sec-WebSocket-Extensions: permessage-deflate"]
    status, lines = explain("GET", stage.url(path), *options(*fields))
    assert status == 0
    assert any(line.startswith(f"websocket {mode}") for line in lines)
    client.send(get(path, *fields, host=stage.address()))
    upstream = origin.next()
    seen = upstream.read_request()
    assert head_of(seen) == sent(lines)
    upstream.send(answer(400, b"no"))
    assert client.read_response().status == 400


def test_an_upgrade_that_is_refused(stage, explain, client):
    path, reason = "/off", "403 websocket_refused"
    status, lines = explain("GET", stage.url(path), *options(*UPGRADE))
    assert status == 1 and lines[-1].startswith(f"refused   {reason}: ")
    client.send(get(path, *UPGRADE))
    got = client.read_response()
    assert f"{got.status} {got.reason}" == reason


def test_h2c_is_not_passed_on(stage, explain, client, origin):
    fields = ["Connection: Upgrade", "Upgrade: h2c"]
    status, lines = explain("GET", stage.url("/"), *options(*fields))
    assert status == 0
    seen, _ = stage.exchange(get("/", *fields, host=stage.address()), client=client)
    assert head_of(seen) == sent(lines)
    assert not any(line.startswith("Upgrade") for line in sent(lines))


def test_connect_where_a_route_allows_it(stage, explain, client, origin):
    status, lines = explain("CONNECT", "inner.example:443")
    assert status == 0
    assert any(line.startswith("route     tunnel ") for line in lines)
    client.send(b"CONNECT inner.example:443 HTTP/1.1\r\nHost: inner.example:443\r\n\r\n")
    upstream = origin.next()
    seen = upstream.read_request()
    assert head_of(seen) == sent(lines)
    upstream.send(answer(403, b"no"))
    assert client.read_response().status == 403


def test_connect_where_none_does(stage, explain, client):
    status, lines = explain("CONNECT", "other.example:443")
    assert status == 1 and lines[-1].startswith("refused   405 connect_refused: ")
    client.send(b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n")
    assert client.read_response().reason == "connect_refused"


@pytest.mark.parametrize("size, passes", [(1000, True), (1001, False)])
def test_a_body_over_its_limit(stage, explain, client, size, passes):
    status, lines = explain("POST", stage.url("/here"), "-H", f"Content-Length: {size}")
    assert (status == 0) == passes
    assert passes or lines[-1].startswith("refused   413 body_too_large: ")
    client.send(post("/here", b"x" * size))
    assert client.read_response().status == (200 if passes else 413)


@pytest.mark.parametrize("name", ["told", "bytes"])
def test_a_proxy_header_is_spoken_of(stage, explain, name):
    url = f"http://{stage.address(name)}/"
    status, lines = explain("GET", url)
    assert status == 0
    assert "          behind a PROXY header of version 1" in lines
    client = stage.connect(name)
    client.send(get())
    upstream = stage.origins["origin_b"].accept()
    assert read_v1(upstream)
    upstream.read_request()
    upstream.send(answer(200, b"hi", "Connection: close"))
    assert client.read_response().body == b"hi"


@pytest.mark.parametrize("name, versions, good, bad", [
    ("any", "1 or 2", v1(), b""), ("second", "2", v2(), v1())])
def test_a_proxy_header_that_is_wanted_is_spoken_of(stage, explain, name, versions, good, bad):
    status, lines = explain("GET", f"http://{stage.address(name)}/", "--client", "203.0.113.9")
    assert status == 0 and lines[1] == "          begins with a PROXY header of version " \
        f"{versions} from trusted_proxies; the client is who stands in it"
    client = stage.connect(name)
    client.send(bad + get(host=stage.address(name)))
    client.expect_reset()
    seen, _ = stage.exchange(good + get(host=stage.address(name)), answer(204),
                             stage.connect(name))
    assert head_of(seen) == sent(lines)


def test_the_admin_is_no_listener_of_requests(stage, explain):
    for arguments in ([f"http://127.0.0.1:{stage.weir.admin.number}/x"],
                      ["/x", "--listener", "admin"]):
        status, lines = explain("GET", *arguments)
        assert status == 0
        assert lines[0].startswith("listener  admin (")
        assert lines[1:] == ["action    metrics and health: routes do not matter"]
