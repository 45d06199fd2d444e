"""Who reads slowly holds back his own stream and no other; a drain lets streams finish."""

import signal
import threading

from harness.bulk import MB, pattern
from harness.h2_server import CANCEL, WINDOW, H2Server
from harness.http1 import get, post

INI = """
[defaults]
max_body_size = 0
min_read_rate = 0
[listener web]
bind = @web
upstream = app
send_buffer = 16k
[upstream app]
protocol = h2
server = @origin
[upstream unused]
protocol = h2
server = @dead
"""
CHUNKED = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def head_of_upload(length):
    return post("/up", b"").replace(b": 0", b": %d" % length)


def one(stage, request, settings=None):
    client = stage.connect(recv_buffer=8192)
    client.send(request)
    server = H2Server(stage.origin.accept(), settings)
    return client, server, server.next_request()


def other_works(stage, server):
    client = stage.connect()
    client.send(get("/other"))
    request = server.next_request()
    server.answer(request, 200, b"other")
    assert client.read_response().body == b"other"


def test_a_server_that_does_not_read_stops_the_client(stage):
    body = pattern(20 * MB)
    client, server, request = one(stage, head_of_upload(len(body)))
    server.stingy = True
    sent = client.send_until_stuck(body[:65536])
    assert sent < 15 * MB
    server.look()
    assert len(request.body) == 65535  # the window it opened, to the byte
    other_works(stage, server)
    server.answer(request, 200, b"enough")
    assert client.read_response().body == b"enough"


def test_a_slow_server_gets_all_of_it(stage):
    body = pattern(3 * MB)
    client, server, request = one(stage, head_of_upload(len(body)))
    server.stingy = True
    sending = threading.Thread(target=client.send, args=(body,))
    sending.start()
    while not request.ended:
        server.until(lambda: request.unread or request.ended, "more of the body")
        server.read(request, min(request.unread, 30000))
    sending.join()
    assert bytes(request.body) == body
    server.answer(request, 200)
    assert client.read_response().status == 200


def test_small_windows_of_the_server(stage):
    body = pattern(10000)
    client, server, request = one(stage, head_of_upload(len(body)), {WINDOW: 10})
    server.until(lambda: server.acknowledged, "SETTINGS to be acknowledged")
    client.send(body)
    server.until(lambda: request.ended, "its end")
    assert bytes(request.body) == body
    server.answer(request, 200)
    assert client.read_response().status == 200


def test_an_answer_gives_up_an_end_that_has_no_window(stage):
    """The stream would count at the server until timeout_server."""
    client, server, request = one(stage, CHUNKED, {WINDOW: 0})
    server.until(lambda: server.acknowledged, "SETTINGS to be acknowledged")
    client.send(b"0\r\n\r\n")
    server.echo()
    server.answer(request, 413, b"too much")
    assert client.read_response().body == b"too much"
    server.until(lambda: request.ended or request.reset is not None, "the end of the stream")
    assert request.reset == CANCEL
    client.send(get("/other"))  # it was a whole request
    request = server.next_request()
    server.answer(request, 200, b"other")
    assert client.read_response().body == b"other"


def test_a_window_that_shrinks_below_what_is_out(stage):
    body = pattern(200000)
    client, server, request = one(stage, head_of_upload(len(body)))
    server.stingy = True
    client.send(body[:100000])
    server.until(lambda: len(request.body) == 65535, "a window of body")
    server.settings({WINDOW: 1000})
    server.stingy = False
    server.read(request)
    client.send(body[100000:])
    server.until(lambda: request.ended, "its end")
    assert bytes(request.body) == body
    server.answer(request, 200)
    assert client.read_response().status == 200


def test_a_client_that_does_not_read_stops_its_stream_alone(stage):
    client, server, request = one(stage, get("/down"))
    server.head(request, 200, ("content-length", str(200 * MB)))
    client.read_response_head()
    sent = server.send_until_stuck(request)
    before = None
    while before != sent:  # what weir takes without its client reading comes to an end
        before = sent
        server.echo()
        sent += server.send_until_stuck(request)
    assert sent < 20 * MB
    for _ in range(3):
        other_works(stage, server)
    client.reset()
    server.expect_reset(request, CANCEL)
    other_works(stage, server)


def test_a_slow_client_gets_all_of_it(stage):
    body = pattern(5 * MB)
    client, server, request = one(stage, get("/down"))
    got = []

    def read():
        head = client.read_response_head()
        while sum(map(len, got)) < int(head["Content-Length"]):
            got.append(client.read_exactly(min(65536, len(body) - sum(map(len, got)))))

    reading = threading.Thread(target=read)
    reading.start()
    server.head(request, 200, ("content-length", str(len(body))))
    server.data(request, body, end=True)
    reading.join()
    assert b"".join(got) == body


def test_many_bodies_at_once_on_one_connection(stage):
    bodies = {f"/{number}": pattern(300000 + 1000 * number) for number in range(8)}
    results = {}

    def fetch(path):
        client = stage.connect()
        results[path] = client.ask(post(path, bodies[path])).body

    threads = [threading.Thread(target=fetch, args=(path,)) for path in bodies]
    for thread in threads:
        thread.start()
    server = H2Server(stage.origin.accept())
    server.until(lambda: len(server.unseen) == 8 and all(one.ended for one in server.unseen),
                 "all bodies")
    for request in server.unseen:
        assert bytes(request.body) == bodies[request.path]
        server.head(request, 200)
    # A piece of each in turn.
    left = {request: bytes(request.body) for request in server.unseen}
    while left:
        for request, body in list(left.items()):
            server.data(request, body[:5000], end=len(body) <= 5000)
            left[request] = body[5000:]
            if not left[request]:
                del left[request]
    for thread in threads:
        thread.join()
    assert results == bodies


def test_a_drain_closes_the_idle_and_lets_streams_finish(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, server, request = one(stage, get("/slow"))
    idle_client = stage.connect()
    stage.weir.drain()
    server.answer(request, 200, b"done")
    response = client.read_response()
    assert response.body == b"done"
    server.expect_end()
    idle_client.close()
    stage.weir.drained()


def test_an_idle_connection_ends_with_a_drain(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, server, request = one(stage, get("/"))
    server.answer(request, 200, b"done")
    client.read_response()
    client.close()
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="idle")
    stage.weir.signal(signal.SIGTERM)
    server.expect_end()
    stage.weir.drained()
