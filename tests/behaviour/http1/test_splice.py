"""Long bodies and streams pass inside the kernel; only weir_spliced_bytes_total tells."""

import resource
import time

import pytest

from harness.bulk import (INI, MB, MUCH, Sending, Stopped, begin, download, held, spliced,
                          tunnel, upload)
from harness.http1 import answer, answer_chunked, answer_head, get, post, post_chunked
from harness.wait import readable

# The shortest body that is expected to be worth it.
LONG = 65536
PIPES = 128


@pytest.mark.parametrize("size", [LONG - 1, LONG, LONG + 1, MB, 20 * MB])
def test_downloads_pass_whole(stage, client, size):
    before = spliced(stage)
    body = MUCH[:size]
    _, sending = download(stage, client, body)
    assert client.read_exactly(size) == body
    sending.done()
    assert spliced(stage) - before == (size if size >= LONG else 0)
    # What comes at once with the head is copied.
    upstream = begin(stage, client, get())
    sending = Sending(upstream, answer(200, body))
    assert client.read_response().body == body
    sending.done()
    assert spliced(stage) - before <= 2 * size


@pytest.mark.parametrize("size", [LONG - 1, LONG, LONG + 1, MB, 20 * MB])
@pytest.mark.parametrize("dials", [True, False])
def test_uploads_pass_whole(stage, client, origin, size, dials):
    if not dials:
        stage.exchange(get(), client=client)
    before = spliced(stage)
    body = MUCH[:size]
    upstream = upload(stage, client, size)
    sending = Sending(client, body)
    upstream.expect(body)
    sending.done()
    upstream.send(answer(200, b"thanks"))
    assert client.read_response().body == b"thanks"
    assert spliced(stage) - before == (size if size >= LONG else 0)
    # What comes at once with the head is copied.
    sending = Sending(client, post("/", body))
    assert upstream.read_request().body == body
    sending.done()
    upstream.send(answer(200, b"thanks"))
    assert client.read_response().body == b"thanks"
    assert spliced(stage) - before <= 2 * size


def test_an_upload_on_a_used_connection_passes_though_its_server_is_dialled(stage, client, origin):
    """Its first bytes come in several reads while there is nobody to pass them to."""
    upstream = begin(stage, client, get())
    upstream.send(answer(200, b"", "Connection: close"))
    client.read_response()
    before = spliced(stage)
    body = MUCH[:4 * MB]
    with Stopped(stage.weir):
        client.send(post("/", body)[:30000])
    upstream = origin.accept()
    upstream.read_request_head()
    sending = Sending(client, body[30000 - (len(post("/", body)) - len(body)):])
    upstream.expect(body)
    sending.done()
    upstream.send(answer(200, b"thanks"))
    assert client.read_response().body == b"thanks"
    assert spliced(stage) - before > 3 * MB


def test_close_delimited_bodies_pass_whole(stage, client):
    """An HTTP/1.0 client gets them as they come; for others they become chunks."""
    before = spliced(stage)
    upstream, sending = download(stage, client, MUCH, version="1.0")
    got = client.read_exactly(len(MUCH))
    sending.done()
    upstream.close()
    client.expect_close()
    assert got == MUCH
    assert spliced(stage) - before > 10 * MB


def test_short_and_chunked_bodies_are_copied(stage, client, origin):
    before = spliced(stage)
    parts = [MUCH[at:at + 70000] for at in range(0, 2 * MB, 70000)]
    sending = Sending(client, post_chunked("/", *parts))
    upstream = origin.next()
    assert upstream.read_request().body == b"".join(parts)
    sending.done()
    sending = Sending(upstream, answer_chunked(*parts))
    assert client.read_response().body == b"".join(parts)
    sending.done()
    for _ in range(20):
        stage.exchange(post("/", MUCH[:LONG - 1]), answer(200, MUCH[:LONG - 1]), client)
    assert spliced(stage) == before


def test_both_directions_pass_at_once(stage, client, origin):
    before = spliced(stage)
    up, down = MUCH[:12 * MB], MUCH[5 * MB:]
    sending_up = Sending(client, post("/", up))
    upstream = origin.asked(whole=False)
    sending_down = Sending(upstream, answer_head(200, f"Content-Length: {len(down)}") + down[:-1])
    client.read_response_head()
    assert upstream.read_exactly(len(up)) == up
    assert client.read_exactly(len(down) - 1) == down[:-1]
    sending_up.done()
    sending_down.done()
    upstream.send(down[-1:])
    client.expect(down[-1:])
    assert spliced(stage) - before > 20 * MB


def test_connections_are_used_again_after_long_bodies(stage, client, origin):
    """On one connection each: small and long requests and answers in turn."""
    before = spliced(stage)
    for number in range(12):
        up = MUCH[number:number + (MB if number % 3 == 0 else 10)]
        down = MUCH[number:number + (MB if number % 2 == 0 else 10)]
        sending = Sending(client, post(f"/{number}", up))
        upstream = origin.next()
        seen = upstream.read_request()
        sending.done()
        assert (seen.target, seen.body) == (f"/{number}", up)
        sending = Sending(upstream, answer(200, down))
        assert client.read_response().body == down
        sending.done()
    assert len(origin.connections) == 1
    assert spliced(stage) - before > 6 * MB


@pytest.mark.parametrize("size", [LONG, 3 * MB])
def test_a_request_behind_a_long_upload_is_a_request(stage, client, origin, size):
    body = MUCH[:size]
    sending = Sending(client, post("/first", body) + post("/second", body[:100]) + get("/third"))
    upstream = origin.next()
    assert upstream.read_request().body == body
    upstream.send(answer(200, b"one"))
    assert client.read_response().body == b"one"
    for target, sent in (("/second", body[:100]), ("/third", b"")):
        upstream = origin.next()
        seen = upstream.read_request()
        assert (seen.target, seen.body) == (target, sent)
        upstream.send(answer(200, target.encode()))
        assert client.read_response().body == target.encode()
    sending.done()


@pytest.mark.parametrize("method,status", [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_answers_without_a_body_do_not_wait_for_one(stage, client, method, status):
    length = [] if status == 204 else [f"Content-Length: {MB}"]
    for _ in range(2):
        upstream = begin(stage, client, get(method=method))
        upstream.send(answer_head(status, *length))
        assert client.read_response(method).status == status
    _, got = stage.exchange(get(), answer(200, MUCH[:MB]), client)
    assert got.body == MUCH[:MB]


def test_an_upload_that_waits_for_a_100_passes(stage, client, origin):
    before = spliced(stage)
    client.send(get("/", "Expect: 100-continue", f"Content-Length: {4 * MB}", method="POST"))
    upstream = origin.asked(whole=False)
    upstream.send(answer_head(100, phrase="Continue"))
    assert client.read_response().status == 100
    sending = Sending(client, MUCH[:4 * MB])
    upstream.expect(MUCH[:4 * MB])
    sending.done()
    upstream.send(answer(200, b"done"))
    assert client.read_response().body == b"done"
    assert spliced(stage) - before > 3 * MB
    _, got = stage.exchange(get("/next"), answer(200, b"next"), client)
    assert got.body == b"next"


def test_an_early_answer_ends_a_long_upload(stage, client, origin):
    upstream = origin.asked_by(client, post("/", MUCH)[:MB // 8], whole=False)
    sending = Sending(client, MUCH[:2 * MB])
    upstream.read_exactly(2 * MB)
    sending.done()  # some of it is on its way, most has yet to come
    upstream.send(answer(413, b"too much"))
    assert client.read_response().body == b"too much"
    upstream.expect_end()
    client.expect_end()


# Tunnels.

def test_tunnels_carry_megabytes_and_messages_in_turn(stage, client):
    upstream = tunnel(stage, client)
    for _ in range(3):
        before = spliced(stage)
        sending = [Sending(client, MUCH[:8 * MB]), Sending(upstream, MUCH[8 * MB:])]
        upstream.expect(MUCH[:8 * MB])
        client.expect(MUCH[8 * MB:])
        for one in sending:
            one.done()
        assert spliced(stage) - before > 5 * MB
        for number in range(30):
            message = b"message %d" % number
            client.send(message)
            upstream.expect(message)
            upstream.send(message * 2)
            client.expect(message * 2)
        copied = spliced(stage)
        client.send(b"a message is no stream")
        upstream.expect(b"a message is no stream")
        upstream.send(b"nor is this")
        client.expect(b"nor is this")
        assert spliced(stage) == copied


@pytest.mark.parametrize("size", [40000, 200000])
@pytest.mark.parametrize("sender", ["client", "upstream"])
def test_a_tunnel_half_closes_behind_a_stream(stage, client, sender, size):
    """FIN may be there already when the stream proves to be one."""
    upstream = tunnel(stage, client)
    here, there = (client, upstream) if sender == "client" else (upstream, client)
    here.send(b"x")
    there.expect(b"x")
    with Stopped(stage.weir):
        here.send(MUCH[:size])
        here.half_close()
    there.expect(MUCH[:size])
    there.expect_close()
    there.send(b"the other direction")
    here.expect(b"the other direction")
    there.close()
    here.expect_close()


def test_a_half_closed_client_may_read_slowly(stage, origin):
    """Waiting for it must not keep the worker busy: its FIN ends every poll at once."""
    client = stage.connect("narrow", recv_buffer=4096)
    client.send(get())
    client.half_close()
    upstream = origin.asked()
    upstream.send(answer_head(200, f"Content-Length: {len(MUCH)}"))
    client.read_response_head()
    sending = Sending(upstream, MUCH)
    held(stage)
    before = stage.count("weir_uring_enter_total")
    time.sleep(0.5)
    assert stage.count("weir_uring_enter_total") - before < 500
    got = client.read_exactly(100000)
    assert got == MUCH[:100000]
    client.reset()
    sending.wait()


# Slow readers.

def test_slow_readers_get_every_byte(new_stage):
    """More of them than pipes: the others' bytes are copied, in bounded memory."""
    stage = new_stage(INI)
    body = MUCH[:MB]
    resident = stage.weir.rss_bytes()
    clients, sendings = [], []
    for _ in range(200):
        client = stage.connect("narrow", recv_buffer=16384)
        clients.append(client)
        sendings.append(download(stage, client, body)[1])
    stage.weir.eventually_metric(PIPES, "weir_pipes", state="used")
    stage.weir.eventually_metric(lambda count: count > 0, "weir_pipe_shortages_total")
    assert stage.weir.rss_bytes() - resident < 64 * MB
    other = stage.connect()
    _, sending = download(stage, other, body)
    assert other.read_exactly(len(body)) == body
    sending.done()
    waiting = set(clients)
    while waiting:
        for client in readable(waiting):
            client.look()
            if len(client.buffered) >= len(body):
                assert client.take(len(body)) == body
                waiting.discard(client)
    for sending in sendings:
        sending.done()
    stage.weir.eventually_metric(0, "weir_pipes", state="used")
    before = spliced(stage)
    _, sending = download(stage, other, body)
    assert other.read_exactly(len(body)) == body
    sending.done()
    assert spliced(stage) - before == len(body)


def test_slow_origins_get_every_byte(stage, origin):
    body = MUCH
    pairs = []
    for _ in range(10):
        client = stage.connect()
        client.send(get("/", f"Content-Length: {len(body)}", method="POST"))
        upstream = origin.accept()
        upstream.read_request_head()
        pairs.append((client, upstream, Sending(client, body)))
    held(stage, 10)
    for client, upstream, sending in reversed(pairs):
        upstream.expect(body)
        sending.done()
        upstream.send(answer(200, b"all"))
        assert client.read_response().body == b"all"


def test_without_descriptors_bytes_are_copied(new_stage):
    stage = new_stage(INI)
    client = stage.connect()
    stage.exchange(get(), client=client)  # both connections are there
    _, hard = resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE, (stage.weir.fd_count(), hard))
    upstream = begin(stage, client, get())
    sending = Sending(upstream, answer(200, MUCH))
    assert client.read_response().body == MUCH
    sending.done()
    sending = Sending(client, post("/", MUCH))
    assert stage.origin.next().read_request().body == MUCH
    sending.done()
    upstream.send(answer(200, b"thanks"))
    assert client.read_response().body == b"thanks"
    resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert spliced(stage) == 0
    assert stage.count("weir_pipe_shortages_total") > 0
    stage.exchange(get(), answer(200, MUCH[:MB]), client)
    assert spliced(stage) > 0


def test_a_server_connection_does_not_wait_for_the_reader_of_its_last_answer(stage, origin):
    """The answer was short enough to come at once: what the kernel did not take of it is still
    queued for a slow client when the connection is used again, and bytes pass on it."""
    client = stage.connect("narrow", recv_buffer=4096)
    upstream = begin(stage, client, get())
    upstream.send(answer(200, b"first"))
    assert client.read_response().body == b"first"
    client.send(get("/slow"))
    upstream.read_request()
    with Stopped(stage.weir):
        upstream.send(answer(200, MUCH[:65000]))
    other = stage.connect()
    for number in range(3):
        other.send(get(f"/{number}"))
        assert origin.next().read_request().target == f"/{number}"
        sending = Sending(upstream, answer(200, MUCH[number:MB]))
        assert other.read_response().body == MUCH[number:MB]
        sending.done()
    assert len(origin.connections) == 1
    assert stage.count("weir_memory_used_bytes", pool="send_queue") > 0, "the first is still queued"
    assert client.read_response().body == MUCH[:65000]
