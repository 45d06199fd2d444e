"""SIGTERM, SIGINT, SIGQUIT: what is under way is finished, nothing is begun, the process ends."""

import os
import signal
import socket
import threading
import time

import pytest

from harness.http1 import answer, answer_head, get, post
from harness.stage import HELLO, WEB
from harness.wait import eventually

INI = WEB + HELLO

BOTH = """
[listener web]
bind = @web @port6 @unix
upstream = app
[upstream app]
server = @origin
"""

STUCK = """
[listener web]
bind = @web
upstream = hole
[upstream hole]
server = @hole
timeout_connect = 60s
"""


def refused(stage, name):
    """A SYN may be dropped while the listener ends: it is sent again after a second."""
    port = stage.things[name]
    sock = socket.socket(port.family)
    try:
        sock.connect(port.target)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    finally:
        sock.close()
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_an_idle_weir_ends_at_once(new_stage, number):
    stage = new_stage(INI, drain_timeout="60s")
    stage.weir.signal(number)
    stage.weir.drained()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_requests_in_flight_are_finished(new_stage, number):
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/slow"))
    stage.weir.drain(number)
    upstream.send(answer(200, b"finished"))
    got = client.read_response()
    assert (got.status, got.body, got["Connection"]) == (200, b"finished", "close")
    client.expect_close()
    client.close()
    stage.weir.drained()


def test_an_answer_that_has_begun_is_finished(new_stage):
    """Its head did not say close: the connection ends all the same."""
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/slow"))
    upstream.send(answer(200, b"x" * 100000)[:-50000])
    assert client.read_response_head().status == 200
    stage.weir.drain()
    upstream.send(b"x" * 50000)
    assert client.read_exactly(100000) == b"x" * 100000
    client.expect_close()
    client.close()
    stage.weir.drained()


def test_a_body_under_way_is_taken_to_its_end(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    request = post("/upload", b"y" * 200000)
    client.send(request[:100000])
    upstream = stage.origin.next()
    stage.weir.drain()
    client.send(request[100000:])
    assert upstream.read_request().body == b"y" * 200000
    upstream.send(answer(201, b"stored"))
    got = client.read_response()
    assert (got.status, got["Connection"]) == (201, "close")
    client.expect_close()
    client.close()
    stage.weir.drained()


def test_idle_connections_close_on_drain(new_stage):
    """Used ones and fresh ones, long before any timeout of theirs."""
    stage = new_stage(INI, drain_timeout="60s")
    used, fresh = stage.connect(), stage.connect()
    assert used.ask(get("/hello")).status == 200
    stage.exchange(get(), client=used)
    stage.weir.drain()
    used.expect_close()
    fresh.expect_close()
    for upstream in stage.origin.connections:
        upstream.expect_end()
    stage.weir.drained()


def test_idle_connections_to_servers_close_while_a_request_goes_on(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    slow, quick = stage.connect(), stage.connect()
    held = stage.origin.asked_by(slow, get("/slow"))
    stage.exchange(get(), client=quick)
    stage.weir.drain()
    idle = [upstream for upstream in stage.origin.connections if upstream is not held]
    assert len(idle) == 1
    idle[0].expect_close()
    held.send(answer(200, b"finished"))
    assert slow.read_response().body == b"finished"
    slow.close()
    stage.weir.drained()


def test_a_request_on_a_kept_connection_is_still_answered(new_stage):
    """It may have been on its way when the drain began."""
    stage = new_stage(INI, drain_timeout="60s")
    used, fresh = stage.connect(), stage.connect()
    assert used.ask(get("/hello")).status == 200
    stage.weir.drain()
    for client in (used, fresh):
        got = client.ask(get("/hello"))
        assert (got.status, got.body, got["Connection"]) == (200, b"hello", "close")
        client.expect_close()
        client.close()
    stage.weir.drained()


def test_connections_in_the_backlog_are_served(new_stage):
    """Who could connect before the listener closed is answered."""
    stage = new_stage(INI, drain_timeout="60s")
    clients = [stage.connect() for _ in range(100)]
    for client in clients:
        client.send(get("/hello"))
    stage.weir.signal(signal.SIGTERM)
    for client in clients:
        assert client.read_response().body == b"hello"
        client.close()
    stage.weir.drained()


def test_a_head_that_is_under_way_is_waited_for(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    client.send(b"GET /hello HTTP/1.1\r\nHo")
    stage.weir.eventually_metric(lambda now: now >= 1, "weir_memory_used_bytes", pool="head")
    stage.weir.drain()
    client.send(b"st: test\r\n\r\n")
    got = client.read_response()
    assert (got.body, got["Connection"]) == (b"hello", "close")
    stage.weir.drained()


def test_pipelined_requests_are_answered_before_the_end(new_stage):
    """What had arrived when the drain began is answered, and the last answer says close."""
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    client.send(b"".join(get(f"/{number}") for number in range(4)))
    upstream = stage.origin.next()
    stage.weir.drain()
    connections = []
    for number in range(4):
        assert upstream.read_request().target == f"/{number}"
        upstream.send(answer(200, b"%d" % number))
        got = client.read_response()
        assert got.body == b"%d" % number
        connections.append(got["Connection"])
        if number < 3:
            upstream = stage.origin.next()
    assert connections == [None, None, None, "close"]
    client.expect_close()
    client.close()
    stage.weir.drained()


def test_drain_timeout_cuts(new_stage):
    stage = new_stage(INI, drain_timeout="300ms")
    waiting, reading, idle = stage.connect(), stage.connect(), stage.connect()
    first = stage.origin.asked_by(waiting, get("/no_answer"))
    second = stage.origin.asked_by(reading, get("/half"))
    second.send(answer_head(200, "Content-Length: 10") + b"half")
    assert reading.read_response_head().status == 200
    reading.expect(b"half")
    started = time.monotonic()
    stage.weir.signal(signal.SIGTERM)
    got = waiting.read_response()
    assert time.monotonic() - started >= 0.28
    assert (got.status, got.reason, got["Connection"]) == (503, "drain_cut", "close")
    waiting.expect_close()
    reading.expect_end()
    assert not reading.buffered
    idle.expect_end()
    first.expect_end()
    second.expect_end()
    stage.weir.drained(cut=2)


def test_drain_timeout_cuts_requests_that_wait_for_a_server(new_stage):
    stage = new_stage(STUCK, drain_timeout="200ms")
    client = stage.connect()
    client.send(get())
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="connecting")
    stage.weir.signal(signal.SIGTERM)
    got = client.read_response()
    assert (got.status, got.reason) == (503, "drain_cut")
    client.expect_close()
    client.close()
    stage.weir.drained(cut=1)


def test_drain_timeout_cuts_tunnels(new_stage):
    stage = new_stage(INI, drain_timeout="300ms")
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/ws", "Connection: Upgrade", "Upgrade: echo"))
    upstream.send(answer_head(101, "Connection: Upgrade", "Upgrade: echo"))
    assert client.read_response().status == 101
    stage.weir.signal(signal.SIGTERM)
    upstream.send(b"still open")
    client.expect(b"still open")
    client.expect_end()
    upstream.expect_end()
    stage.weir.drained(cut=1)


def test_what_a_client_left_in_a_tunnel_is_still_sent(new_stage):
    """By a unix socket: the room of a TCP socket grows while one looks."""
    stage = new_stage("""
[listener web]
bind = @web
upstream = app
[upstream app]
server = @originunix
""", drain_timeout="60s")
    client = stage.connect()
    client.send(get("/ws", "Connection: Upgrade", "Upgrade: x"))
    upstream = stage.origins["originunix"].asked()
    upstream.send(answer_head(101, "Connection: Upgrade", "Upgrade: x"))
    assert client.read_response().status == 101
    upstream.half_close()
    client.expect_close()
    sent = stage.send_into_queue(client)
    client.close()
    # The admin's own is left.
    stage.weir.eventually_metric(1, "weir_exchange_slots_used")
    assert stage.count("weir_memory_used_bytes", pool="send_queue") > 0
    stage.weir.drain()
    eventually(lambda: refused(stage, "web"), "the listener is closed")
    assert upstream.read_to_end() == b"q" * sent
    upstream.close()
    stage.weir.drained()


def test_drain_timeout_cuts_a_body_that_never_ends(new_stage):
    stage = new_stage(INI, drain_timeout="300ms")
    client = stage.connect()
    client.send(post("/", b"z" * 100)[:-1])
    upstream = stage.origin.next()
    stage.weir.signal(signal.SIGTERM)
    got = client.read_response()
    assert (got.status, got.reason) == (503, "drain_cut")
    client.expect_end()
    upstream.expect_end()
    assert not upstream.saw_whole_request()
    stage.weir.drained(cut=1)


@pytest.mark.parametrize("lines", [["Content-Length: 22000"], []], ids=["length", "until-close"])
def test_drain_timeout_ends_a_client_that_does_not_read(new_stage, lines):
    """weir has its whole answer, but the last of it cannot be sent."""
    stage = new_stage(INI.replace("bind = @web", "bind = @web\nsend_buffer = 4k"),
                      drain_timeout="300ms")
    client = stage.connect(recv_buffer=4096)
    upstream = stage.origin.asked_by(client, get("/", "Connection: close", version="1.0"))
    upstream.send(answer_head(200, *lines) + b"x" * 22000)
    upstream.close()
    stage.weir.eventually_metric(1, "weir_http_requests_total", listener="web")
    stage.weir.signal(signal.SIGTERM)
    stage.weir.drained(cut=1)
    client.expect_reset()
    assert len(client.received) < 22000


def test_a_second_signal_ends_at_once(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    client.send(get("/no_answer"))
    stage.origin.next().read_request()
    stage.weir.drain()
    stage.weir.signal(signal.SIGTERM)
    got = client.read_response()
    assert (got.status, got.reason) == (503, "drain_cut")
    client.expect_close()
    client.close()
    stage.weir.drained(cut=1)
    assert "second signal" in stage.weir.log


def test_two_signals_in_a_row_end_at_once(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    client.send(get("/no_answer"))
    stage.origin.next().read_request()
    stage.weir.signal(signal.SIGTERM)
    stage.weir.signal(signal.SIGINT)
    client.expect_end()
    client.close()
    stage.weir.drained(cut=1)


def test_drain_timeout_of_zero_ends_at_once(new_stage):
    stage = new_stage(INI, drain_timeout="0s")
    client = stage.connect()
    client.send(get("/no_answer"))
    stage.origin.next().read_request()
    stage.weir.signal(signal.SIGTERM)
    assert client.read_response().reason == "drain_cut"
    client.expect_close()
    client.close()
    stage.weir.drained(cut=1)


def test_sighup_does_not_end_it(new_stage):
    stage = new_stage(INI)
    stage.weir.signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP" in stage.weir.log, "the log speaks of SIGHUP")
    assert stage.connect().ask(get("/hello")).body == b"hello"


def test_probes_see_the_drain(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    assert stage.weir.admin_get("/readyz").status == 200
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/slow"))
    stage.weir.drain()
    for _ in range(3):
        assert stage.weir.admin_get("/readyz").status == 503
        assert stage.weir.admin_get("/healthz").status == 200
        assert stage.metrics().need("weir_http_requests_in_flight") >= 1
    upstream.send(answer(200, b"finished"))
    assert client.read_response().body == b"finished"
    stage.weir.drained()


def test_every_listener_of_every_worker_stops(new_stage):
    stage = new_stage(BOTH, drain_timeout="60s", workers=2)
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/slow"))
    stage.weir.signal(signal.SIGTERM)
    for name in ("web", "port6", "unix"):
        eventually(lambda: refused(stage, name), f"connects to {name} are refused")
    upstream.send(answer(200, b"finished"))
    assert client.read_response().body == b"finished"
    stage.weir.drained()


class Asker(threading.Thread):
    """Asks and asks; stops when a connect is refused, or the connection ends between requests."""

    def __init__(self, port, keep_alive):
        super().__init__(daemon=True)
        self.port = port
        self.keep_alive = keep_alive
        self.answered = 0
        self.failed = []

    def run(self):
        try:
            while self.ask_on_a_new_connection():
                pass
        except BaseException as error:
            self.failed.append(repr(error))

    def ask_on_a_new_connection(self):
        try:
            sock = socket.create_connection(self.port.target, timeout=10)
        except ConnectionRefusedError:
            return False
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self.ask(sock):
                pass
        return True

    def ask(self, sock):
        """Whether the connection goes on."""
        lines = [] if self.keep_alive else ["Connection: close"]
        sock.sendall(get("/load", *lines))
        got = b""
        while not got.endswith(b"<end>"):
            piece = sock.recv(65536)
            if not piece:
                self.failed.append(f"after {self.answered}: the answer ended with {got[-100:]!r}")
                return False
            got += piece
        assert got.startswith(b"HTTP/1.1 200 "), got[:200]
        self.answered += 1
        return b"\r\nConnection: close\r\n" not in got


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "close"])
def test_drain_under_load_fails_no_request(new_stage, workers, keep_alive):
    stage = new_stage(INI, drain_timeout="30s", workers=workers)
    stage.origin.serve(lambda request: answer(200, b"x" * 500 + b"<end>"))
    askers = [Asker(stage.things["web"], keep_alive) for _ in range(12)]
    for asker in askers:
        asker.start()
    eventually(lambda: all(asker.answered > 20 for asker in askers), "every client is served")
    stage.weir.signal(signal.SIGTERM)
    for asker in askers:
        asker.join(20)
        assert not asker.is_alive()
    assert [failure for asker in askers for failure in asker.failed] == []
    stage.weir.drained()


def test_unix_sockets_are_removed(new_stage):
    stage = new_stage(BOTH)
    path = stage.things["unix"].target
    assert os.path.exists(path)
    stage.weir.signal(signal.SIGTERM)
    stage.weir.drained()
    assert not os.path.exists(path)


def test_a_cut_answer_does_not_look_whole(new_stage):
    """One whose end only the end of the connection shows (HTTP/1.0) must end by RST."""
    stage = new_stage(INI, drain_timeout="300ms")
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/", version="1.0"))
    upstream.send(answer_head(200) + b"begun")
    client.read_response_head()
    client.expect(b"begun")
    stage.weir.signal(signal.SIGTERM)
    client.expect_reset()
    stage.weir.drained(cut=1)
