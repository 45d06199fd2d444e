"""mode = tcp: what one side sends is what the other one reads, whatever the sizes and the pace."""

import hashlib
import threading

import pytest

from harness.http1 import answer, get
from harness.wait import PATIENCE, eventually

INI = """
[listener raw]
bind = @raw
mode = tcp
upstream = app
[listener slow]
bind = @slow
mode = tcp
upstream = slow
[listener six]
bind = @port6
mode = tcp
upstream = six
[listener unix]
bind = @unix
mode = tcp
upstream = unix
[upstream app]
server = @origin
[upstream slow]
server = @originslow
[upstream six]
server = @origin6
[upstream unix]
server = @originunix
"""
GLOBAL = {"max_connections": 3000}

PATHS = [("raw", "origin"), ("port6", "origin6"), ("unix", "originunix")]
BULK = 50 << 20


def pair(stage, front="raw", origin="origin"):
    client = stage.connect(front)
    return client, stage.origins[origin].accept()


class Sender(threading.Thread):
    """Sends `size` bytes that repeat nowhere near, then FIN; `digest` is theirs."""

    def __init__(self, peer, size, salt):
        super().__init__(daemon=True)
        self.peer, self.size, self.salt, self.error = peer, size, salt, None
        self.digest = hashlib.sha256()

    def run(self):
        try:
            for at in range(0, self.size, 1 << 20):
                block = hashlib.shake_128(b"%d %d" % (self.salt, at)).digest(1 << 20)
                block = block[:self.size - at]
                self.digest.update(block)
                self.peer.sock.sendall(block)
            self.peer.half_close()
        except BaseException as error:
            self.error = error


class Reader(threading.Thread):
    """Reads to the FIN."""

    def __init__(self, peer):
        super().__init__(daemon=True)
        self.peer, self.size, self.error = peer, 0, None
        self.digest = hashlib.sha256()

    def run(self):
        try:
            while piece := self.peer.sock.recv(1 << 18):
                self.digest.update(piece)
                self.size += len(piece)
        except BaseException as error:
            self.error = error


def finish(*threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * PATIENCE)
        assert not thread.is_alive(), "it hangs"
        assert thread.error is None, thread.error


@pytest.mark.parametrize("front, origin", PATHS)
def test_bytes_pass_both_ways_untouched(stage, front, origin):
    client, upstream = pair(stage, front, origin)
    for data in (b"\x00", b"\xff\r\n\r\n", get("/not-a-request"), b"x" * 100000):
        client.send(data)
        upstream.expect(data)
        upstream.send(data[::-1])
        client.expect(data[::-1])
    client.half_close()
    upstream.expect_close()
    upstream.half_close()
    client.expect_close()


@pytest.mark.parametrize("front, origin", PATHS)
def test_bytes_one_by_one(stage, front, origin):
    client, upstream = pair(stage, front, origin)
    data = bytes(range(256)) * 2
    client.send_each_byte(data)
    upstream.expect(data)
    upstream.send_each_byte(data)
    client.expect(data)


def test_each_byte_goes_on_before_the_next_comes(stage):
    client, upstream = pair(stage)
    for byte in range(200):
        client.send(bytes([byte]))
        upstream.expect(bytes([byte]))
        upstream.send(bytes([255 - byte]))
        client.expect(bytes([255 - byte]))


def test_the_server_may_speak_first(stage):
    client, upstream = pair(stage)
    upstream.send(b"220 ready\r\n")
    client.expect(b"220 ready\r\n")
    client.send(b"QUIT\r\n")
    upstream.expect(b"QUIT\r\n")


@pytest.mark.parametrize("front, origin", PATHS)
def test_50_megabytes_both_ways_at_once(stage, front, origin):
    client, upstream = pair(stage, front, origin)
    up, down = Sender(client, BULK, 1), Sender(upstream, BULK, 2)
    at_server, at_client = Reader(upstream), Reader(client)
    before = {way: stage.count("weir_tunnel_bytes_total", direction=way)
              for way in ("to_upstream", "to_client")}
    finish(up, down, at_server, at_client)
    assert (at_server.size, at_client.size) == (BULK, BULK)
    assert at_server.digest.digest() == up.digest.digest()
    assert at_client.digest.digest() == down.digest.digest()
    for way, value in before.items():
        assert stage.count("weir_tunnel_bytes_total", direction=way) == value + BULK


def test_a_stream_may_turn_chatty_and_back(stage):
    client, upstream = pair(stage)
    block = bytes(range(256)) * 4096
    for _ in range(3):
        sender = threading.Thread(target=client.send, args=(block * 4,), daemon=True)
        sender.start()
        upstream.expect(block * 4)
        sender.join()
        for number in range(50):
            client.send(b"%d?" % number)
            upstream.expect(b"%d?" % number)
            upstream.send(b"%d!" % number)
            client.expect(b"%d!" % number)


def test_a_client_that_does_not_read_stops_the_server(stage):
    client = stage.connect("raw", recv_buffer=4096)
    upstream = stage.origin.accept()
    upstream.send(b"x")
    client.expect(b"x")
    resident = stage.weir.rss_bytes()
    sent = upstream.send_until_stuck(b"y" * 1000000)
    assert sent < 40 << 20
    assert stage.weir.rss_bytes() - resident < 16 << 20
    # The other direction goes on meanwhile.
    client.send(b"still here")
    upstream.expect(b"still here")
    client.widen()
    assert client.read_exactly(sent) == b"y" * sent


def test_a_server_that_does_not_read_stops_the_client(stage):
    client, upstream = pair(stage, "slow", "originslow")
    resident = stage.weir.rss_bytes()
    sent = client.send_until_stuck(b"y" * 1000000)
    assert sent < 40 << 20
    assert stage.weir.rss_bytes() - resident < 16 << 20
    upstream.send(b"still here")
    client.expect(b"still here")
    upstream.widen()
    assert upstream.read_exactly(sent) == b"y" * sent


def test_many_slow_readers_take_bounded_memory(stage):
    """Each holds at most its queue; together they do not stop others."""
    resident = stage.weir.rss_bytes()
    stuck = []
    for _ in range(16):
        client = stage.connect("raw", recv_buffer=4096)
        upstream = stage.origin.accept()
        sent = upstream.send_until_stuck(b"z" * 1000000, stuck_s=0.05)
        stuck.append((client, upstream, sent))
    assert stage.weir.rss_bytes() - resident < 64 << 20
    client, upstream = pair(stage)
    client.send(b"ping")
    upstream.expect(b"ping")
    for client, upstream, sent in stuck:
        client.widen()
        assert client.read_exactly(sent) == b"z" * sent


def test_what_is_counted(stage):
    before = stage.metrics()
    client, upstream = pair(stage)
    client.send(b"a" * 10)
    upstream.expect(b"a" * 10)
    upstream.send(b"b" * 7)
    client.expect(b"b" * 7)
    now = stage.metrics()
    assert now.sum("weir_listener_connections_active", listener="raw") == 1
    assert now.sum("weir_upstream_connections", state="active") == 1
    client.half_close()
    upstream.expect_close()
    upstream.close()
    client.expect_close()
    stage.weir.eventually_metric(0, "weir_listener_connections_active", listener="raw")
    after = stage.metrics()

    def grown(name, **labels):
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert grown("weir_listener_connections_total", listener="raw") == 1
    assert grown("weir_tcp_connections_ended_total", reason="none") == 1
    assert grown("weir_tcp_connections_ended_total") == 1
    assert grown("weir_tunnel_bytes_total", direction="to_upstream") == 10
    assert grown("weir_tunnel_bytes_total", direction="to_client") == 7
    assert grown("weir_upstream_connects_total") == 1
    assert grown("weir_upstream_connect_seconds_count") == 1
    # Requests are the admin's own, and nothing else.
    assert after.series("weir_http_requests_total", listener="raw") == []
    assert grown("weir_http_requests_total") == grown("weir_http_requests_total", listener="admin")
    assert grown("weir_http_exchanges_ended_total") == grown("weir_http_requests_total")
    assert grown("weir_http_aborts_total") == 0 and grown("weir_upstream_requests_total") == 0


def test_an_idle_pair_takes_at_most_1536_bytes(stage):
    pools = ("conn", "send_queue", "session", "session_tcp", "head", "relay", "exchange",
             "arena_small", "arena_large", "buffer_small", "buffer_bulk", "pump")

    def used():
        metrics = stage.metrics()
        return sum(metrics.need("weir_memory_used_bytes", pool=pool) for pool in pools)

    count = 1000
    first = pair(stage)
    first[0].send(b"x")
    first[1].expect(b"x")
    before = used()
    pairs = [pair(stage) for _ in range(count)]
    for client, upstream in pairs:
        client.send(b"ping")
        upstream.expect(b"ping")
        upstream.send(b"pong")
        client.expect(b"pong")
    each = eventually(lambda: (used() - before) / count, "it is counted")
    assert 0 < each <= 1536, each


def test_no_heap_for_a_connection(stage):
    def churn(count):
        for _ in range(count):
            client, upstream = pair(stage)
            client.send(b"x")
            upstream.expect(b"x")
            client.close()
            upstream.expect_close()
            upstream.close()

    def heap():
        return stage.count("weir_heap_allocated_bytes_total")

    churn(50)
    heap()
    first = heap()
    cost = heap() - first  # what one scrape takes
    before = heap()
    churn(200)
    assert heap() - before <= 2 * cost + 4096


def test_http_and_tcp_may_share_an_upstream(new_stage):
    """Only requests reuse connections; an idle one makes room where the server is full."""
    stage = new_stage("""
        [listener web]
        bind = @web
        upstream = app
        [listener raw]
        bind = @raw
        mode = tcp
        upstream = app
        [upstream app]
        queue = 1
        server = @origin max_connections=1
        """)
    stage.exchange(get(), answer(200, b"hello"))
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="idle")
    kept = stage.origin.connections[0]
    client = stage.connect("raw")
    upstream = stage.origin.accept()
    kept.expect_close()
    client.send(get("/raw"))
    upstream.expect(get("/raw"))
    # The server is full now, for requests too, and both wait in one queue.
    waiting = stage.connect()
    waiting.send(get("/waits"))
    stage.weir.eventually_metric(1, "weir_upstream_queue_length", upstream="app")
    assert stage.connect().ask(get()).reason == "queue_full"
    client.close()
    upstream.expect_close()
    upstream.close()
    upstream = stage.origin.accept()
    assert upstream.read_request().target == "/waits"
    upstream.send(answer(200, b"served"))
    assert waiting.read_response().body == b"served"
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="active")
    stage.exchange(get(), answer(200, b"again"))
