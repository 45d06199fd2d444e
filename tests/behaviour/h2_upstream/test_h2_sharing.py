"""Which connection a request takes: few are shared, others opened in time, idle ones kept."""

from harness.h2_server import MAX_STREAMS, H2Server
from harness.h2_tunnel import H2TunnelServer
from harness.http1 import get
from harness.wait import eventually
from harness.websocket import upgrade

INI = """
[listener web]
bind = @web
upstream = app
[listener limited]
bind = @limited
upstream = limited
[listener none]
bind = @none
upstream = none
[listener brief]
bind = @brief
upstream = brief
[listener proxied]
bind = @proxied
upstream = proxied
[upstream app]
protocol = h2
server = @origin
[upstream limited]
protocol = h2
server = @origin max_connections=2
[upstream none]
protocol = h2
keepalive = 0
server = @origin
[upstream brief]
protocol = h2
keepalive_timeout = 300ms
server = @origin
[upstream proxied]
protocol = h2
send_proxy = v1
server = @origin
"""


def ask(stage, target="/", name="web"):
    client = stage.connect(name)
    client.send(get(target))
    return client


def finish(client, server, request):
    server.answer(request, 200, request.path.encode())
    assert client.read_response().body == request.path.encode()


def state_of(stage, state, count):
    stage.weir.eventually_metric(count, "weir_upstream_connections", state=state)


def test_many_clients_share_one_connection(stage):
    connects = stage.counter("weir_upstream_connects_total")
    reuses = stage.counter("weir_upstream_reuses_total")
    clients = {f"/{number}": ask(stage, f"/{number}") for number in range(20)}
    server = H2Server(stage.origin.accept())
    server.until(lambda: len(server.unseen) == 20, "all requests")
    state_of(stage, "active", 1)
    for request in reversed(server.unseen):
        finish(clients[request.path], server, request)
    state_of(stage, "idle", 1)
    assert stage.origin.accept_now() is None
    assert connects.grown() == 1
    assert reuses.grown() == 19


def test_without_settings_a_connection_carries_32(stage):
    """Whether they come before it is connected or later; the rest takes another one."""
    clients = {f"/{number}": ask(stage, f"/{number}") for number in range(40)}
    stage.weir.eventually_metric(41, "weir_http_requests_in_flight")  # with the scrape itself
    servers = [H2Server(stage.origin.accept(), silent=True) for _ in range(2)]

    def seen():
        for server in servers:
            server.look()
        return sum(len(server.unseen) for server in servers) == 40

    eventually(seen, "all requests")
    assert max(len(server.unseen) for server in servers) <= 32
    assert stage.origin.accept_now() is None
    for server in servers:
        server.speak()
        for request in server.unseen:
            finish(clients[request.path], server, request)


def test_the_next_is_opened_at_a_share_of_the_limit(stage):
    first = ask(stage, "/0")
    server = H2Server(stage.origin.accept(), {MAX_STREAMS: 8})
    requests = [server.next_request()]
    server.until(lambda: server.acknowledged, "SETTINGS to be acknowledged")
    clients = [first]
    for number in range(1, 6):
        clients.append(ask(stage, f"/{number}"))
        requests.append(server.next_request())
    assert stage.origin.accept_now() is None
    clients.append(ask(stage, "/6"))
    requests.append(server.next_request())  # it did not wait for the next connection
    other = H2Server(stage.origin.accept(), {MAX_STREAMS: 8})
    state_of(stage, "idle", 1)
    clients.append(ask(stage, "/7"))
    requests.append(other.next_request())
    for client, request in zip(clients, requests):
        finish(client, request.connection, request)
    state_of(stage, "idle", 2)


def test_no_stream_is_opened_beyond_the_limit(stage):
    client = ask(stage, "/0")
    server = H2Server(stage.origin.accept(), {MAX_STREAMS: 1})
    request = server.next_request()
    server.until(lambda: server.acknowledged, "SETTINGS to be acknowledged")
    other_client = ask(stage, "/1")
    other = H2Server(stage.origin.accept(), {MAX_STREAMS: 1})
    other_request = other.next_request()
    server.echo()
    assert not server.unseen
    finish(client, server, request)
    finish(other_client, other, other_request)


def test_a_limit_lowered_below_what_is_open(stage):
    clients, requests = [ask(stage, "/0")], []
    server = H2Server(stage.origin.accept())
    requests.append(server.next_request())
    for number in range(1, 3):
        clients.append(ask(stage, f"/{number}"))
        requests.append(server.next_request())
    acknowledged = server.acknowledged
    server.settings({MAX_STREAMS: 2})
    server.until(lambda: server.acknowledged > acknowledged, "SETTINGS to be acknowledged")
    clients.append(ask(stage, "/3"))
    other = H2Server(stage.origin.accept())
    requests.append(other.next_request())
    for client, request in zip(clients, requests):  # what was open is answered
        finish(client, request.connection, request)


def test_an_idle_connection_is_used_again(stage):
    client = ask(stage, "/0")
    server = H2Server(stage.origin.accept())
    for number in range(5):
        request = server.next_request()
        finish(client, server, request)
        state_of(stage, "idle", 1)
        client = ask(stage, f"/{number + 1}")
    finish(client, server, server.next_request())


def test_keepalive_timeout_of_a_shared_connection(stage):
    client = ask(stage, name="brief")
    server = H2Server(stage.origin.accept())
    finish(client, server, server.next_request())
    server.expect_end()
    assert server.goaway is None or server.goaway.error_code == 0
    state_of(stage, "idle", 0)


def test_without_keepalive_a_connection_ends_with_its_last_request(stage):
    one, two = ask(stage, "/1", "none"), ask(stage, "/2", "none")
    server = H2Server(stage.origin.accept())
    requests = {request.path: request for request in (server.next_request(),
                                                      server.next_request())}
    finish(one, server, requests["/1"])
    server.echo()
    finish(two, server, requests["/2"])
    server.expect_end()


def test_max_connections_bounds_the_requests(stage):
    clients = {f"/{number}": ask(stage, f"/{number}", "limited") for number in range(3)}
    stage.weir.eventually_metric(1, "weir_upstream_queue_length")
    server = H2Server(stage.origin.accept())
    server.until(lambda: len(server.unseen) == 2, "two requests")
    server.echo()
    assert len(server.unseen) == 2
    requests = list(server.unseen)
    server.unseen = []
    finish(clients[requests[0].path], server, requests[0])
    third = server.next_request()
    finish(clients[third.path], server, third)
    finish(clients[requests[1].path], server, requests[1])
    assert stage.origin.accept_now() is None


def test_a_tunnel_that_ends_makes_room_for_who_waits(stage):
    """It counts like any request; its connection stays as it was, with another stream on it."""
    tunnels = []
    ends = []
    for _ in range(2):
        tunnels.append(stage.connect("limited"))
        tunnels[-1].send(upgrade("/ws"))
        if not ends:
            server = H2TunnelServer(stage.origin)
        request = server.request()
        server.head(200)
        assert tunnels[-1].read_response_head().status == 101
        ends.append(request)
    waiting = ask(stage, "/waiting", "limited")
    stage.weir.eventually_metric(1, "weir_upstream_queue_length")
    tunnels[0].reset()
    third = server.server.next_request()
    finish(waiting, server.server, third)
    assert ends[0].reset is not None and ends[1].reset is None


def test_with_send_proxy_each_request_has_its_connection(stage):
    clients = [ask(stage, f"/{number}", "proxied") for number in range(2)]
    for _ in range(2):
        upstream = stage.origin.accept()
        assert upstream.read_until(b"\r\n").startswith(b"PROXY TCP4 127.0.0.1")
        server = H2Server(upstream)
        server.feed(upstream.take(len(upstream.buffered)))
        request = server.next_request()
        finish(clients[int(request.path[1:])], server, request)
        server.expect_end()
