"""Many connections at once, idle and active, and others are served beside them."""

from harness.http1 import answer, get

INI = """
[listener web]
bind = @web
upstream = app
[route hello]
path = /hello
respond = 200 hello
[upstream app]
server = @origin max_connections=6000
"""
GLOBAL = {"max_connections": 12000}

IDLE = 10000
ACTIVE = 4096


def test_10000_idle_connections_with_traffic_beside_them(stage, origin):
    idle = [stage.connect() for _ in range(IDLE)]
    for client in idle:
        client.send(get("/hello"))
    for client in idle:
        assert client.read_response().body == b"hello"
    stage.weir.eventually_metric(lambda now: now >= IDLE, "weir_listener_connections_active",
                                 listener="web")
    origin.serve()
    busy = stage.connect()
    for _ in range(500):
        assert busy.ask(get()).body == b"origin"
        assert stage.connect().ask(get("/", "Connection: close")).body == b"origin"
    for client in idle[::97]:
        assert client.ask(get("/hello")).body == b"hello"


def test_4096_requests_in_flight_at_once(stage, origin):
    clients = [stage.connect() for _ in range(ACTIVE)]
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
    upstreams = [origin.accept() for _ in clients]
    stage.weir.eventually_metric(lambda now: now >= ACTIVE, "weir_http_requests_in_flight")
    assert stage.connect().ask(get("/hello")).body == b"hello"
    for upstream in upstreams:
        upstream.send(answer(200, upstream.read_request().target.encode()))
    for number, client in enumerate(clients):
        assert client.read_response().body == b"/%d" % number
