"""A client of HTTP/2, frame by frame: what it sends is what the test says, right or wrong.

    client = H2Client(stage.connect())             # preface and SETTINGS have gone out
    client.get(1, "/x")                            # a whole request on stream 1
    got = client.answer(1)                         # its answer, when it has ended

Heads are packed with python3-hpack; `block` gives one to be cut up and sent by `frame`. What comes
is taken apart strictly: an answer that breaks RFC 9113 fails the test. Windows are opened as data
comes, unless `stingy`.
"""

import struct
import time

import hpack

from .peer import Ended, Silent, WasReset
from .wait import readable

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 2, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 8, 9, 11
CONNECT_ERROR = 10
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, ENABLE_CONNECT_PROTOCOL = 3, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BIG_WINDOW = 1 << 30


def pack(kind, flags, stream, payload=b""):
    return (struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) +
            bytes(payload))


def settings(*pairs):
    return pack(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


class H2Answer:
    """What has come on one stream so far."""

    def __init__(self):
        self.interims = []
        self.fields = None
        self.body = bytearray()
        self.trailers = None
        self.ended = False
        self.code = None        # of RST_STREAM
        self.frames = 0         # of DATA

    @property
    def status(self):
        return int(self[":status"])

    def __getitem__(self, name):
        values = [value for have, value in self.fields if have == name]
        assert len(values) <= 1, f"{name} comes {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def reason(self):
        """The name in weir's own Proxy-Status; None: the answer is the origin's."""
        told = self["proxy-status"]
        return told.split('details="')[1].split('"')[0] if told else None

    def __repr__(self):
        return f"<{self.fields} {len(self.body)} ended={self.ended} code={self.code}>"


class H2Client:
    def __init__(self, peer, first=None, window=BIG_WINDOW):
        """`first` instead of preface and SETTINGS; `window` of streams and of the connection."""
        self.peer = peer
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.answers = {}
        self.settings = {}
        self.acknowledged = 0
        self.pongs = []
        self.goaway = None      # (last stream, code) of the last one
        self.goaways = []
        self.stingy = False
        self.ended = False
        self.opened = {}        # window that weir has given: by stream, 0 the connection
        self.used = {}          # and what was sent of it
        self.head = None        # (stream, flags, block) of a head under way
        if first is None:
            first = PREFACE + settings((INITIAL_WINDOW_SIZE, min(window, 0x7fffffff)))
            if window > 65535:
                first += pack(WINDOW_UPDATE, 0, 0, struct.pack(">I", window - 65535))
        if first:
            peer.send(first)

    # Out.

    def block(self, fields, huffman=True):
        return self.encoder.encode(fields, huffman=huffman)

    def frame(self, kind, flags, stream, payload=b""):
        self.peer.send(pack(kind, flags, stream, payload))

    def headers(self, stream, fields, end=True):
        self.frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.block(fields))

    def request(self, stream, method="GET", path="/", *fields, end=True, authority="a.example"):
        self.headers(stream, [(":method", method), (":scheme", "http"), (":path", path),
                              (":authority", authority), *fields], end)

    def get(self, stream, path="/", *fields):
        self.request(stream, "GET", path, *fields)

    def room(self, stream):
        """What may be sent on a stream now."""
        def left(of, first):
            return first + self.opened.get(of, 0) - self.used.get(of, 0)
        return min(left(0, 65535), left(stream, self.settings.get(INITIAL_WINDOW_SIZE, 65535)))

    def data(self, stream, data, end=False):
        """As the windows allow; waits for them."""
        while True:
            if data:
                self.until(lambda: self.room(stream) > 0, f"a window for stream {stream}")
            piece = data[:min(self.room(stream), 16384)] if data else b""
            data = data[len(piece):]
            self.frame(DATA, END_STREAM if end and not data else 0, stream, piece)
            for of in (0, stream):
                self.used[of] = self.used.get(of, 0) + len(piece)
            if not data:
                return

    def send_until_stuck(self, stream):
        """Body until no window is left, and none comes for a while."""
        sent, stuck = 0, 0
        while stuck < 5:
            while room := min(self.room(stream), 16384):
                self.data(stream, b"s" * room)
                sent += room
                stuck = 0
            time.sleep(0.05)
            self.echo()
            stuck += 1
        return sent

    def post(self, stream, path, body, *fields):
        self.request(stream, "POST", path, ("content-length", str(len(body))), *fields, end=False)
        self.data(stream, body, end=True)

    def reset_stream(self, stream, code=CANCEL):
        self.frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    def open_window(self, stream, count):
        self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", count))

    def ping(self, text=b"pingpong"):
        self.frame(PING, 0, 0, text)

    # In.

    def fill(self):
        """The next frame; False at the end of the connection."""
        try:
            head = self.peer.read_exactly(9)
        except Ended as ended:
            assert not ended.partial, "weir ended the connection within a frame"
            self.ended = True
            return False
        size = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        assert size <= 16384, f"a frame of {size} bytes"
        payload = self.peer.read_exactly(size) if size else b""
        assert self.head is None or (kind == CONTINUATION and stream == self.head[0])
        self._on(kind, flags, stream, payload)
        return True

    def _on(self, kind, flags, stream, payload):
        if kind == DATA:
            self._on_data(flags, stream, payload)
        elif kind == HEADERS:
            assert not flags & (PADDED | WITH_PRIORITY)
            self._on_block(stream, flags, payload)
        elif kind == CONTINUATION:
            self._on_block(stream, self.head[1] | flags & END_HEADERS, self.head[2] + payload)
        elif kind == RST_STREAM:
            self.on(stream).code = int.from_bytes(payload, "big")
        elif kind == SETTINGS and flags & ACK:
            self.acknowledged += 1
        elif kind == SETTINGS:
            for at in range(0, len(payload), 6):
                self.settings.update([struct.unpack(">HI", payload[at:at + 6])])
            if not self.stingy:
                self.frame(SETTINGS, ACK, 0)
        elif kind == PING:
            if flags & ACK:
                self.pongs.append(payload)
            else:
                self.frame(PING, ACK, 0, payload)
        elif kind == GOAWAY:
            self.goaway = struct.unpack(">II", payload[:8])
            self.goaways.append(self.goaway)
        elif kind == WINDOW_UPDATE:
            count = int.from_bytes(payload, "big")
            assert count > 0
            self.opened[stream] = self.opened.get(stream, 0) + count
        else:
            raise AssertionError(f"a frame of kind {kind}")

    def on(self, stream):
        return self.answers.setdefault(stream, H2Answer())

    def _on_data(self, flags, stream, payload):
        answer = self.on(stream)
        assert not flags & PADDED and answer.fields and not answer.ended
        answer.body += payload
        answer.frames += 1
        answer.ended = bool(flags & END_STREAM)
        if payload and not self.stingy:
            self.open_window(0, len(payload))
            if not answer.ended:
                self.open_window(stream, len(payload))

    def _on_block(self, stream, flags, block):
        self.head = (stream, flags, block)
        if not flags & END_HEADERS:
            return
        self.head = None
        answer = self.on(stream)
        fields = [(name, value) for name, value in self.decoder.decode(block)]
        end = bool(flags & END_STREAM)
        assert not answer.ended
        assert all(name == name.lower() and value.strip() == value for name, value in fields)
        for name in ("connection", "transfer-encoding", "keep-alive", "upgrade", "host"):
            assert name not in dict(fields)
        if answer.fields is not None:
            assert end and not any(name.startswith(":") for name, _ in fields)
            answer.trailers = fields
        else:
            assert fields[0][0] == ":status" and sum(n.startswith(":") for n, _ in fields) == 1
            if fields[0][1].startswith("1"):
                assert not end
                answer.interims.append(fields)
                return
            answer.fields = fields
        answer.ended = end

    def until(self, condition, what):
        """Takes what comes until condition() is true; returns its value."""
        while not (value := condition()):
            try:
                more = self.fill()
            except Silent:
                raise AssertionError(f"never came: {what}; {self.answers}") from None
            assert more, f"weir ended the connection before {what}; {self.goaways} {self.answers}"
        return value

    def answer(self, stream):
        """The whole answer; its body is as long as its content-length."""
        answer = self.on(stream)
        self.until(lambda: answer.ended or answer.code is not None, f"an answer on {stream}")
        assert answer.ended, f"stream {stream} was reset with {answer.code}"
        return answer

    def answer_head(self, stream):
        answer = self.on(stream)
        return self.until(lambda: answer.fields and answer, f"a head on {stream}")

    def expect_reset(self, stream, code=None):
        answer = self.on(stream)
        self.until(lambda: answer.code is not None, f"RST_STREAM on {stream}")
        assert code is None or answer.code == code, f"reset with {answer.code}"

    def expect_goaway(self, code):
        """GOAWAY with that code, and the end of the connection."""
        try:
            while self.fill():
                pass
        except WasReset:
            self.ended = True
        assert self.goaway and self.goaway[1] == code, f"{self.goaways}"

    def echo(self):
        """weir has handled all that was sent to it by now, and is well."""
        count = len(self.pongs)
        self.ping()
        self.until(lambda: len(self.pongs) > count, "the answer to a PING")

    def look(self):
        """Takes what has arrived by now."""
        while not self.ended and (self.peer.buffered or readable([self.peer], 0)):
            self.fill()
