"""The origin, the load, and one measurement of one row."""

import json
import mmap
import os
import socket
import struct
import subprocess
import time

from benchlib.system import CoreSample, CpuSample, Failure, Process, free_port, private_bytes

# Written by perf/origin.c: struct counters.
COUNTER_NAMES = ("requests", "body_bytes_sent", "body_bytes_received", "accepted", "open",
                 "waiting")
COUNTERS = struct.Struct("6Q")


class Row:
    """One line of the table. kind: "load" (wrk) or "memory" (connections that are only held)."""

    def __init__(self, key, title, connections, path="/", kind="load", close=False, bulk=False):
        self.key = key
        self.title = title
        self.connections = connections
        self.path = path
        self.kind = kind
        self.close = close
        self.bulk = bulk


ROWS = [
    Row("keepalive-1", "keep-alive, 1 connection, 128 B", 1),
    Row("keepalive-64", "keep-alive, 64 connections, 128 B", 64),
    Row("keepalive-1000", "keep-alive, 1000 connections, 128 B", 1000),
    Row("keepalive-4000", "keep-alive, 4000 connections, 128 B", 4000),
    Row("bulk-16", "1 MB bodies, 16 connections", 16, path="/1m", bulk=True),
    Row("close-64", "Connection: close, 64 connections, 128 B", 64, close=True),
    Row("memory-idle", "memory per idle connection, 4000", 4000, kind="memory"),
    Row("memory-active", "memory per request in flight, 4000", 4000, kind="memory",
        path="/delay/60000/128"),
]


class Origin:
    """perf/origin.c, running, with its counters mapped."""

    def __init__(self, bench):
        self.port = free_port()
        counters_path = os.path.join(bench.run_dir, "origin.counters")
        self.process = Process([bench.origin_binary, str(self.port), counters_path],
                               bench.load_core, os.path.join(bench.run_dir, "origin.stderr"),
                               stdout=subprocess.PIPE)
        if self.process.popen.stdout.readline() != b"ready\n":
            raise Failure("the origin does not start")
        with open(counters_path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), COUNTERS.size, prot=mmap.PROT_READ)

    def counters(self):
        return dict(zip(COUNTER_NAMES, COUNTERS.unpack_from(self.map)))

    def stop(self):
        self.process.stop()


class Wrk:
    """One wrk run. result() waits for its end."""

    def __init__(self, bench, row, port, seconds):
        argv = ["wrk", "-t1", f"-c{row.connections}", f"-d{seconds}", "--timeout", "10",
                "-s", os.path.join(bench.perf_dir, "wrk_report.lua")]
        if row.close:
            argv += ["-H", "Connection: close"]
        self.process = Process(argv + ["--latency", f"http://127.0.0.1:{port}{row.path}"],
                               bench.load_core, os.path.join(bench.run_dir, "wrk.stderr"),
                               stdout=subprocess.PIPE)
        self.seconds = seconds

    def result(self):
        try:
            text = self.process.popen.communicate(timeout=self.seconds + 30)[0].decode()
        except subprocess.TimeoutExpired as error:
            raise Failure("wrk does not end") from error
        finally:
            self.process.stop()
        for line in text.splitlines():
            if line.startswith("WRK "):
                return json.loads(line[4:])
        raise Failure(f"wrk gave no result:\n{text}")


class Moment:
    """All counters at one time during a load."""

    def __init__(self, running, origin, wrk):
        self.proxy = CpuSample(running.pids())
        self.load = CpuSample([wrk.process.pid])
        self.origin = CpuSample([origin.process.pid])
        self.cores = CoreSample()
        self.counters = origin.counters()
        self.accepted = accepted_connections()


def measure_load(bench, row, running, origin):
    """A short run to fill pools and buffers, then the measured one.

    CPU and requests are those of a window inside the run, so that neither the start of thousands of
    connections nor their end is counted. The latencies are wrk's own, over its whole run.
    """
    ramp = 0.7 if row.connections < 1000 else 1.3
    Wrk(bench, row, running.port, 1).result()
    wrk = Wrk(bench, row, running.port, bench.seconds + 2)
    time.sleep(ramp)
    begin = Moment(running, origin, wrk)
    time.sleep(bench.seconds)
    end = Moment(running, origin, wrk)
    answer = wrk.result()
    running.process.check_alive()
    return figures(bench, row, begin, end, answer)


def figures(bench, row, begin, end, answer):
    window = end.proxy.at - begin.proxy.at
    delta = {name: end.counters[name] - begin.counters[name] for name in COUNTER_NAMES}
    requests = delta["requests"]
    errors = {name: answer[name] for name in ("connect", "read", "write", "status", "timeout")
              if answer[name]}
    accepted = end.accepted - begin.accepted - delta["accepted"]
    if row.close and accepted < 0.95 * requests:
        errors["not_closed"] = requests - accepted
    if requests == 0 or answer["requests"] == 0:
        errors["no_requests"] = 1
    cpu, user, system = end.proxy.since(begin.proxy)
    # us per request, or ms per 10^9 bytes of bodies
    unit = delta["body_bytes_sent"] / 1e9 / 1e3 if row.bulk else requests / 1e6
    unit = unit or 1
    proxy_core, proxy_stolen = end.cores.since(begin.cores, bench.proxy_core)
    load_core, load_stolen = end.cores.since(begin.cores, bench.load_core)
    load_busy = end.load.since(begin.load)[0] / window
    origin_busy = end.origin.since(begin.origin)[0] / window
    return {
        "rps": requests / window,
        "p50_us": answer["p50_us"],
        "p99_us": answer["p99_us"],
        "cpu": cpu / unit,
        "cpu_user": user / unit,
        "cpu_system": system / unit,
        "core": proxy_core * window / unit,
        "proxy_busy": cpu / window,
        "proxy_core_busy": proxy_core,
        "load_core_busy": load_core,
        "load_busy": load_busy,
        "origin_busy": origin_busy,
        "stolen": max(proxy_stolen, load_stolen),
        "foreign": max(0, proxy_core - cpu / window, load_core - load_busy - origin_busy),
        "upstream_connects": delta["accepted"],
        "requests": requests,
        "wrk": answer,
        "errors": errors,
    }


def accepted_connections():
    """TCP connections accepted on this machine since it started."""
    with open("/proc/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Tcp:")]
    return int(values[names.index("PassiveOpens")])


def is_load_bound(sample):
    """Load and origin had no time left while the proxy had some: requests/s is not its limit."""
    return sample["load_busy"] + sample["origin_busy"] > 0.95 and sample["proxy_busy"] < 0.90


class Held:
    """Connections that each sent one request; `answered` ones have read the whole answer."""

    def __init__(self, port, path, count, answered):
        self.sockets = []
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), 10)
            self.sockets.append(connection)
            connection.sendall(request)
            if answered:
                read_answer(connection)

    def still_open(self):
        """How many have been neither closed nor sent anything."""
        count = 0
        for connection in self.sockets:
            connection.setblocking(False)
            try:
                connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                count += 1
            except OSError:
                continue
        return count

    def close(self):
        for connection in self.sockets:
            connection.close()
        self.sockets = []


def read_answer(connection):
    received = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            raise Failure("a connection was closed before its answer")
        received += piece
        head, blank, body = received.partition(b"\r\n\r\n")
        if blank and len(body) >= 128:
            if not head.startswith(b"HTTP/1.1 200"):
                raise Failure(f"the answer is {head[:40]!r}")
            return


def measure_memory(row, running, origin):
    """Growth of private memory by held connections, after a warm-up that is not counted."""
    is_active = row.path != "/"
    fresh = private_bytes(running.pids())
    warm = Held(running.port, "/", 100, answered=True)
    warm.close()
    time.sleep(0.3)
    metrics = memory_metrics(running)
    before = private_bytes(running.pids())
    held = Held(running.port, row.path, row.connections, answered=not is_active)
    try:
        errors = {}
        if is_active:
            wait_for(lambda: origin.counters()["waiting"] >= row.connections)
            if origin.counters()["waiting"] != row.connections:
                errors["not_in_flight"] = row.connections - origin.counters()["waiting"]
        time.sleep(0.3)
        after = private_bytes(running.pids())
        metrics_after = memory_metrics(running)
        lost = row.connections - held.still_open()
        if lost:
            errors["closed"] = lost
    finally:
        held.close()
    return {
        "bytes": (after - before) / row.connections,
        "fresh_bytes": fresh,
        "before_bytes": before,
        "after_bytes": after,
        "metrics": {name: [metrics.get(name, 0), value] for name, value in metrics_after.items()},
        "errors": errors,
    }


def memory_metrics(running):
    return {name: value for name, value in running.metrics().items()
            if name.startswith("weir_memory_bytes") or "_slots_used" in name}


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
