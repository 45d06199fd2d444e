"""The server's end of an HTTP/2 connection of weir's, played by the test with python3-h2.

    server = H2Server(stage.origin.accept())       # its SETTINGS are out, nothing was awaited
    request = server.next_request()                # its head; body and end come as server.until
    server.answer(request, 200, b"hello")

What python3-h2 would not send itself goes out by server.frame. An H2Service answers any number of
requests in threads.
"""

import struct
import threading

import h2.events
import h2.exceptions
import h2.settings

from .h2_end import H2End
from .http1 import get
from .peer import Ended, WasReset
from .wait import PATIENCE, Bell, readable

CANCEL, REFUSED_STREAM, INTERNAL_ERROR, PROTOCOL_ERROR = 0x8, 0x7, 0x2, 0x1
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
MAX_STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE

# What modules about servers that fail or refuse begin with: listener `web` before one server,
# `two` before one and another for when it fails.
ONE_AND_TWO = """
[listener web]
bind = @web
upstream = app
[listener two]
bind = @two
upstream = two
[upstream app]
protocol = h2
server = @origin
[upstream two]
protocol = h2
balance = first
server = @origin
server = @origin_b
"""


def ask(stage, request=get(), name="web"):
    """A client of HTTP/1.1 that has asked."""
    client = stage.connect(name)
    client.send(request)
    return client


def finish(client, server, request):
    """The server answers the request, and that client has its answer."""
    server.answer(request, 200, b"good")
    assert client.read_response().body == b"good"


class H2Request:
    """What has come of one request so far."""

    def __init__(self, connection, event):
        self.connection = connection
        self.id = event.stream_id
        self.fields = [(name, value) for name, value in event.headers]
        self.body = bytearray()
        self.trailers = None
        self.ended = False
        self.reset = None       # the error code of weir's RST_STREAM
        self.unread = 0         # bytes that were not acknowledged yet: see H2Server.stingy

    def __getitem__(self, name):
        values = [value for have, value in self.fields if have == name]
        assert len(values) <= 1, f"{name} comes {len(values)} times: {values}"
        return values[0] if values else None

    def __contains__(self, name):
        return any(have == name for have, _ in self.fields)

    @property
    def method(self):
        return self[":method"]

    @property
    def path(self):
        return self[":path"]

    def __repr__(self):
        return f"<{self.id}: {self.fields} body={len(self.body)} ended={self.ended}>"


class H2Server(H2End):
    def __init__(self, upstream, settings=None, silent=False):
        """`settings` by their codes; silent: it says nothing at all, not even its SETTINGS."""
        super().__init__(upstream, client_side=False)
        self.upstream = upstream
        self.requests = {}
        self.unseen = []        # requests that next_request has not given yet
        self.stingy = False     # what arrives opens no window
        self.acknowledged = 0   # SETTINGS of this server that weir has acknowledged
        self.pings = 0          # answers of weir's to PING
        if settings is not None:
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.silent = silent
        self.flush()

    def __repr__(self):
        return f"<{self.requests}>"

    def flush(self):
        if not self.silent:
            super().flush()

    def speak(self):
        """After silence: everything that was kept back."""
        self.silent = False
        self.flush()

    # In.

    def on_event(self, event):
        request = self.requests.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RequestReceived):
            request = H2Request(self, event)
            self.requests[request.id] = request
            self.unseen.append(request)
        elif isinstance(event, h2.events.DataReceived):
            request.body += event.data
            request.unread += event.flow_controlled_length
            if not self.stingy:
                self.read(request)
        elif isinstance(event, h2.events.TrailersReceived):
            request.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            request.ended = True
        elif isinstance(event, h2.events.StreamReset):
            request.reset = event.error_code
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self.acknowledged += 1
        elif isinstance(event, h2.events.PingAckReceived):
            self.pings += 1

    def read(self, request, count=None):
        """The server has read so much of the body: windows open by it."""
        count = request.unread if count is None else count
        if count == 0 or self.goaway is not None:
            return
        request.unread -= count
        self.h2.increment_flow_control_window(count)
        if not request.ended and request.reset is None:
            try:
                self.h2.increment_flow_control_window(count, request.id)
            except (h2.exceptions.StreamClosedError, KeyError):
                pass  # its RST_STREAM has come as well
        self.flush()

    def next_request(self):
        self.until(lambda: self.unseen, "a request")
        return self.unseen.pop(0)

    def whole_request(self):
        request = self.next_request()
        return self.until(lambda: request.ended and request, "the end of the request")

    def expect_reset(self, request, code=CANCEL):
        self.until(lambda: request.reset is not None, "RST_STREAM")
        assert request.reset == code, f"reset with {request.reset}"

    def expect_end(self):
        """weir ends the connection, by FIN or RST."""
        try:
            while self.fill():
                pass
        except WasReset:
            self.ended = True

    def look(self):
        """Takes what has arrived by now."""
        while not self.ended and readable([self.upstream], 0):
            try:
                self.fill()
            except WasReset:
                self.ended = True

    def echo(self):
        """weir has handled all that was sent to it by now."""
        before = self.pings
        self.h2.ping(b"echoecho")
        self.flush()
        self.until(lambda: self.pings > before, "the answer to a PING")

    # Out.

    def head(self, request, status=200, *fields, end=False):
        self.h2.send_headers(request.id, [(":status", str(status)), *fields], end_stream=end)
        self.flush()

    def data(self, request, data, end=False):
        """As far as the windows allow at once; the rest waits for weir to open them."""
        data = memoryview(data)
        ended = False
        while data:
            self.until(lambda: request.reset is not None or self.room(request), "a window")
            if request.reset is not None:
                return
            piece = bytes(data[:self.room(request)])
            data = data[len(piece):]
            ended = end and not data
            self.h2.send_data(request.id, piece, end_stream=ended)
            self.flush()
        if end and not ended:
            self.h2.end_stream(request.id)
            self.flush()

    def room(self, request):
        """What may be sent of a body now, in one frame."""
        return min(self.h2.local_flow_control_window(request.id), self.h2.max_outbound_frame_size)

    def send_until_stuck(self, request, piece=b"x" * 16384):
        """Body until no window is left; returns bytes."""
        sent = 0
        while room := min(self.room(request), len(piece)):
            self.h2.send_data(request.id, piece[:room])
            self.flush()
            sent += room
        return sent

    def trailers(self, request, *fields):
        self.h2.send_headers(request.id, list(fields), end_stream=True)
        self.flush()

    def answer(self, request, status=200, body=b"", *fields):
        """A whole answer with its content-length."""
        length = ("content-length", str(len(body)))
        self.head(request, status, length, *fields, end=not body)
        if body:
            self.data(request, body, end=True)

    def refuse(self, request, code=REFUSED_STREAM):
        """RST_STREAM."""
        self.h2.reset_stream(request.id, code)
        self.flush()

    def settings(self, settings):
        self.h2.update_settings(settings)
        self.flush()

    def go_away(self, last, code=0):
        """GOAWAY without an end of the connection: streams up to `last` are still served."""
        self.frame(GOAWAY, 0, 0, struct.pack(">II", last, code))

    def frame(self, kind, flags, stream, payload=b""):
        """A frame as it is, past python3-h2."""
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        self.upstream.send(head + payload)

    def close(self):
        self.upstream.close()

    def reset(self):
        self.upstream.reset()


class H2Service:
    """Answers every request of every connection to an origin, in threads.

    handler(server, request) is called when a request has ended (or, with `early`, when its head has
    come) and sends what it likes.
    """

    def __init__(self, origin, handler, early=False, settings=None):
        self.origin = origin
        self.handler = handler
        self.early = early
        self.settings = settings
        self.servers = []
        self.errors = []
        self.threads = []
        self.stopping = False
        self.bell = Bell()
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.bell.ring()
        self.acceptor.join()
        self.bell.close()
        for server in self.servers:
            try:
                server.upstream.sock.shutdown(2)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(PATIENCE)
        for server in self.servers:
            server.close()
        if self.errors:
            raise self.errors[0]

    def _accept(self):
        while self.bell not in readable([self.origin.sock, self.bell], None):
            sock, _ = self.origin.sock.accept()
            server = H2Server(self.origin.wrap(sock), self.settings)
            server.upstream.sock.settimeout(None)
            self.servers.append(server)
            thread = threading.Thread(target=self._serve, args=(server,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _handled(self, server, pending):
        """Whether there was anything to do. What came while a handler waited for a window is not
        told by another fill."""
        pending += server.unseen
        server.unseen = []
        ready = [one for one in pending if one.ended or self.early]
        for request in ready:
            pending.remove(request)
            if request.reset is None:
                self.handler(server, request)
        return bool(ready)

    def _serve(self, server):
        pending = []
        try:
            while self._handled(server, pending) or server.fill():
                pass
        except (Ended, WasReset, OSError):
            pass
        except h2.exceptions.ProtocolError as error:
            if server.goaway is None:
                self.errors.append(error)
        except BaseException as error:
            if not self.stopping:
                self.errors.append(error)
