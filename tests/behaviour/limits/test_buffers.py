"""Receive buffers: no client can use them up, however many answers it asks for and does not take.

Of each answer that nobody takes little is held, the less the more is held in all; everybody else is
served meanwhile. What was held back arrives when it is wanted.
"""

import pytest

from harness.bulk import Sending, Stopped, pattern
from harness.h2_client import INITIAL_WINDOW_SIZE, REFUSED_STREAM, H2Client, settings
from harness.h2_server import H2Service
from harness.http1 import answer, answer_chunked, get
from harness.peer import WasReset
from harness.wait import eventually

STREAMS = 100
READERS = 500
BODY = pattern(300_000)
WINDOW = pattern(60_000)
ANSWERS = {"chunked": answer_chunked(BODY), "long": answer(200, BODY)}
# Of an answer: what is queued at most, what was asked for by then, a part of one at each end.
HELD_EACH = 14
# Of those who are served.
HELD_OTHERS = 100

HTTP = """
[listener web]
bind = @web
upstream = app
[listener other]
bind = @other
upstream = other
[upstream app]
server = @origin
[upstream other]
server = @origin_other
"""
# A worker has four buffers for each request that it may have at once, and at least 4096, which is
# no more than that where connections are few, or have one request each.
FEW_CONNECTIONS = {"max_connections": 10}
TEN_EACH = "[defaults]\nh2_max_streams = 10\n" + HTTP
ONE_EACH = "[defaults]\nh2_max_streams = 1\n" + HTTP
# As many as there are streams for, twice over.
GREEDY = 360
HELLO = """
[route hello]
path = /hello
respond = 200 hello
"""
TCP = ONE_EACH.replace("bind = @web", "bind = @web\nmode = tcp")
# Of 1000 that there may be.
ECHOES = 700
ECHO = TCP.replace("upstream = app", "service = back\nsend_buffer = SIZE", 1) + """
[service back]
type = echo
"""


class Others:
    """Clients that ask for little, in HTTP/1 and HTTP/2, and take it."""

    def __init__(self, stage, count=3):
        self.stage = stage
        stage.origins["origin_other"].serve(lambda request: answer(200, b"fine"))
        self.clients = [stage.connect("other") for _ in range(count)]
        self.h2 = H2Client(stage.connect("other"))
        self.stream = -1

    def ask(self):
        for client in self.clients:
            client.send(get("/"))
        self.stream += 2
        self.h2.get(self.stream)

    def are_answered(self):
        for client in self.clients:
            assert client.read_response().body == b"fine"
        assert self.h2.answer(self.stream).body == b"fine"

    def are_served(self):
        """Again and again; returns how many buffers were held meanwhile."""
        most = 0
        for _ in range(5):
            self.ask()
            self.are_answered()
            most = max(most, self.stage.count("weir_uring_buffers", state="leased"))
        return most


def flood(stage, others, upstreams, whole):
    """All servers send at once, as much as goes, and the others ask in the same moment. Returns
    what the servers could not send."""
    left = {}
    with Stopped(stage.weir):
        for upstream in upstreams:
            left[upstream] = send_some(upstream, whole)
        others.ask()
    others.are_answered()
    return left


def send_some(upstream, data):
    timeout = upstream.sock.gettimeout()
    upstream.sock.setblocking(False)
    try:
        while data:
            data = data[upstream.sock.send(data):]
    except BlockingIOError:
        pass
    upstream.sock.settimeout(timeout)
    return data


def ask_in_streams(stage, count=STREAMS):
    """A client whose windows are shut, and its servers."""
    client = H2Client(stage.connect(), window=0)
    upstreams = []
    for stream in range(1, 2 * count, 2):
        client.get(stream)
        upstreams.append(stage.origin.accept())
        upstreams[-1].read_request()
    return client, upstreams


def take_all(client, upstreams, left):
    """The windows open, and every answer arrives."""
    sending = [Sending(upstream, left[upstream]) for upstream in upstreams]
    client.stingy = True    # the windows are wide enough for all of it
    client.peer.send(settings((INITIAL_WINDOW_SIZE, 1 << 20)))
    client.open_window(0, 1 << 30)
    for number in range(len(upstreams)):
        assert client.answer(2 * number + 1).body == BODY
    for one in sending:
        one.done()


@pytest.mark.parametrize("kind", ANSWERS)
def test_of_streams_with_shut_windows_little_is_held(new_stage, kind):
    stage = new_stage(HTTP)
    others = Others(stage)
    client, upstreams = ask_in_streams(stage)
    left = flood(stage, others, upstreams, ANSWERS[kind])
    assert others.are_served() <= STREAMS * HELD_EACH + HELD_OTHERS
    take_all(client, upstreams, left)


@pytest.mark.parametrize("kind", ANSWERS)
def test_streams_with_shut_windows_leave_buffers_to_others(new_stage, kind):
    stage = new_stage(TEN_EACH, max_connections=100)
    others = Others(stage)
    attackers = [ask_in_streams(stage, 10) for _ in range(30)]
    every = [upstream for _, upstreams in attackers for upstream in upstreams]
    left = flood(stage, others, every, ANSWERS[kind])
    assert others.are_served() <= stage.count("weir_buffers_capacity") * 3 // 4
    take_all(*attackers[0], left)
    others.are_served()


@pytest.mark.parametrize("kind", ANSWERS)
def test_readers_that_take_nothing_leave_buffers_to_others(new_stage, kind):
    stage = new_stage(ONE_EACH)
    others = Others(stage)
    readers, upstreams = [], []
    for _ in range(READERS):
        readers.append(stage.connect(recv_buffer=4096))
        readers[-1].send(get("/"))
        upstreams.append(stage.origin.accept())
        upstreams[-1].read_request()
    left = flood(stage, others, upstreams, ANSWERS[kind])
    assert others.are_served() <= stage.count("weir_buffers_capacity") * 3 // 4
    for reader, upstream in list(zip(readers, upstreams))[::10]:
        sending = Sending(upstream, left[upstream])
        assert reader.read_response().body == BODY
        sending.done()
    others.are_served()


def test_tcp_readers_that_take_nothing_leave_buffers_to_others(new_stage):
    stage = new_stage(TCP)
    others = Others(stage)
    readers, upstreams = [], []
    for _ in range(READERS):
        readers.append(stage.connect(recv_buffer=4096))
        upstreams.append(stage.origin.accept())
    left = flood(stage, others, upstreams, BODY)
    assert others.are_served() <= stage.count("weir_buffers_capacity") * 3 // 4
    for reader, upstream in list(zip(readers, upstreams))[::10]:
        sending = Sending(upstream, left[upstream])
        assert reader.read_exactly(len(BODY)) == BODY
        sending.done()
    others.are_served()


@pytest.mark.parametrize("size, held", [("16k", ECHOES), ("0", 0)])
def test_bytes_that_an_echo_gives_back_to_nobody_leave_buffers(new_stage, size, held):
    """What its clients have sent, and do not take again, waits on both sides of it; they are all
    heard once they do."""
    stage = new_stage(ECHO.replace("SIZE", size))
    others = Others(stage)
    sent = {stage.connect(recv_buffer=4096): b"" for _ in range(ECHOES)}
    for _ in range(4):
        for client in sent:
            left = send_some(client, BODY)
            sent[client] += BODY[:len(BODY) - len(left)]
        assert others.are_served() >= held
    for client in list(sent)[::50]:
        client.half_close()
        assert client.read_to_end() == sent[client]
    others.are_served()


def test_who_holds_most_gives_way_when_buffers_run_out(new_stage):
    """Servers of HTTP/2 may send a window's worth that nobody takes, of every stream."""
    stage = new_stage(HTTP.replace("server = @origin\n", "server = @origin\nprotocol = h2\n"),
                      **FEW_CONNECTIONS)
    others = Others(stage, 2)
    with H2Service(stage.origin, lambda server, request: server.answer(request, 200, WINDOW)):
        attackers = [H2Client(stage.connect(), window=0) for _ in range(7)]
        for client in attackers:
            for stream in range(1, 2 * STREAMS, 2):
                client.get(stream)
            others.are_served()
        eventually(lambda: 0 < sum(map(was_reset, attackers)) ==
                   stage.weir.log.count("small buffers are used up"), "who was said to be is reset")
        assert sum(map(was_reset, attackers)) < len(attackers)
        others.are_served()
        for client in attackers:
            client.peer.reset()


def was_reset(client):
    try:
        client.look()
    except (WasReset, OSError):
        return True
    return client.ended


def test_each_connection_has_a_stream_of_its_own(new_stage):
    """However many streams others have, the first of a connection finds a place; more of them are
    refused, and may be asked for again (RFC 9113 section 8.7)."""
    stage = new_stage(HTTP + HELLO)
    greedy = [H2Client(stage.connect(), window=0) for _ in range(GREEDY)]
    for client in greedy:
        for stream in range(1, 2 * STREAMS, 2):
            client.get(stream, "/hello")
    stage.weir.eventually_metric(lambda now: now >= 16384, "weir_h2_streams_active")
    client = H2Client(stage.connect())
    client.get(1, "/hello")
    assert client.answer(1).body == b"hello"
    late = stage.connect()
    late.send(get("/hello"))
    assert late.read_response().body == b"hello"
    client.get(3)
    upstream = stage.origin.accept()
    upstream.read_request()
    client.get(5, "/hello")
    client.expect_reset(5, REFUSED_STREAM)
    for one in greedy:
        one.peer.reset()
    stage.weir.eventually_metric(1, "weir_h2_streams_active")
    client.get(7, "/hello")
    assert client.answer(7).body == b"hello"
    upstream.send(answer(200, b"after all"))
    assert client.answer(3).body == b"after all"
