"""A stage: one weir between its origins and its clients, built from the text of an INI file.

In that text `@name` stands for an address on loopback, by the name's first word:
    @origin, @origin_b, ...   an Origin each: stage.origin, stage.origins["origin_b"]
    @origin6..., @originunix...   the same over IPv6, over a unix socket
    @originslow...            the same with a small receive buffer
    @origintls..., @originh2tls...   the same with TLS, as origin.test (harness/tls.py); the latter
                              takes HTTP/2 by ALPN
    @dead...                  refuses every connect
    @hole...                  never answers a connect
    @port6..., @unix...       an IPv6 port, a unix socket of weir's own
    anything else             a port of weir's own: stage.connect("web") reaches `bind = @web`,
                              stage.connect_tls the same with TLS
A word NAME.pem is a certificate made for this stage (harness/tls.py).
[global] and [admin] are added; keywords of the constructor are keys of [global].
"""

import socket
import time

from .http1 import answer
from .origin import Dead, Hole, Origin
from .peer import Client
from .tls import TlsSocket, client_context, make_certificates, server_context
from .wait import PATIENCE
from .weir import Port, UnixPort, Weir, expand

GLOBAL = {
    "workers": 1,
    "cpu_affinity": "off",
    "max_connections": 1000,
    "drain_timeout": "2s",
    "log_level": "info",
}

# Pieces of INI files.
WEB = """
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin
"""
HELLO = """
[route hello]
path = /hello
respond = 200 hello
"""
HELLO_SERVICE = """
[route hello]
path = /hello
service = hello
[service hello]
type = respond
body = hello
"""


class Stage:
    def __init__(self, directory, ini=WEB, preexec=None, **global_keys):
        self.directory = str(directory)
        self.things = {}
        self.clients = []
        self.weir = None
        keys = "".join(f"{key} = {value}\n" for key, value in {**GLOBAL, **global_keys}.items())
        whole = f"[global]\n{keys}[admin]\nbind = @admin\n{ini}"
        try:
            make_certificates(self.directory, ini)
            text = expand(whole, self._address)
            self.weir = Weir(directory, text, self.things["admin"], preexec=preexec)
        except BaseException:
            self._close_things()
            raise

    def _address(self, name):
        if name not in self.things:
            make = {
                "origin": lambda: Origin(name),
                "origin6": lambda: Origin(name, socket.AF_INET6),
                "origintls": lambda: Origin(name, tls=self._origin_context),
                "originh2tls": lambda: Origin(name, tls=self._origin_h2_context),
                "originslow": lambda: Origin(name, recv_buffer=4096),
                "originunix": lambda: Origin(name, socket.AF_UNIX, f"{self.directory}/{name}"),
                "dead": Dead,
                "hole": Hole,
                "port6": lambda: Port(socket.AF_INET6),
                "unix": lambda: UnixPort(f"{self.directory}/{name}"),
            }.get(name.split("_")[0], Port)
            self.things[name] = make()
        return self.things[name].address

    def _origin_context(self):
        return server_context(self.directory)

    def _origin_h2_context(self):
        return server_context(self.directory, alpn=["h2"])

    @property
    def origins(self):
        return {name: thing for name, thing in self.things.items() if isinstance(thing, Origin)}

    @property
    def origin(self):
        return self.things["origin"]

    def port(self, name):
        """A port that no line of the INI file names, held for the life of the stage."""
        self._address(name)
        return self.things[name]

    def address(self, name="web"):
        return self.things[name].address

    def url(self, path="/", name="web", scheme="http"):
        return f"{scheme}://{self.address(name)}{path}"

    def connect(self, name="web", recv_buffer=0, source=None):
        """A client connection; `recv_buffer` makes it a small receiver, `source` is its address."""
        port = self.things[name]
        sock = socket.socket(port.family)
        if recv_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer)
        sock.settimeout(PATIENCE)
        try:
            if source:
                sock.bind((source, 0))
            sock.connect(port.target)
        except BaseException:
            sock.close()
            raise
        client = Client(sock)
        self.clients.append(client)
        return client

    def connect_tls(self, name="secure", server_name="weir.test", session=None, handshake=True,
                    each_byte=False, source=None, **of_context):
        """A client whose `sock` is a TlsSocket; the rest is for tls.client_context."""
        client = self.connect(name, source=source)
        context = client_context(self.directory, **of_context) if not session else session[0]
        client.sock = TlsSocket(client.sock, context, name=server_name, each_byte=each_byte,
                                session=session[1] if session else None)
        client.context = context
        if handshake:
            client.sock.handshake()
        return client

    def exchange(self, request, response=None, client=None, method="GET"):
        """One request and its answer back: (what the origin saw, what the client got).
        """
        client = client or self.connect()
        client.send(request)
        upstream = self.origin.next()
        seen = upstream.read_request()
        upstream.send(response if response is not None else answer(200, b"hello"))
        return seen, client.read_response(method)

    def send_into_queue(self, client, stuck_s=0.4):
        """Sends to a tcp listener whose server does not read, until some of it stays in weir's
        queue, and not so much that weir would stop reading; returns how many bytes. In pieces that
        fill no receive buffer: those would be a stream, and spliced."""
        base = self.count("weir_tunnel_bytes_total", direction="to_upstream")
        sent, stuck_since = 0, None

        def send_piece():
            nonlocal sent
            client.send(b"q" * 8000)
            sent += 8000
            self.weir.eventually_metric(base + sent, "weir_tunnel_bytes_total",
                                        direction="to_upstream")

        while not stuck_since or time.monotonic() - stuck_since < stuck_s:
            if not self.count("weir_memory_used_bytes", pool="send_queue"):
                send_piece()
                stuck_since = time.monotonic()
        for _ in range(4):  # the kernel may find room for a little more after a while
            send_piece()
        return sent

    def has_read(self):
        """What was sent to weir by now, its one worker has read: it answers what comes later."""
        self.weir.admin_get("/healthz")

    def metrics(self):
        return self.weir.metrics()

    def count(self, name, **labels):
        """The sum of a counter now: take it before and after."""
        return self.weir.metrics().sum(name, **labels)

    def counter(self, name, **labels):
        """A counter from here on: `grows(by)` waits until it has grown by so much."""
        return self.weir.counter(name, **labels)

    def ended(self, reason):
        """The counter of exchanges that end for that reason."""
        return self.counter("weir_http_exchanges_ended_total", reason=reason)

    def relays_ended(self, reason):
        """The same of connections of listeners with mode = tcp."""
        return self.counter("weir_tcp_connections_ended_total", reason=reason)

    def clear(self):
        """Ends every connection of the test. Errors of origin handlers come out here."""
        for client in self.clients:
            client.close()
        self.clients = []
        errors = []
        for origin in self.origins.values():
            try:
                origin.clear()
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def check(self):
        """After each test: everything ended, nothing leaked."""
        self.clear()
        self.weir.check_no_leak()

    def stop(self):
        try:
            self.clear()
            self.weir.stop()
        finally:
            self.weir.kill()
            self._close_things()

    def abandon(self):
        """For a stage that has already failed: end it without asking more of it."""
        self.weir.kill()
        self._close_things()

    def _close_things(self):
        for thing in self.things.values():
            try:
                thing.close()
            except Exception:
                pass
