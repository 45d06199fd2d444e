"""Bodies are streamed: any size passes whole, and a slow reader slows down his sender only."""

import pytest

from harness.bulk import ENDLESS, MB, Sending, pattern
from harness.http1 import answer, answer_chunked, answer_head, chunk, get, post, post_chunked
from harness.wait import writable

INI = """
[listener web]
bind = @web
upstream = app
max_body_size = 0
[upstream app]
server = @origin
"""

# A stuck reader is felt by the sender before that much is on the way.
STUCK_AT_MOST = 40 * MB
RSS_GROWTH_AT_MOST = 16 * MB


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 16384, 65536, 100000, 3 * MB])
def test_bodies_of_any_size_pass_whole_both_ways(stage, client, origin, size):
    body = pattern(size)
    sending = Sending(client, post("/", body))
    upstream = origin.next()
    seen = upstream.read_request()
    sending.done()
    assert seen.body == body
    sending = Sending(upstream, answer(200, body))
    assert client.read_response().body == body
    sending.done()


def test_chunked_bodies_of_megabytes_pass_whole(stage, client, origin):
    body = pattern(3 * MB)
    parts = [body[at:at + 7777] for at in range(0, len(body), 7777)]
    sending = Sending(client, post_chunked("/", *parts))
    upstream = origin.next()
    seen = upstream.read_request()
    sending.done()
    assert seen.body == body
    sending = Sending(upstream, answer_chunked(*parts))
    assert client.read_response().body == body
    sending.done()


def test_close_delimited_body_of_megabytes_passes_whole(stage, client, origin):
    body = pattern(3 * MB)
    upstream = origin.asked_by(client, get())
    sending = Sending(upstream, answer_head(200) + body)
    head = client.read_response_head()
    sending.done()
    upstream.close()
    assert client.read_body(head).body == body


def test_both_bodies_at_the_same_time(stage, client, origin):
    """An origin may answer while it reads: an echo of a stream."""
    rounds = 50
    client.send(post("/", b"x" * 1000 * rounds)[:-1000 * rounds])
    upstream = origin.asked(whole=False)
    upstream.send(answer_head(200, "Transfer-Encoding: chunked"))
    client.read_response_head()
    for number in range(rounds):
        part = bytes([number]) * 1000
        client.send(part)
        upstream.expect(part)
        upstream.send(chunk(part))
        assert client.read_chunk() == part
    upstream.send(b"0\r\n\r\n")
    assert client.read_chunk() == b""
    assert client.read_trailers() == []


def goes_on(reader, writer, chunks, pushed):
    """When the reader reads again, from the very next byte on, the writer can write again."""
    piece = pattern(65536)
    got = bytearray()
    while not writable(writer, 0):
        assert len(got) < pushed, "all was read, and the sender is still held up"
        got += reader.read_chunk() if chunks else reader.read_exactly(65536)
    assert got == (piece * (len(got) // len(piece) + 1))[:len(got)]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_slow_client_stops_the_origin(stage, origin, framing):
    client = stage.connect(recv_buffer=4096)
    piece = pattern(65536)
    lines = {"length": [f"Content-Length: {ENDLESS}"], "chunked": ["Transfer-Encoding: chunked"],
             "close": []}[framing]
    unit = chunk(piece) if framing == "chunked" else piece
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, *lines))
    head = client.read_response_head()
    resident = stage.weir.rss_bytes()
    pushed = upstream.send_until_stuck(unit * 16)
    assert pushed < STUCK_AT_MOST
    assert stage.weir.rss_bytes() - resident < RSS_GROWTH_AT_MOST
    other = stage.connect()
    _, got = stage.exchange(get("/other"), answer(200, b"not held up"), other)
    assert got.body == b"not held up"
    goes_on(client, upstream, head.chunked, pushed)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_slow_origin_stops_the_client(stage, client, origin, framing):
    piece = pattern(65536)
    line = f"Content-Length: {ENDLESS}" if framing == "length" else "Transfer-Encoding: chunked"
    unit = chunk(piece) if framing == "chunked" else piece
    client.send(get("/", line, method="POST"))
    upstream = origin.next()
    head = upstream.read_request_head()
    resident = stage.weir.rss_bytes()
    pushed = client.send_until_stuck(unit * 16)
    assert pushed < STUCK_AT_MOST
    assert stage.weir.rss_bytes() - resident < RSS_GROWTH_AT_MOST
    other = stage.connect()
    other.send(get("/other"))
    second = origin.accept()
    second.read_request()
    second.send(answer(200, b"not held up"))
    assert other.read_response().body == b"not held up"
    goes_on(upstream, client, head.chunked, pushed)


def test_a_client_that_reads_nothing_cannot_pipeline_forever(stage, origin):
    """Requests behind an unread answer stay in the kernel, not in weir."""
    origin.serve(lambda request: answer(200, b"x" * 2000))
    client = stage.connect(recv_buffer=4096)
    resident = stage.weir.rss_bytes()
    pushed = client.send_until_stuck(get("/" + "p" * 200) * 200)
    assert pushed < STUCK_AT_MOST
    assert stage.weir.rss_bytes() - resident < RSS_GROWTH_AT_MOST
    gone(stage, client)


def gone(stage, client):
    """It leaves, and weir hears of it as it answers: so the origin has to go on until then."""
    client.reset()
    stage.weir.eventually_metric(0, "weir_listener_connections_active", listener="web")


def test_requests_behind_a_slow_one_are_not_collected(stage, client, origin):
    upstream = origin.asked_by(client, get("/slow"))
    resident = stage.weir.rss_bytes()
    pushed = client.send_until_stuck(get("/" + "p" * 200) * 200)
    assert pushed < STUCK_AT_MOST
    assert stage.weir.rss_bytes() - resident < RSS_GROWTH_AT_MOST
    origin.serve()
    upstream.send(answer(200, b"slow", "Connection: close"))
    assert client.read_response().body == b"slow"
    for _ in range(1000):
        assert client.read_response().body == b"origin"
    gone(stage, client)


def test_slow_reading_byte_by_byte_gets_every_byte(stage, origin):
    client = stage.connect(recv_buffer=4096)
    body = pattern(200000)
    upstream = origin.asked_by(client, get())
    sending = Sending(upstream, answer(200, body))
    client.read_response_head()
    got = b""
    while len(got) < len(body):
        got += client.read_exactly(min(997, len(body) - len(got)))
    sending.done()
    assert got == body


def test_leases_are_bounded_while_stuck(stage, origin):
    """Receive buffers kept for a slow reader are few, however much the sender has."""
    clients = []
    for _ in range(4):
        client = stage.connect(recv_buffer=4096)
        client.send(get())
        upstream = origin.accept()
        upstream.read_request()
        upstream.send(answer_head(200, f"Content-Length: {ENDLESS}"))
        client.read_response_head()
        upstream.send_until_stuck(pattern(MB), stuck_s=0.2)
        clients.append(client)
    metrics = stage.metrics()
    leased = metrics.need("weir_uring_buffers", state="leased")
    assert leased <= metrics.need("weir_uring_buffers") / 2
    assert metrics.need("weir_uring_buffers", state="kernel") > 0
