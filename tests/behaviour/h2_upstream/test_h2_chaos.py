"""Servers that do everything wrong at random while many clients ask: each gets its own answer, a
whole one or one that says what failed, and weir is as it was afterwards."""

import random
import threading

import pytest

from harness.h2_server import CANCEL, INTERNAL_ERROR, MAX_STREAMS, REFUSED_STREAM, H2Service
from harness.http1 import Malformed, get, post
from harness.peer import Ended, WasReset
from harness.wait import eventually

INI = """
[listener web]
bind = @web
upstream = app
[upstream app]
protocol = h2
timeout_server = 1s
server = @origin
server = @origin_b max_connections=30
"""

CLIENTS, REQUESTS = 24, 40
EXCUSES = {"server_reset", "server_closed", "server_refused", "server_timeout", "bad_response",
           "connect_failed", "server_busy", "queue_timeout"}


class Wreckers:
    """What a server does with a request, drawn from a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lock = threading.Lock()

    def draw(self):
        with self.lock:
            return self.random.randrange(40)

    def __call__(self, server, request):
        what = self.draw()
        body = request.path.encode() + bytes(request.body)
        if what == 0:
            server.refuse(request, REFUSED_STREAM)
        elif what == 1:
            server.refuse(request, INTERNAL_ERROR)
        elif what == 2:
            server.head(request, 200, ("content-length", str(len(body))))
            server.data(request, body[:1])
            server.refuse(request, CANCEL)
        elif what == 3:
            server.go_away(request.id)
            server.answer(request, 200, body)
        elif what == 4:
            server.go_away(request.id - 2 if request.id > 1 else 0)
        elif what == 5:
            server.upstream.reset()
        elif what == 6:
            server.upstream.sock.shutdown(2)
        elif what == 7 and server.acknowledged:  # python3-h2 mixes up two SETTINGS on their way
            server.settings({MAX_STREAMS: 1 + self.draw()})
            server.answer(request, 200, body)
        elif what == 8:
            server.frame(0, 0, 0, b"no stream has id 0")
        else:
            server.answer(request, 200, body)


def ask(stage, number, draw, failures, good):
    client = None
    for count in range(REQUESTS):
        client = client or stage.connect()
        path = f"/{number}/{count}"
        body = b"x" * draw.randrange(3000)
        client.send(post(path, body) if draw.randrange(2) else get(path))
        if draw.randrange(20) == 0:
            client.reset()
            client = None
            continue
        try:
            response = client.read_response()
        except (Ended, WasReset):  # cut visibly, where its server had begun to answer
            client.close()
            client = None
            continue
        except Malformed as error:
            failures.append(repr(error))
            return
        if response.status == 200 and response.body.startswith(path.encode()):
            good.append(path)
        elif response.status == 200:
            failures.append(f"{path} was answered {response.body[:40]!r}")
        if response.status != 200 and response.reason not in EXCUSES:
            failures.append(f"{path} got {response}")
        if response["Connection"] == "close":
            client.close()
            client = None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_gets_its_own_answer_or_a_reason(stage, seed):
    failures, good = [], []
    retries = stage.count("weir_upstream_retries_total", reason="server_refused")
    wreckers = Wreckers(seed)
    with H2Service(stage.origin, wreckers), H2Service(stage.origins["origin_b"], wreckers):
        threads = [threading.Thread(target=ask, args=(stage, number, random.Random(number + seed),
                                                      failures, good))
                   for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures[:5]
        assert len(good) > CLIENTS * REQUESTS / 2
        assert stage.count("weir_upstream_retries_total", reason="server_refused") > retries
        eventually(lambda: stage.count("weir_h2_streams_active") == 0, "no stream is left")
        assert stage.count("weir_upstream_connections", state="active") == 0
