"""The rows of the table: what each one puts on a proxy, and which programs it is put on."""

WEB = ("weir", "nginx", "haproxy", "h2o")
# HAProxy with and without splice(2): which one is cheaper depends on the row.
WEB_BULK = ("weir", "nginx", "haproxy", "haproxy-splice", "h2o")
TCP = ("weir", "nginx", "haproxy")
# `bare` is no peer but what the kernel alone takes (perf/bare.c).
TCP_SMALL = ("weir", "nginx", "haproxy", "bare")
TCP_BULK = ("weir", "nginx", "haproxy", "haproxy-splice", "bare")

WITH_H2_UPSTREAM = ("weir", "haproxy")  # of the peers, only HAProxy speaks HTTP/2 to its upstreams

# The peers that a row's ratio is to. In the older rows h2o is shown beside them.
NGINX_HAPROXY = ("nginx", "haproxy", "haproxy-splice")
ALL_PEERS = ("nginx", "haproxy", "haproxy-splice", "h2o")

MIB = 1024 * 1024


class Row:
    """One line of the table.

    kind: "load" or "memory" (connections that are only held). mode: the configuration, "http",
    "tcp" or "echo". client and upstream: what is spoken on either side, "h1" or "h2"; tls: over
    TLS with the client. tool: "wrk", "h2load", or a kind of load of perf/load.c: "get", "post",
    "connect", "echo", "tls". session: for "tls", how connections begin and whether they are kept.
    tickets: the program gives them. upgrade: to a WebSocket, which then stays idle. compared: the
    peers that the ratio is to. unit: what the CPU is divided by, a key of UNITS. What is not given
    is as below.
    """

    def __init__(self, key, title, connections, **others):
        self.key = key
        self.title = title
        self.connections = connections
        self.programs = others.pop("programs", WEB)
        self.kind = others.pop("kind", "load")
        self.mode = others.pop("mode", "http")
        self.client = others.pop("client", "h1")
        self.tls = others.pop("tls", False)
        self.upstream = others.pop("upstream", "h1")
        self.session = others.pop("session", "keep")
        self.tickets = others.pop("tickets", True)
        self.compared = others.pop("compared", NGINX_HAPROXY)
        self.tool = others.pop("tool", "wrk")
        self.unit = others.pop("unit", "request")
        self.path = others.pop("path", "/")
        self.close = others.pop("close", self.session != "keep")
        self.streams = others.pop("streams", 1)
        self.active = others.pop("active", connections)
        self.size = others.pop("size", 0)
        self.upgrade = others.pop("upgrade", False)
        self.rate = others.pop("rate", 0)
        assert not others, others

    def in_round(self, turn):
        """What connections take in memory is the same in each round: once is enough."""
        return self.kind == "load" or turn == 0

    def is_plain(self):
        """HTTP/1.1 in clear on both sides, TCP or an echo."""
        return self.client == self.upstream == "h1" and not self.tls

    def protocols(self):
        return f"{self.client}{' over TLS' if self.tls else ''} to {self.upstream}"

    def url(self, port):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{port}{self.path}"

    def compared_words(self):
        """For a heading: the peers of this row that the ratio is to."""
        names = [name for name in self.programs if name in self.compared]
        if names == ["haproxy"]:
            return "HAProxy"
        return "all peers" if "h2o" in names else "nginx/HAProxy"


# unit: (per second, CPU per unit, the same in words)
UNITS = {
    "request": ("req/s", "us/req", "requests/s", "us per request"),
    "GB": ("req/s", "ms/GB", "requests/s", "ms per GB"),
    "connection": ("conn/s", "us/conn", "connections/s", "us per connection"),
    "handshake": ("hs/s", "us/hs", "handshakes/s", "us per handshake"),
    "message": ("msg/s", "us/msg", "messages/s", "us per message"),
}

ROWS = [
    Row("keepalive-1", "keep-alive, 1 connection, 128 B", 1),
    Row("keepalive-64", "keep-alive, 64 connections, 128 B", 64),
    Row("keepalive-256", "keep-alive, 256 connections, 128 B", 256),
    Row("keepalive-1000", "keep-alive, 1000 connections, 128 B", 1000),
    Row("keepalive-4000", "keep-alive, 4000 connections, 128 B", 4000),
    Row("bulk-16", "1 MB bodies, download, 16 connections", 16, path="/1m", tool="get", unit="GB",
        programs=WEB_BULK),
    Row("upload-16", "1 MB bodies, upload, 16 connections", 16, tool="post", size=MIB, unit="GB",
        programs=WEB_BULK),
    Row("close-64", "Connection: close, 64 connections, 128 B", 64, close=True),
    Row("tcp-64", "TCP mode, 64 connections, 128 B", 64, mode="tcp", tool="get",
        programs=TCP_SMALL),
    Row("tcp-1000", "TCP mode, 1000 connections, 128 B", 1000, mode="tcp", tool="get",
        programs=TCP_SMALL),
    Row("tcp-bulk-16", "TCP mode, 1 MB responses, 16 connections", 16, mode="tcp", path="/1m",
        tool="get", unit="GB", programs=TCP_BULK),
    Row("tcp-bulk-256", "TCP mode, 1 MB responses, 256 connections", 256, mode="tcp", path="/1m",
        tool="get", unit="GB", programs=TCP_BULK),
    Row("tcp-connect", "TCP mode, a connection for each request of 1 B, 64 at a time", 64,
        mode="tcp", path="/bytes/1", tool="connect", unit="connection", programs=TCP),
    Row("echo", "echo of 128 B, 10000 connections, 1000 of them always have a message on its way "
        "(closed loop)", 10000, mode="echo", tool="echo", unit="message", active=1000, size=128,
        programs=("weir",)),
    Row("echo-rate", "echo of 128 B, 10000 connections, 1000 of them send 50000 messages/s "
        "(open loop, from the time each is due)", 10000, mode="echo", tool="echo", unit="message",
        active=1000, size=128, rate=50000, programs=("weir",)),
    Row("h2c-512", "HTTP/2 in clear, 16 connections with 32 streams each, 128 B", 16,
        client="h2", streams=32, tool="h2load", compared=ALL_PEERS),
    Row("h2-tls", "HTTP/2 over TLS, 16 connections with 32 streams each, 128 B", 16,
        client="h2", tls=True, streams=32, tool="h2load", compared=ALL_PEERS),
    Row("h2c-h2c", "HTTP/2 in clear on both sides, 16 connections with 32 streams each, 128 B", 16,
        client="h2", upstream="h2", streams=32, tool="h2load", programs=WITH_H2_UPSTREAM),
    Row("h1-h2c-64", "HTTP/1.1 to HTTP/2 in clear, 64 connections, 128 B", 64, upstream="h2",
        programs=WITH_H2_UPSTREAM),
    Row("h1-h2c-256", "HTTP/1.1 to HTTP/2 in clear, 256 connections, 128 B", 256, upstream="h2",
        programs=WITH_H2_UPSTREAM),
    Row("h1-h2c-1000", "HTTP/1.1 to HTTP/2 in clear, 1000 connections, 128 B", 1000, upstream="h2",
        programs=WITH_H2_UPSTREAM),
    Row("tls-64", "TLS, keep-alive, 64 connections, 128 B", 64, tls=True, compared=ALL_PEERS),
    Row("tls-bulk-16", "TLS, 1 MB bodies, download, 16 connections", 16, tls=True, path="/1m",
        tool="tls", unit="GB", compared=ALL_PEERS),
    Row("tls-handshake", "TLS, a full handshake (ECDSA P-256) for each request, 64 at a time", 64,
        tls=True, tool="tls", session="full", tickets=False, unit="handshake", compared=ALL_PEERS),
    Row("tls-resume", "TLS, a resumed handshake for each request, 64 at a time", 64, tls=True,
        tool="tls", session="resumed", unit="handshake", compared=ALL_PEERS),
    Row("memory-idle", "memory per idle connection, 4000", 4000, kind="memory"),
    Row("memory-active", "memory per request in flight, 4000", 4000, kind="memory",
        path="/delay/60000/128"),
    Row("memory-tcp", "memory per idle TCP pair, 4000", 4000, kind="memory", mode="tcp",
        programs=TCP),
    Row("memory-websocket", "memory per idle WebSocket, 4000", 4000, kind="memory", path="/ws",
        upgrade=True, programs=("weir", "nginx", "haproxy")),
    Row("memory-h2c", "memory per idle connection, HTTP/2 in clear, 4000", 4000, kind="memory",
        client="h2", compared=ALL_PEERS),
    Row("memory-tls", "memory per idle connection, HTTP/1.1 over TLS, 2000", 2000, kind="memory",
        tls=True, compared=ALL_PEERS),
    Row("memory-tls-h2", "memory per idle connection, HTTP/2 over TLS, 2000", 2000, kind="memory",
        client="h2", tls=True, compared=ALL_PEERS),
]
# For perf/steady and perf/profile, which count requests at the origin: an echo never gets there.
ORIGIN_ROWS = {row.key: row for row in ROWS if row.kind == "load" and row.mode != "echo"}
