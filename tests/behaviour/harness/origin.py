"""An origin whose every byte the test decides.

Two ways to use one: `origin.next()` and `origin.accept()` hand the test a connection of weir's, and
the test plays the server line by line; or `origin.serve(handler)` answers in threads, for tests
about many requests. An error in a handler fails the test that started it.
"""

import socket
import threading
import time

from .peer import Ended, Upstream, WasReset
from .tls import TlsSocket
from .wait import PATIENCE, Bell, readable
from . import http1


class Last(bytes):
    """An answer behind which a handler's connection ends."""


class Origin:
    """`tls()` gives the context of one that speaks TLS; where the handshake fails the connection is
    there without, and `upstream.error` says why.
    """

    def __init__(self, name="origin", family=socket.AF_INET, path=None, recv_buffer=0, tls=None):
        self.name = name
        self.tls = tls
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if recv_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
        if family == socket.AF_UNIX:
            self.sock.bind(path)
            self.address = f"unix:{path}"
        elif family == socket.AF_INET6:
            self.sock.bind(("::1", 0))
            self.address = f"[::1]:{self.sock.getsockname()[1]}"
        else:
            self.sock.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.sock.listen(4096)
        self.connections = []   # every connection accepted since the test began
        self.requests = []      # what serve() read, in the order of arrival
        self.errors = []
        self.handler = None
        self.threads = []
        self.lock = threading.Lock()
        self.acceptor = None
        self.bell = Bell()

    def wrap(self, sock):
        upstream = Upstream(sock)
        upstream.error = None
        if self.tls:
            upstream.sock = TlsSocket(sock, self.tls(), server_side=True)
            try:
                upstream.sock.handshake()
                upstream.look()  # what came with the end of the handshake is not seen by poll(2)
            except OSError as error:
                upstream.error = error
        return upstream

    # Played by the test.

    def accept(self):
        """The next connection from weir."""
        self.sock.settimeout(PATIENCE)
        try:
            sock, _ = self.sock.accept()
        except socket.timeout:
            raise AssertionError(f"weir opened no connection to {self.name}") from None
        upstream = self.wrap(sock)
        self.connections.append(upstream)
        return upstream

    def accept_now(self):
        """A connection that has already been opened, or None."""
        self.sock.setblocking(False)
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return None
        sock.setblocking(True)
        upstream = self.wrap(sock)
        self.connections.append(upstream)
        return upstream

    def next(self):
        """The connection on which weir sends next: a new one, or one it has kept."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            watched = [upstream for upstream in self.connections if not upstream.ended]
            for upstream in watched:
                if upstream.buffered:
                    return upstream
            for one in readable([self.sock, *watched]):
                if one is self.sock:
                    self.accept_now()
                else:
                    one.look()
                    if one.buffered:
                        return one  # its end may have come with it
        raise AssertionError(f"weir sent {self.name} nothing")

    def asked(self, whole=True):
        """The connection on which weir asks next, with its request read; not `whole`: its head."""
        upstream = self.next()
        upstream.read_request() if whole else upstream.read_request_head()
        return upstream

    def asked_by(self, client, request, whole=True):
        """The same, for a request that the client sends first."""
        client.send(request)
        return self.asked(whole)

    def open_connections(self):
        """Those that weir has not ended, as far as has arrived by now."""
        while self.accept_now():
            pass
        for upstream in self.connections:
            upstream.look()
        return [upstream for upstream in self.connections if not upstream.ended]

    def saw_nothing(self):
        """True when weir has sent this origin no byte since the test began."""
        self.open_connections()
        return not any(upstream.received for upstream in self.connections)

    # Served in threads.

    def serve(self, handler=None):
        """handler(request) gives the answer's bytes, None closes, Last closes behind them. Without
        one: 200 and the name."""
        self.handler = handler or (lambda request: http1.answer(200, self.name.encode()))
        self.acceptor = threading.Thread(target=self._accept_loop, daemon=True)
        self.acceptor.start()
        return self

    def _accept_loop(self):
        handler = self.handler
        while self.bell not in readable([self.sock, self.bell], None):
            self.sock.setblocking(False)
            try:
                sock, _ = self.sock.accept()
            except BlockingIOError:  # the test has taken it
                continue
            sock.setblocking(True)
            handler = self.handler or handler  # none: the test ends while this one comes
            upstream = self.wrap(sock)
            thread = threading.Thread(target=self._serve_one, args=(upstream, handler),
                                      daemon=True)
            with self.lock:
                self.connections.append(upstream)
                self.threads.append(thread)
            thread.start()

    def _serve_one(self, upstream, handler):
        upstream.sock.settimeout(None)
        try:
            while True:
                try:
                    if not upstream.buffered and not upstream.fill():
                        break
                    request = upstream.read_request()
                except (Ended, WasReset):
                    break
                with self.lock:
                    self.requests.append(request)
                reply = handler(request)
                if reply is None:
                    break
                upstream.send(reply)
                if isinstance(reply, Last):
                    break
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            upstream.close()

    # After each test.

    def clear(self):
        """Ends everything of this test; raises what a handler raised."""
        self.handler = None
        if self.acceptor:
            self.bell.ring()
            self.acceptor.join()
            self.bell.hears.recv(1)
            self.acceptor = None
        while self.accept_now():
            pass
        for upstream in self.connections:
            try:
                upstream.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(PATIENCE)
        for upstream in self.connections:
            upstream.close()
        errors, self.errors = self.errors, []
        self.connections, self.requests, self.threads = [], [], []
        if errors:
            raise errors[0]

    def close(self):
        try:
            self.clear()
        finally:
            self.bell.close()
            self.sock.close()


class Hole:
    """Here a connect neither succeeds nor fails: a full accept queue drops every SYN."""

    def __init__(self):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(0)
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.sock.getsockname())
            self.fillers.append(filler)

    def close(self):
        for filler in self.fillers:
            filler.close()
        self.sock.close()


class Dead:
    """Refuses every connect: bound, so that nobody else gets the port, but not listening."""

    def __init__(self):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"

    def close(self):
        self.sock.close()

