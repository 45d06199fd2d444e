"""Long bodies and streams: what test_splice.py and test_splice_ends.py share."""

import glob
import hashlib
import signal
import threading
import time

from .http1 import answer_head, get
from .wait import eventually

MB = 1 << 20
# More than all buffers on the way.
ENDLESS = 200 * MB
SHORT_S = 0.6

INI = f"""
[defaults]
max_body_size = 0
min_read_rate = 0
[listener web]
bind = @web
upstream = app
[listener narrow]
bind = @narrow
upstream = app
send_buffer = 16k
[listener patient]
bind = @patient
upstream = app
send_buffer = 16k
timeout_client = {SHORT_S * 1000:.0f}ms
[listener impatient]
bind = @impatient
upstream = impatient
send_buffer = 16k
timeout_client = {SHORT_S * 4000:.0f}ms
[listener wide]
bind = @wide
upstream = impatient
send_buffer = 4m
[listener rate]
bind = @rate
upstream = local
min_read_rate = 1m/s
timeout_client = 1s
[upstream app]
server = @origin
[upstream impatient]
server = @origin
timeout_server = {SHORT_S * 1000:.0f}ms
timeout_tunnel = {SHORT_S * 2000:.0f}ms
[upstream local]
server = @originunix
"""

UPGRADE = ("Connection: Upgrade", "Upgrade: bytes")
SWITCH = answer_head(101, *UPGRADE, phrase="Switching Protocols")


def pattern(size):
    """Bytes whose every shift is visible."""
    block = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(2048))
    return (block * (size // len(block) + 1))[:size]


MUCH = pattern(20 * MB)


class Sending:
    """Sends in a thread, so that the test can read meanwhile; an error comes out in done()."""

    def __init__(self, peer, data):
        self.error = None

        def run():
            try:
                peer.send(data)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait(self):
        self.thread.join(30)
        assert not self.thread.is_alive(), "neither taken nor refused"

    def done(self):
        self.wait()
        if self.error:
            raise self.error


class Stopped:
    """weir stands still, so that what is sent meanwhile is there at once when it goes on."""

    def __init__(self, weir):
        self.weir = weir

    def __enter__(self):
        self.weir.signal(signal.SIGSTOP)
        eventually(self._stands, "weir stopped")

    def _stands(self):
        """Every thread: each stops by itself, and a worker wakes up to do so and looks at what has
        come by then."""
        return all(self._state(task) == "T" for task in glob.glob(f"/proc/{self.weir.pid}/task/*"))

    @staticmethod
    def _state(task):
        with open(f"{task}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]

    def __exit__(self, *_):
        self.weir.signal(signal.SIGCONT)


def spliced(stage):
    return stage.count("weir_spliced_bytes_total")


def held(stage, count=1):
    """Waits until bytes wait in a pipe, and go on doing so."""
    stage.weir.eventually_metric(count, "weir_pipes", state="used")
    for _ in range(5):
        pumped = spliced(stage)
        time.sleep(0.01)
        if spliced(stage) != pumped:
            return held(stage, count)


def begin(stage, client, head, origin=None):
    """A request whose answer is left to the test."""
    client.send(head)
    upstream = (origin or stage.origin).next()
    upstream.read_request()
    return upstream


def download(stage, client, body, size=None, version="1.1"):
    """An answer whose body begins when its head has gone through: (upstream, sending)."""
    upstream = begin(stage, client, get(version=version))
    lines = [f"Content-Length: {size or len(body)}"] if version == "1.1" else []
    upstream.send(answer_head(200, *lines))
    client.read_response_head()
    return upstream, Sending(upstream, body)


def upload(stage, client, size, origin=None, method="POST"):
    """A request whose head has gone through."""
    client.send(get("/", f"Content-Length: {size}", method=method))
    upstream = (origin or stage.origin).next()
    upstream.read_request_head()
    return upstream


def tunnel(stage, client):
    upstream = begin(stage, client, get("/ws", *UPGRADE))
    upstream.send(SWITCH)
    assert client.read_response().status == 101
    return upstream
