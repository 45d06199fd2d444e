"""The rows of the table: what each one puts on a proxy, and which programs it is put on."""

WEB = ("weir", "nginx", "haproxy", "h2o")
# HAProxy with and without splice(2): which one is cheaper depends on the row.
WEB_BULK = ("weir", "nginx", "haproxy", "haproxy-splice", "h2o")
TCP = ("weir", "nginx", "haproxy")
TCP_BULK = ("weir", "nginx", "haproxy", "haproxy-splice")

MIB = 1024 * 1024


class Row:
    """One line of the table.

    kind: "load" or "memory" (connections that are only held). mode: the configuration, "http",
    "tcp" or "echo". tool: "wrk", or a kind of load of perf/load.c: "get", "post", "connect",
    "echo". unit: what the CPU is divided by, a key of UNITS. What is not given is as below.
    """

    def __init__(self, key, title, connections, **others):
        self.key = key
        self.title = title
        self.connections = connections
        self.programs = others.pop("programs", WEB)
        self.kind = others.pop("kind", "load")
        self.mode = others.pop("mode", "http")
        self.tool = others.pop("tool", "wrk")
        self.unit = others.pop("unit", "request")
        self.path = others.pop("path", "/")
        self.close = others.pop("close", False)
        self.active = others.pop("active", connections)
        self.size = others.pop("size", 0)
        self.rate = others.pop("rate", 0)
        assert not others, others


# unit: (per second, CPU per unit, the same in words)
UNITS = {
    "request": ("req/s", "us/req", "requests/s", "us per request"),
    "GB": ("req/s", "ms/GB", "requests/s", "ms per GB"),
    "connection": ("conn/s", "us/conn", "connections/s", "us per connection"),
    "message": ("msg/s", "us/msg", "messages/s", "us per message"),
}

ROWS = [
    Row("keepalive-1", "keep-alive, 1 connection, 128 B", 1),
    Row("keepalive-64", "keep-alive, 64 connections, 128 B", 64),
    Row("keepalive-1000", "keep-alive, 1000 connections, 128 B", 1000),
    Row("keepalive-4000", "keep-alive, 4000 connections, 128 B", 4000),
    Row("bulk-16", "1 MB bodies, download, 16 connections", 16, path="/1m", tool="get", unit="GB",
        programs=WEB_BULK),
    Row("upload-16", "1 MB bodies, upload, 16 connections", 16, tool="post", size=MIB, unit="GB",
        programs=WEB_BULK),
    Row("close-64", "Connection: close, 64 connections, 128 B", 64, close=True),
    Row("tcp-64", "TCP mode, 64 connections, 128 B", 64, mode="tcp", tool="get", programs=TCP),
    Row("tcp-1000", "TCP mode, 1000 connections, 128 B", 1000, mode="tcp", tool="get", programs=TCP),
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
    Row("memory-idle", "memory per idle connection, 4000", 4000, kind="memory"),
    Row("memory-active", "memory per request in flight, 4000", 4000, kind="memory",
        path="/delay/60000/128"),
    Row("memory-tcp", "memory per idle TCP pair, 4000", 4000, kind="memory", mode="tcp",
        programs=TCP),
]
# For perf/steady and perf/profile, which count requests at the origin: an echo never gets there.
ORIGIN_ROWS = {row.key: row for row in ROWS if row.kind == "load" and row.mode != "echo"}
