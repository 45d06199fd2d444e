"""Tunnels over HTTP/2 (RFC 8441) with both ends in the test: bytes in and out as with a Peer.

    client = H2TunnelClient(stage.connect())       # python3-h2, checks what weir sends
    client.ask("/ws", ("sec-websocket-version", "13"))
    server = H2TunnelServer(origin)                # takes the next connection, and offers it
    request = server.request()                     # the extended CONNECT
    server.head(200)
    assert client.head()[":status"] == "200"
    client.send(b"...")
    server.expect(b"...")
"""

import h2.events
import h2.settings
from hyperframe.frame import GoAwayFrame

from .h2_end import H2End
from .h2_server import H2Server

ENABLE_CONNECT_PROTOCOL = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


class _Tunnel:
    """Bytes of one stream: body() grows, `taken` of it were read."""

    def read_exactly(self, count):
        self.wait(lambda: len(self.body()) - self.taken >= count or self.over(), f"{count} bytes")
        assert len(self.body()) - self.taken >= count, \
            f"the stream ended after {bytes(self.body()[self.taken:])!r}"
        self.taken += count
        return bytes(self.body()[self.taken - count:self.taken])

    def expect(self, wanted):
        got = self.read_exactly(len(wanted))
        assert got == wanted, f"got {got!r}, wanted {wanted!r}"

    def send_each_byte(self, data):
        for at in range(len(data)):
            self.send(data[at:at + 1])

    def expect_close(self):
        """END_STREAM, with nothing before it."""
        self.wait(self.over, "the end of the stream")
        rest = bytes(self.body()[self.taken:])
        assert rest == b"" and not self.was_reset(), f"{rest!r}, reset {self.was_reset()}"

    def expect_end(self):
        self.wait(self.over, "the end of the stream")

    def expect_reset(self):
        self.wait(self.over, "the end of the stream")
        assert self.was_reset()


class H2TunnelClient(_Tunnel, H2End):
    def __init__(self, peer):
        H2End.__init__(self, peer, client_side=True)
        # To python3-h2 a GOAWAY is the end, also of streams that it lets live.
        self.h2._frame_dispatch_table[GoAwayFrame] = lambda frame: ([], [])
        self.h2.initiate_connection()
        self.stream = -1
        self.offered = False
        self.flush()
        self.wait(lambda: self.offered, "SETTINGS")

    def wait(self, condition, what):
        self.until(condition, what)

    def on_event(self, event):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.offered = self.h2.remote_settings.enable_connect_protocol == 1
        if getattr(event, "stream_id", None) != self.stream:
            return
        if isinstance(event, h2.events.ResponseReceived):
            self.fields = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.bytes += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, self.stream)
        elif isinstance(event, h2.events.StreamEnded):
            self.stream_ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.reset_code = event.error_code

    def ask(self, path="/ws", *fields, protocol="websocket"):
        self._request([(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"),
                       (":path", path), (":authority", "test"), *fields], end=False)

    def get(self, path, *fields):
        """No tunnel: an ordinary request, whose answer is read in the same way."""
        self._request([(":method", "GET"), (":scheme", "http"), (":path", path),
                       (":authority", "test"), *fields], end=True)

    def _request(self, fields, end):
        self.stream = self.h2.get_next_available_stream_id()
        self.fields, self.bytes, self.taken = None, bytearray(), 0
        self.stream_ended, self.reset_code = False, None
        self.h2.send_headers(self.stream, fields, end_stream=end)
        self.flush()

    def head(self):
        self.wait(lambda: self.fields or self.was_reset(), "a head")
        assert self.fields, f"the stream was reset with {self.reset_code}"
        return self.fields

    def body(self):
        return self.bytes

    def over(self):
        return self.stream_ended or self.was_reset()

    def was_reset(self):
        return self.reset_code is not None

    def send(self, data):
        while data:
            self.wait(lambda: self.h2.local_flow_control_window(self.stream) > 0, "a window")
            piece = data[:min(self.h2.local_flow_control_window(self.stream), 16384)]
            data = data[len(piece):]
            self.h2.send_data(self.stream, piece)
            self.flush()

    def half_close(self):
        self.h2.end_stream(self.stream)
        self.flush()

    def reset(self):
        self.h2.reset_stream(self.stream, 8)
        self.flush()


class H2TunnelServer(_Tunnel):
    def __init__(self, origin, settings=None):
        settings = {ENABLE_CONNECT_PROTOCOL: 1} if settings is None else settings
        self.server = H2Server(origin.accept(), settings)
        self.taken = 0
        self.it = None

    def request(self):
        self.it = self.server.next_request()
        self.taken = 0
        return self.it

    def wait(self, condition, what):
        self.server.until(condition, what)

    def head(self, status=200, *fields):
        self.server.head(self.it, status, *fields)

    def answer(self, status, body, *fields):
        self.server.answer(self.it, status, body, *fields)

    def body(self):
        return self.it.body

    def over(self):
        return self.it.ended or self.was_reset()

    def was_reset(self):
        return self.it.reset is not None

    def send(self, data):
        self.server.data(self.it, data)

    def half_close(self):
        self.server.h2.end_stream(self.it.id)
        self.server.flush()

    def reset(self):
        self.server.refuse(self.it, 2)
