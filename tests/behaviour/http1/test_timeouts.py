"""Every timeout fires, not before its time, and progress puts it off."""

import time

import pytest

from harness.bulk import Stopped
from harness.http1 import answer, answer_chunked, answer_head, get, post, post_chunked
from harness.peer import Ended, WasReset

FIRES_S = 0.3
# Pauses of a peer that is not late on the listener and the upstream "steady", in all longer than
# their 700 ms: one of them may be held up for most of that time.
PAUSES, PAUSE_S = 14, 0.06
# Clocks are read once a turn: a timeout may count from a moment ago.
EARLY_S = 0.02

INI = """
[listener head]
bind = @head
upstream = app
timeout_request = 300ms
[listener body]
bind = @body
upstream = app
timeout_client = 300ms
min_read_rate = 0
max_body_size = 0
[listener rate]
bind = @rate
upstream = app
min_read_rate = 100000/s
timeout_client = 1s
[listener idle]
bind = @idle
upstream = app
timeout_keepalive = 300ms
[listener slow]
bind = @slow
upstream = app
timeout_keepalive = 700ms
send_buffer = 16k
[listener server]
bind = @server
upstream = slow
min_read_rate = 0
max_body_size = 0
[listener late]
bind = @late
upstream = late
max_body_size = 0
[listener listens]
bind = @listens
upstream = app
timeout_client = 700ms
min_read_rate = 0
[listener both]
bind = @both
upstream = slow
timeout_client = 600ms
min_read_rate = 0
[listener pool]
bind = @pool
upstream = pooled
[listener steady]
bind = @steady
upstream = steady
timeout_client = 700ms
timeout_keepalive = 700ms
min_read_rate = 0
[listener upload]
bind = @upload
upstream = upload
[listener tunnels]
bind = @tunnels
upstream = tunnels
[upstream app]
server = @origin
[upstream slow]
server = @origin
timeout_server = 300ms
[upstream late]
server = @origin
timeout_server = 700ms
[upstream steady]
server = @origin
timeout_server = 700ms
timeout_tunnel = 700ms
[upstream pooled]
server = @origin
keepalive_timeout = 300ms
timeout_tunnel = 300ms
[upstream upload]
server = @originslow
timeout_server = 700ms
[upstream tunnels]
server = @origin
timeout_tunnel = 1s
"""


class Clock:
    """Begins before what starts the timeout: the test may be held up behind it."""

    def __init__(self):
        self.started = time.monotonic()

    def fired(self):
        passed_s = time.monotonic() - self.started
        assert passed_s >= FIRES_S - EARLY_S, "the timeout fired before its time"


def refused(client, status, reason):
    got = client.read_response()
    assert (got.status, got.reason) == (status, reason)
    client.expect_end()


def drip(client, pieces, pause_s=0.02):
    """Sends piece after piece until weir answers or ends; the pauses are what is being tested."""
    for piece in pieces:
        client.look()
        if client.buffered or client.ended:
            return
        try:
            client.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            return
        time.sleep(pause_s)


def begun(stage, first):
    """A client on the listener "head" whose first bytes are there when weir sees it."""
    with Stopped(stage.weir):
        client = stage.connect("head")
        client.send(first)
    return client


def test_request_head_timeout(stage):
    clock = Clock()
    client = begun(stage, b"GET / HTTP/1.1\r\nHost: te")
    refused(client, 408, "request_timeout")
    clock.fired()
    assert stage.origin.saw_nothing()


def test_the_timeout_of_a_head_request_is_answered_without_a_body(stage):
    client = begun(stage, b"HEAD / HTTP/1.1\r\nHost: te")
    got = client.read_response("HEAD")
    assert (got.status, got.reason) == (408, "request_timeout")
    client.expect_close()


def test_request_head_that_drips_times_out(stage):
    """Slowloris: progress does not put this one off."""
    clock = Clock()
    client = begun(stage, b"GET / HTTP/1.1\r\nHost: test\r\n")
    drip(client, (b"X" for _ in range(3000)))
    refused(client, 408, "request_timeout")
    clock.fired()


def test_request_head_of_the_second_request_times_out(stage, origin):
    client = begun(stage, get())
    origin.asked().send(answer())
    assert client.read_response().status == 200
    clock = Clock()
    client.send(b"GET /second HTTP/1.1\r\n")
    refused(client, 408, "request_timeout")
    clock.fired()


def test_connection_that_never_speaks_is_closed(stage):
    clock = Clock()
    client = stage.connect("head")
    client.expect_end()
    clock.fired()


def test_client_body_timeout(stage, origin):
    client = stage.connect("body")
    clock = Clock()
    client.send(post("/", b"x" * 100)[:-50])
    upstream = origin.next()
    refused(client, 408, "client_timeout")
    clock.fired()
    upstream.expect_end()
    assert not upstream.saw_whole_request()


def test_client_chunked_body_timeout(stage, origin):
    client = stage.connect("body")
    client.send(post_chunked("/", b"x" * 100)[:-5])
    upstream = origin.next()
    refused(client, 408, "client_timeout")
    upstream.expect_end()
    assert not upstream.saw_whole_request()


def test_client_body_with_progress_takes_its_time(stage, origin):
    client = stage.connect("steady")
    head, body = post("/", b"0123456789" * 2).split(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    drip(client, (body[at:at + 1] for at in range(len(body))), pause_s=PAUSE_S)
    upstream = origin.next()
    assert upstream.read_request().body == body
    upstream.send(answer())
    assert client.read_response().status == 200


def test_client_timeout_does_not_run_while_the_origin_thinks(stage, origin):
    client = stage.connect("body")
    upstream = origin.asked_by(client, post("/", b"done"))
    time.sleep(2 * FIRES_S)
    upstream.send(answer(200, b"late"))
    assert client.read_response().body == b"late"


def test_client_that_stops_reading_is_cut(stage, origin):
    client = stage.connect("body", recv_buffer=4096)
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, "Content-Length: 1000000000"))
    clock = Clock()
    try:
        while True:
            upstream.send(b"x" * 100000)
    except (BrokenPipeError, ConnectionResetError):
        pass
    clock.fired()


def test_min_read_rate(stage, origin):
    client = stage.connect("rate")
    client.send(post("/", b"x" * 100000)[:200])
    origin.next()
    drip(client, (b"x" for _ in range(1500)))
    got = client.read_response()
    assert (got.status, got.reason) == (408, "client_too_slow")
    client.expect_end()
    assert not origin.connections[0].saw_whole_request()


def test_a_body_above_min_read_rate_is_left_alone(stage, origin):
    client = stage.connect("rate")
    head, body = post("/", b"x" * 1000000).split(b"\r\n\r\n")
    upstream = origin.asked_by(client, head + b"\r\n\r\n", whole=False)
    for at in range(0, len(body), 20000):
        client.send(body[at:at + 20000])
        upstream.read_exactly(20000)
        time.sleep(0.03)
    upstream.send(answer())
    assert client.read_response().status == 200


def test_keepalive_timeout_closes_idle(stage):
    client = stage.connect("idle")
    clock = Clock()
    stage.exchange(get(), client=client)
    client.expect_close()
    clock.fired()


def test_keepalive_timeout_begins_anew_with_each_request(stage):
    client = stage.connect("steady")
    for _ in range(PAUSES):
        time.sleep(PAUSE_S)
        stage.exchange(get(), client=client)


def test_keepalive_timeout_does_not_run_during_a_request(stage, origin):
    client = stage.connect("idle")
    upstream = origin.asked_by(client, get())
    time.sleep(2 * FIRES_S)
    upstream.send(answer(200, b"late"))
    assert client.read_response().body == b"late"


def test_keepalive_timeout_does_not_run_while_an_answer_is_read(stage, origin):
    client = stage.connect("slow", recv_buffer=4096)
    upstream = origin.asked_by(client, get("/"))
    upstream.send(answer_chunked(*[b"x" * 1000] * 40))
    # The one that asks for the metrics is one too.
    stage.weir.eventually_metric(1, "weir_http_requests_in_flight")
    assert stage.count("weir_memory_used_bytes", pool="send_queue") > 0
    time.sleep(1)  # longer than its timeout_keepalive
    assert client.read_response().body == b"x" * 40000
    client.send(get("/again"))
    upstream.read_request()
    upstream.send(answer(200, b"again"))
    assert client.read_response().body == b"again"


def test_server_timeout(stage, origin):
    client = stage.connect("server")
    clock = Clock()
    upstream = origin.asked_by(client, get())
    got = client.read_response()
    assert (got.status, got.reason) == (504, "server_timeout")
    assert "http_response_timeout" in got["Proxy-Status"]
    clock.fired()
    upstream.expect_end()


def test_server_timeout_in_the_middle_of_a_head(stage, origin):
    client = stage.connect("late")
    upstream = origin.asked_by(client, get())
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-")
    got = client.read_response()
    assert (got.status, got.reason) == (504, "server_timeout")
    upstream.expect_end()


@pytest.mark.parametrize("lines", [["Content-Length: 10"], ["Transfer-Encoding: chunked"]],
                         ids=["length", "chunked"])
def test_server_timeout_in_the_middle_of_a_body_cuts_the_answer(stage, origin, lines):
    client = stage.connect("late")
    upstream = origin.asked_by(client, get())
    clock = Clock()
    upstream.send(answer_head(200, *lines) + b"5\r\nhello\r\n"[:5])
    with pytest.raises((Ended, WasReset)):
        client.read_response()
    clock.fired()
    upstream.expect_end()


def test_server_with_progress_takes_its_time(stage, origin):
    client = stage.connect("steady")
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, f"Content-Length: {PAUSES}"))
    for _ in range(PAUSES):
        time.sleep(PAUSE_S)
        upstream.send(b"x")
    assert client.read_response().body == b"x" * PAUSES


def test_server_timeout_does_not_run_while_the_client_uploads(stage, origin):
    client = stage.connect("steady")
    head, body = post("/", b"0123456789" * 2).split(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    drip(client, (body[at:at + 1] for at in range(len(body))), pause_s=PAUSE_S)
    upstream = origin.next()
    assert upstream.read_request().body == body
    upstream.send(answer(200, b"fine"))
    assert client.read_response().body == b"fine"


def test_who_listens_to_an_answer_is_not_late_with_the_rest_of_its_request(stage, origin):
    """Once an answer has begun, silence is its server's."""
    client = stage.connect("listens")
    upstream = origin.asked_by(client, post("/", b"some more")[:-5], whole=False)
    upstream.expect(b"some")
    upstream.send(answer_head(200, "Content-Length: 8") + b"half")
    client.read_response_head()
    client.expect(b"half")
    time.sleep(1)  # longer than its timeout_client
    client.send(b" more")
    upstream.expect(b" more")
    upstream.send(b"rest")
    client.expect(b"rest")
    assert stage.exchange(get(), client=client)[1].status == 200


def test_an_answer_that_stops_is_its_servers_also_while_the_request_goes_on(stage, origin):
    """After timeout_server, or timeout_client, which is longer."""
    late = stage.ended("server_timeout")
    client = stage.connect("both")
    clock = Clock()
    upstream = origin.asked_by(client, post("/", b"some more")[:-5], whole=False)
    upstream.send(answer_head(200, "Content-Length: 8") + b"half")
    client.read_response_head()
    client.expect(b"half")
    client.expect_end()
    assert time.monotonic() - clock.started >= 2 * FIRES_S - EARLY_S
    late.grows()
    upstream.expect_end()


def test_server_that_reads_nothing_times_out(stage, origin):
    """timeout_server is about no progress, also of the request."""
    client = stage.connect("late")
    upstream = origin.asked_by(client, get("/", "Content-Length: 1000000000", method="POST"),
                               whole=False)
    clock = Clock()
    client.send_until_stuck(b"x" * 100000, stuck_s=0.1)
    refused(client, 504, "server_timeout")
    clock.fired()
    upstream.expect_end()


def test_server_that_reads_slowly_what_the_kernel_holds_is_not_late(stage):
    """weir has given the whole request to the kernel; the server reads it for longer than
    timeout_server, and answers then."""
    client = stage.connect("upload")
    client.send(post("/", b"z" * 40000))
    upstream = stage.origins["originslow"].accept()
    taken = b""
    for _ in range(60):
        time.sleep(0.03)  # the server's pace
        taken += upstream.sock.recv(600)
    upstream.buffered += taken
    assert upstream.read_request().body == b"z" * 40000
    upstream.send(answer(200, b"good"))
    assert client.read_response().body == b"good"


def test_keepalive_timeout_of_upstream(stage, origin):
    client = stage.connect("pool")
    clock = Clock()
    stage.exchange(get(), client=client)
    origin.connections[0].expect_close()
    clock.fired()
    _, got = stage.exchange(get(), answer(200, b"anew"), client)
    assert got.body == b"anew" and len(origin.connections) == 2


def switch(stage, client):
    upstream = stage.origin.asked_by(client, get("/ws", "Connection: Upgrade", "Upgrade: echo"))
    upstream.send(answer_head(101, "Connection: Upgrade", "Upgrade: echo"))
    assert client.read_response().status == 101
    return upstream


def test_tunnel_timeout(stage):
    client = stage.connect("pool")
    ends = stage.ended("tunnel_timeout")
    clock = Clock()
    upstream = switch(stage, client)
    client.expect_end()
    upstream.expect_end()
    clock.fired()
    ends.grows()


def test_tunnel_with_traffic_one_way_stays(stage):
    client = stage.connect("steady")
    upstream = switch(stage, client)
    for _ in range(PAUSES):
        time.sleep(PAUSE_S)
        upstream.send(b"x")
    client.expect(b"x" * PAUSES)
    for _ in range(PAUSES):
        time.sleep(PAUSE_S)
        client.send(b"y")
    upstream.expect(b"y" * PAUSES)


def test_tunnel_whose_last_bytes_are_read_slowly_stays(stage):
    """They are all the kernel's by then."""
    client = stage.connect("tunnels", recv_buffer=4096)
    upstream = switch(stage, client)
    upstream.send(b"z" * 60000)
    taken = b""
    while len(taken) < 40000:
        time.sleep(0.04)  # the client's pace
        taken += client.sock.recv(1000)
    upstream.send(b"and on")  # while some are still to be read: nobody has rested
    client.expect(b"z" * (60000 - len(taken)) + b"and on")
