"""text/event-stream, and any other stream: nothing waits for anything (no byte for another).

No times are asserted. The origin sends an event only when the client has the one before, so
whatever held one back would hold the test until its patience ends.
"""

import threading

import httpx
import pytest

from harness import versions
from harness.h2_server import H2Server
from harness.h2_tunnel import H2TunnelClient
from harness.http1 import answer_head, chunk, get
from harness.versions import VERSIONS, connect, is_h2, origin_of, url
from harness.wait import PATIENCE

INI = versions.INI

TYPE = "text/event-stream"
EVENTS = [b"data: first\n\n", b": comment\n\n", b"id: 2\ndata: " + b"x" * 3000 + b"\n\n", b"\n",
          b"d", b"ata: last\n\n", b"data: " + b"y" * 20000 + b"\n\n"]


# The origin's end of one answer, by how it is framed.

class Chunked:
    server = "h1"

    def __init__(self, stage):
        self.end = origin_of(stage, self.server).asked()

    def head(self):
        self.end.send(answer_head(200, f"Content-Type: {TYPE}", "Cache-Control: no-cache",
                                  "Transfer-Encoding: chunked"))

    def event(self, data):
        self.end.send(chunk(data))

    def byte_by_byte(self, data):
        self.end.send_each_byte(chunk(data))

    def finish(self):
        self.end.send(b"0\r\n\r\n")

    def expect_gone(self):
        self.end.expect_end()


class UntilClose(Chunked):
    def head(self):
        self.end.send(answer_head(200, f"Content-Type: {TYPE}", "Connection: close"))

    def event(self, data):
        self.end.send(data)

    def byte_by_byte(self, data):
        self.end.send_each_byte(data)

    def finish(self):
        self.end.close()


class ChunkedInTls(Chunked):
    server = "h1s"


class OverH2:
    server = "h2"

    def __init__(self, stage):
        self.end = H2Server(origin_of(stage, self.server).accept())
        self.request = self.end.next_request()

    def head(self):
        self.end.head(self.request, 200, ("content-type", TYPE))

    def event(self, data):
        self.end.data(self.request, data)

    def byte_by_byte(self, data):
        for at in range(len(data)):
            self.end.data(self.request, data[at:at + 1])

    def finish(self):
        self.end.data(self.request, b"", end=True)

    def expect_gone(self):
        self.end.expect_reset(self.request)


class OverH2InTls(OverH2):
    server = "h2s"


# The client's end.

class ByH1:
    def __init__(self, peer):
        self.end = peer
        self.end.send(get("/events", f"Accept: {TYPE}"))

    def head(self):
        got = self.end.read_response_head()
        assert (got.status, got["Content-Type"]) == (200, TYPE)
        self.chunked, self.rest = got.chunked, b""

    def expect(self, data):
        while self.chunked and len(self.rest) < len(data):
            self.rest += self.end.read_chunk()
        if self.chunked:
            got, self.rest = self.rest[:len(data)], self.rest[len(data):]
        else:
            got = self.end.read_exactly(len(data))
        assert got == data

    def expect_end(self):
        if self.chunked:
            assert self.end.read_chunk() == b"" and not self.rest
        else:
            self.end.expect_close()

    def leave(self):
        self.end.reset()


class ByH2:
    def __init__(self, peer):
        self.end = H2TunnelClient(peer)
        self.end.get("/events", ("accept", TYPE))

    def head(self):
        head = self.end.head()
        assert (head[":status"], head["content-type"]) == ("200", TYPE)

    def expect(self, data):
        self.end.expect(data)

    def expect_end(self):
        self.end.expect_close()

    def leave(self):
        self.end.reset()


every_pair = pytest.mark.parametrize(
    "client, origin_end", [(client, end) for client in VERSIONS
                           for end in (Chunked, UntilClose, ChunkedInTls, OverH2, OverH2InTls)])


def begin(stage, client, origin_end):
    ours = (ByH2 if is_h2(client) else ByH1)(connect(stage, client, origin_end.server))
    theirs = origin_end(stage)
    theirs.head()
    ours.head()  # before any event is there
    return ours, theirs


@every_pair
def test_each_event_is_there_before_the_next_is_sent(stage, client, origin_end):
    ours, theirs = begin(stage, client, origin_end)
    for event in EVENTS * 3:
        theirs.event(event)
        ours.expect(event)
    theirs.finish()
    ours.expect_end()


@every_pair
def test_an_event_that_comes_byte_by_byte_is_there_with_its_last(stage, client, origin_end):
    ours, theirs = begin(stage, client, origin_end)
    for event in EVENTS[:2]:
        theirs.byte_by_byte(event)
        ours.expect(event)
    theirs.finish()
    ours.expect_end()


@every_pair
def test_the_first_byte_of_an_event_does_not_wait_for_the_rest(stage, client, origin_end):
    ours, theirs = begin(stage, client, origin_end)
    for byte in (b"d", b"a", b"t", b"a", b":", b"\n", b"\n"):
        theirs.event(byte)
        ours.expect(byte)
    theirs.finish()
    ours.expect_end()


@every_pair
def test_small_events_behind_a_long_one_do_not_wait(stage, client, origin_end):
    """What was a stream of full buffers goes on as one of single bytes."""
    ours, theirs = begin(stage, client, origin_end)
    long = bytes(range(256)) * 4096
    sender = threading.Thread(target=theirs.event, args=(long,))
    sender.start()
    ours.expect(long)
    sender.join(PATIENCE)
    assert not sender.is_alive()
    for event in EVENTS[:2] * 3:
        theirs.event(event)
        ours.expect(event)
    theirs.finish()
    ours.expect_end()


@every_pair
def test_a_client_that_leaves_is_told_to_the_origin(stage, client, origin_end):
    ours, theirs = begin(stage, client, origin_end)
    theirs.event(EVENTS[0])
    ours.expect(EVENTS[0])
    ours.leave()
    theirs.expect_gone()  # without another event to find it out by


@pytest.mark.parametrize("client, origin_end", [
    (client, end) for client in VERSIONS if is_h2(client) for end in (Chunked, OverH2)])
def test_a_client_that_closes_its_connection_is_told_to_the_origin(stage, client, origin_end):
    """By a mere FIN, as the kernel does it for a program that ends. Who only half-closes, and goes
    on listening, is answered (test_a_half_close_still_gets_its_answers)."""
    ours, theirs = begin(stage, client, origin_end)
    theirs.event(EVENTS[0])
    ours.expect(EVENTS[0])
    ours.end.peer.close()
    theirs.expect_gone()


@pytest.mark.parametrize("client", ["h1", "h1s", "h2s"])
@pytest.mark.parametrize("origin_end", [Chunked, UntilClose, OverH2, OverH2InTls])
def test_a_real_client_sees_each_line_at_once(stage, origin_end, client):
    said = threading.Semaphore(1)

    def play():
        theirs = origin_end(stage)
        theirs.head()
        for number in range(20):
            assert said.acquire(timeout=PATIENCE)
            theirs.event(b"data: %d\n\n" % number)
        assert said.acquire(timeout=PATIENCE)
        theirs.finish()

    player = threading.Thread(target=play)
    player.start()
    seen = []
    with httpx.Client(timeout=PATIENCE, verify=False, http1=not is_h2(client),
                      http2=is_h2(client)) as user, \
            user.stream("GET", url(stage, client, origin_end.server, "/events")) as got:
        assert got.http_version == ("HTTP/2" if is_h2(client) else "HTTP/1.1")
        for line in got.iter_lines():
            if line.strip():
                seen.append(line.strip())
                said.release()
    player.join(PATIENCE)
    assert seen == [f"data: {number}" for number in range(20)]
