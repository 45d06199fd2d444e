"""The origins, the load, and one measurement of one row."""

import json
import mmap
import os
import re
import select
import signal
import struct
import subprocess
import time

from benchlib.system import CoreSample, CpuSample, Failure, Process, free_port

# Written by the origins: struct counters.
COUNTER_NAMES = ("requests", "bytes_sent", "body_bytes_received", "accepted", "open", "waiting")
COUNTERS = struct.Struct("6Q")
WARM_SECONDS = 0.8
# What all generators of load through TLS use, so that every program does the same work.
TLS_SUITE = "TLS_AES_128_GCM_SHA256"
TLS_GROUP = "X25519"
READY_SECONDS = 20
# wrk is ended when the window is over, never by its own clock. h2load knows only its own clock.
WRK_SPARE_SECONDS = 60
H2LOAD_SPARE_SECONDS = 0.6
# The clients' OpenSSL reads it: wrk has no option for these.
CLIENT_CONF = f"""openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
Ciphersuites = {TLS_SUITE}
Groups = {TLS_GROUP}
"""


class Origin:
    """perf/origin.c or perf/origin_h2.c ("h1", "h2"), running, with its counters mapped."""

    def __init__(self, bench, protocol="h1"):
        self.port = free_port()
        counters_path = os.path.join(bench.run_dir, f"origin-{protocol}.counters")
        self.process = Process([bench.origin_binaries[protocol], str(self.port), counters_path],
                               bench.load_core,
                               os.path.join(bench.run_dir, f"origin-{protocol}.stderr"),
                               stdout=subprocess.PIPE)
        if self.process.popen.stdout.readline() != b"ready\n":
            raise Failure("the origin does not start")
        with open(counters_path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), COUNTERS.size, prot=mmap.PROT_READ)

    def counters(self):
        return dict(zip(COUNTER_NAMES, COUNTERS.unpack_from(self.map)))

    def stop(self):
        self.process.stop()


class Load:
    """One load generator, working for `seconds` or longer. For the kinds see Row.tool."""

    def __init__(self, bench, row, port, seconds):
        self.tool = row.tool
        self.seconds = seconds
        argv = {"wrk": wrk_argv, "h2load": h2load_argv}.get(row.tool, load_argv)
        self.process = Process(argv(bench, row, port, seconds), bench.load_core,
                               os.path.join(bench.run_dir, "load.stderr"), stdout=subprocess.PIPE,
                               env=bench.client_environment)
        if self.tool not in ("wrk", "h2load"):
            self._wait_until_ready()

    def _wait_until_ready(self):
        output = self.process.popen.stdout
        has_said = select.select([output], [], [], READY_SECONDS)[0]
        if not has_said or output.readline() != b"ready\n":
            self.process.check_alive()
            self.process.stop()
            raise Failure(f"the load's connections do not stand after {READY_SECONDS} s")

    def mark(self):
        """Forgets what was measured so far. wrk and h2load cannot: theirs is of the whole run."""
        if self.tool not in ("wrk", "h2load"):
            self.process.popen.send_signal(signal.SIGUSR1)

    def result(self):
        """Ends it and returns its figures."""
        try:
            if self.tool != "h2load":
                self.process.popen.send_signal(signal.SIGINT)
            text = self.process.popen.communicate(timeout=10 + self.seconds)[0].decode()
        except subprocess.TimeoutExpired as error:
            raise Failure("the load generator does not end") from error
        finally:
            self.process.stop()
        for line in text.splitlines():
            if line.startswith("WRK "):
                return json.loads(line[4:])
        if self.tool == "h2load":
            return h2load_figures(text)
        raise Failure(f"the load generator gave no result:\n{text}")


def wrk_argv(bench, row, port, seconds):
    argv = ["wrk", "-t1", f"-c{row.connections}", f"-d{int(seconds) + WRK_SPARE_SECONDS}",
            "--timeout", "10", "-s", os.path.join(bench.perf_dir, "wrk_report.lua")]
    if row.close:
        argv += ["-H", "Connection: close"]
    return argv + ["--latency", row.url(port)]


def h2load_argv(_bench, row, port, seconds):
    return ["h2load", "-t1", f"-c{row.connections}", f"-m{row.streams}",
            f"-D{int(seconds * 1000)}ms", f"--tls13-ciphers={TLS_SUITE}", f"--groups={TLS_GROUP}",
            row.url(port)]


def h2load_figures(text):
    """The words of the other generators. h2load tells no percentiles, and its mean is none."""
    done = re.search(r"requests: .*?(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, "
                     r"(\d+) timeout", text)
    status = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if not done or not status:
        raise Failure(f"h2load gave no result:\n{text}")
    answered, _, failed, errored, timeouts = (int(word) for word in done.groups())
    bad_status = sum(int(word) for word in status.groups()[1:])
    return {"requests": answered, "p50_us": None, "p99_us": None, "connect": 0, "write": 0,
            "read": max(errored, failed - bad_status - timeouts), "status": bad_status,
            "timeout": timeouts}


def load_argv(bench, row, port, _seconds):
    argv = [bench.load_binary, row.tool, port, row.connections]
    if row.tool == "echo":
        argv += [row.active, row.size, row.rate]
    else:
        argv.append(row.path)
        argv += {"post": [row.size], "tls": [row.session]}.get(row.tool, [])
    return [str(word) for word in argv]


class Moment:
    """All counters at one time during a load."""

    def __init__(self, running, origin, load):
        self.proxy = CpuSample(running.pids())
        self.load = CpuSample([load.process.pid])
        self.origin = CpuSample([origin.process.pid])
        self.cores = CoreSample()
        self.counters = origin.counters()
        self.accepted = accepted_connections()


def measure_load(bench, row, running, origin):
    """A short run to fill pools and buffers, then the measured one.

    CPU and requests are those of a window inside the run, so that neither the start of thousands of
    connections nor their end is counted. wrk's latencies are those of its whole run.
    """
    warm = Load(bench, row, running.port, WARM_SECONDS)
    time.sleep(WARM_SECONDS)
    warm.result()
    settle_seconds = 0.7 if row.connections < 1000 else 1.3
    load = Load(bench, row, running.port, settle_seconds + bench.seconds + H2LOAD_SPARE_SECONDS)
    time.sleep(settle_seconds)
    begin = Moment(running, origin, load)
    load.mark()
    time.sleep(bench.seconds)
    end = Moment(running, origin, load)
    load.process.check_alive()
    answer = load.result()
    running.process.check_alive()
    return figures(bench, row, begin, end, answer)


def figures(bench, row, begin, end, answer):
    window = end.proxy.at - begin.proxy.at
    delta = {name: end.counters[name] - begin.counters[name] for name in COUNTER_NAMES}
    # An echo never comes to the origin. Its generator's window is the same but for milliseconds.
    requests = answer["requests"] if row.mode == "echo" else delta["requests"]
    errors = load_errors(answer)
    accepted = end.accepted - begin.accepted - delta["accepted"]
    if (row.close or row.tool == "connect") and accepted < 0.95 * requests:
        errors["not_closed"] = requests - accepted
    if requests == 0 or answer["requests"] == 0:
        errors["no_requests"] = 1
    cpu, user, system = end.proxy.since(begin.proxy)
    # us per request, connection or message, or ms per 10^9 bytes
    transferred = delta["body_bytes_received" if row.tool == "post" else "bytes_sent"]
    unit = transferred / 1e9 / 1e3 if row.unit == "GB" else requests / 1e6
    unit = unit or 1
    proxy_core, proxy_stolen = end.cores.since(begin.cores, bench.proxy_core)
    load_core, load_stolen = end.cores.since(begin.cores, bench.load_core)
    load_busy = end.load.since(begin.load)[0] / window
    origin_busy = end.origin.since(begin.origin)[0] / window
    return {
        "rps": requests / window,
        "per_core": requests / cpu if cpu else 0,
        "gigabytes": transferred / 1e9 / window,
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
        "tickets": answer.get("tickets", 0) / max(answer["requests"], 1),
        "upstream_connects": delta["accepted"],
        "requests": requests,
        "wrk": answer,
        "errors": errors,
    }


def load_errors(answer):
    names = ("connect", "read", "write", "status", "timeout", "handshake")
    return {name: answer[name] for name in names if answer.get(name)}


def accepted_connections():
    """TCP connections accepted on this machine since it started."""
    with open("/proc/net/snmp", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Tcp:")]
    return int(values[names.index("PassiveOpens")])


def is_load_bound(sample):
    """Load and origin had no time left while the proxy had some: requests/s is not its limit."""
    return sample["load_busy"] + sample["origin_busy"] > 0.95 and sample["proxy_busy"] < 0.90
