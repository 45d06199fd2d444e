"""One connection of a scripted peer: the test's hands on the bytes, on either side of weir."""

import socket
import struct
import time

from . import http1
from .wait import PATIENCE, writable

PIECE = 65536


class Ended(AssertionError):
    """The connection ended (FIN) where more bytes were due. `partial` is what had come."""

    def __init__(self, partial):
        super().__init__(f"the connection ended after {partial[-200:]!r}")
        self.partial = partial


class WasReset(AssertionError):
    """The connection was reset where more bytes were due."""


class Silent(AssertionError):
    """Nothing came for as long as the tests have patience."""


class Peer:
    """Bytes out: send, send_each_byte, half_close, reset, close. Bytes in: read_*, expect_*.

    `received` keeps everything that ever came; `buffered` what no read has taken yet. Every wait
    ends after PATIENCE seconds with an error that shows what was there.
    """

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.buffered = bytearray()
        self.ended = False

    def fileno(self):
        return self.sock.fileno()

    # Out.

    def send(self, data):
        self.sock.sendall(data)

    def send_each_byte(self, data):
        """One segment a byte, with a breath between, so that most arrive as reads of their own."""
        for at in range(len(data)):
            self.sock.sendall(data[at:at + 1])
            time.sleep(0.0002)

    def send_until_stuck(self, data, stuck_s=0.3):
        """Pushes `data` again and again until none is taken for `stuck_s`; returns bytes sent."""
        sent = 0
        self.sock.setblocking(False)
        try:
            while writable(self.sock, stuck_s):
                try:
                    sent += self.sock.send(data)
                except BlockingIOError:
                    continue
        finally:
            self.sock.settimeout(PATIENCE)
        return sent

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """Ends the connection by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.ended = True
        self.sock.close()

    # In.

    def fill(self):
        """One receive into `buffered`; False at the end of the connection."""
        if self.ended:
            return False
        try:
            piece = self.sock.recv(PIECE)
        except socket.timeout:
            raise Silent(f"nothing more after {bytes(self.received[-300:])!r}") from None
        except ConnectionResetError:
            self.ended = True
            raise WasReset(f"reset after {bytes(self.received[-300:])!r}") from None
        self.received += piece
        self.buffered += piece
        self.ended = not piece
        return bool(piece)

    def widen(self):
        """A small receiver reads with large windows from here on."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def take(self, count):
        taken = bytes(self.buffered[:count])
        del self.buffered[:count]
        return taken

    def read_exactly(self, count):
        while len(self.buffered) < count:
            if not self.fill():
                raise Ended(bytes(self.buffered))
        return self.take(count)

    def read_until(self, mark):
        """Everything up to and with `mark`."""
        searched = 0
        while True:
            at = self.buffered.find(mark, max(0, searched - len(mark)))
            if at >= 0:
                return self.take(at + len(mark))
            searched = len(self.buffered)
            if not self.fill():
                raise Ended(bytes(self.buffered))

    def read_to_end(self):
        """Everything until the other side's FIN."""
        while self.fill():
            pass
        return self.take(len(self.buffered))

    def expect(self, wanted):
        got = self.read_exactly(len(wanted))
        assert got == wanted, f"got {got!r}, wanted {wanted!r}"

    def expect_close(self):
        """The other side ends its direction by FIN, with nothing before it."""
        rest = self.read_to_end()
        assert rest == b"", f"more came before the end: {rest!r}"

    def expect_end(self):
        """The connection ends: returns "fin" or "reset". What came before is dropped."""
        try:
            self.read_to_end()
            return "fin"
        except WasReset:
            return "reset"

    def expect_reset(self):
        ended = self.expect_end()
        assert ended == "reset", "ended by FIN, not by RST"

    def look(self):
        """Takes what has arrived by now, without waiting; `ended` says if that was the end."""
        while not self.ended:
            try:
                self.sock.setblocking(False)
                piece = self.sock.recv(PIECE)
            except BlockingIOError:
                break
            except OSError:
                self.ended = True
                break
            self.received += piece
            self.buffered += piece
            self.ended = not piece
        if self.sock.fileno() >= 0:
            self.sock.settimeout(PATIENCE)

    def has_nothing(self):
        """True when nothing has arrived by now. Ask after something that must have come later."""
        self.look()
        return not self.buffered and not self.ended

    # Messages.

    def read_head(self, kind):
        return http1.parse_head(self.read_until(b"\r\n\r\n"), kind)

    def read_chunk(self):
        """One chunk's data; b"" is the last chunk, whose trailer section is still to be read."""
        line = self.read_until(b"\r\n")[:-2]
        try:
            size = int(line, 16)
        except ValueError:
            raise http1.Malformed(f"bad chunk line {line!r}") from None
        if not line or not all(byte in b"0123456789abcdefABCDEF" for byte in line):
            raise http1.Malformed(f"bad chunk line {line!r}")
        if size == 0:
            return b""
        data = self.read_exactly(size)
        self.expect(b"\r\n")
        return data

    def read_trailers(self):
        block = b""
        while True:
            line = self.read_until(b"\r\n")
            if line == b"\r\n":
                return http1.parse_fields(block)
            block += line

    def read_body(self, message, request_method=None):
        kind, length = http1.body_kind(message, request_method)
        if kind == "length":
            message.body = self.read_exactly(length)
        elif kind == "chunked":
            while part := self.read_chunk():
                message.chunks.append(part)
            message.body = b"".join(message.chunks)
            message.trailers = [(name.lower(), value) for name, value in self.read_trailers()]
        elif kind == "until_close":
            message.body = self.read_to_end()
        return message


class Client(Peer):
    """A client of weir."""

    def read_response_head(self):
        return self.read_head("response")

    def read_response(self, method="GET"):
        """The next response, an interim one (1xx) too. `method` is that of its request."""
        return self.read_body(self.read_response_head(), method)

    def ask(self, data, method="GET"):
        self.send(data)
        return self.read_response(method)


class Upstream(Peer):
    """A connection that weir opened to an origin."""

    def read_request_head(self):
        return self.read_head("request")

    def read_request(self):
        return self.read_body(self.read_request_head())

    def saw_whole_request(self):
        """Whether a complete request has come on this connection since it began."""
        try:
            probe = Upstream.__new__(Upstream)
            probe.buffered, probe.received = bytearray(self.received), bytearray()
            probe.fill = lambda: False
            probe.read_request()
            return True
        except Ended:
            return False
