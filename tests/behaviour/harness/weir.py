"""weir as a process: its INI file, its ports, its start, its metrics, its end."""

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import time

from .metrics import Metrics
from .peer import Client
from .wait import PATIENCE, eventually

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BINARY = os.environ.get("WEIR_BIN", os.path.join(ROOT, "build", "weir"))
START_S = 30
END_S = 30

# What a sanitizer or a failed CHECK writes.
_REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|UndefinedBehavior|runtime error:|weir: bug:")

# Gauges that must be back where they were after each test. A scrape's own connection is in both.
BALANCED = (
    "weir_listener_connections_active",
    "weir_conn_slots_used",
    "weir_session_slots_used",
    "weir_exchange_slots_used",
    "weir_tunnel_slots_used",
    "weir_websocket_connections",
    "weir_relay_slots_used",
    "weir_uring_ops_in_flight",
)


PR_CAPBSET_DROP, CAP_SYS_RESOURCE = 24, 24


def few_files(count):
    """For preexec: at most `count` descriptors, as after `ulimit -n`; root may not raise that."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def limit():
        if os.geteuid() == 0 and prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(2)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    return limit


class Counter:
    """A metric from here on. What it grows by is counted exactly: once too often is a failure."""

    def __init__(self, weir, name, labels):
        self.weir, self.name, self.labels = weir, name, labels
        self.before = self.now()

    def now(self):
        return self.weir.metrics().sum(self.name, **self.labels)

    def grown(self):
        """By how much, at this moment."""
        return self.now() - self.before

    def grows(self, by=1):
        """Waits until it has grown by so much."""
        self.weir.eventually_metric(self.before + by, self.name, **self.labels)


class Port:
    """A port of loopback that is weir's for as long as this lives.

    The socket stays bound without listening: weir binds beside it by SO_REUSEADDR and then
    SO_REUSEPORT, everybody else gets another port.
    """

    def __init__(self, family=socket.AF_INET):
        self.family = family
        self.sock = socket.socket(family)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.target = self.sock.getsockname()
        self.number = self.target[1]
        host = f"[{self.target[0]}]" if family == socket.AF_INET6 else self.target[0]
        self.address = f"{host}:{self.number}"

    def close(self):
        self.sock.close()


class UnixPort:
    """The path of a unix socket that weir listens on."""

    family = socket.AF_UNIX

    def __init__(self, path):
        self.target = path
        self.address = f"unix:{path}"

    def close(self):
        pass


def expand(ini, addresses):
    """`@name` becomes its address. Leading blanks go (inih would join the lines)."""
    text = "\n".join(line.strip() for line in ini.strip().splitlines()) + "\n"
    return re.sub(r"@([a-z][a-z0-9_]*)", lambda match: addresses(match.group(1)), text)


class Weir:
    """A running weir. `ports` are Port objects by name; the caller closes them after stop()."""

    def __init__(self, directory, ini, admin, binary=BINARY, preexec=None):
        self.directory = str(directory)
        self.admin = admin
        self.file = os.path.join(self.directory, "weir.ini")
        self.stderr_file = os.path.join(self.directory, "stderr")
        with open(self.file, "w") as file:
            file.write(ini)
        with open(self.stderr_file, "wb") as stderr:
            self.process = subprocess.Popen(
                [binary, "-c", self.file], cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=stderr, stderr=subprocess.STDOUT, preexec_fn=preexec)
        try:
            self._wait_ready()
            self.take_baseline()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self):
        return self.process.pid

    @property
    def log(self):
        """Everything it has written so far."""
        with open(self.stderr_file, errors="replace") as file:
            return file.read()

    def says(self, text):
        """Waits until `text` is in the log, a thread's own work; returns all of that."""
        return eventually(lambda: text in self.log and self.log,
                          lambda: f"the log says {text!r}:\n{self.log}")

    def running(self):
        return self.process.poll() is None

    def _wait_ready(self):
        def ready():
            status = self.process.poll()
            assert status is None, f"weir exited with {status} at start:\n{self.log}"
            try:
                return self.admin_get("/readyz").status == 200
            except ConnectionRefusedError:
                return False

        eventually(ready, lambda: f"weir became ready:\n{self.log}", within=START_S)
        self.says(" ready: ")

    # The admin listener.

    def connect_admin(self):
        sock = socket.create_connection(("127.0.0.1", self.admin.number), timeout=PATIENCE)
        return Client(sock)

    def admin_get(self, path):
        """One GET over a connection of its own, read to its end."""
        client = self.connect_admin()
        try:
            client.send(f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
            response = client.read_response()
            client.expect_end()
            return response
        finally:
            client.close()

    def metrics(self):
        response = self.admin_get("/metrics")
        assert response.status == 200, response
        return Metrics(response.body.decode())

    def eventually_metric(self, wanted, name, **labels):
        """Waits until the sum of `name` is `wanted` (a value or a predicate); returns it."""
        matches = wanted if callable(wanted) else lambda value: value == wanted
        seen = []

        def reached():
            seen[:] = [self.metrics().sum(name, **labels)]
            return matches(seen[0])

        eventually(reached, lambda: f"{name}{labels or ''} as wanted, it is {seen[0]}")
        return seen[0]

    def counter(self, name, **labels):
        return Counter(self, name, labels)

    # The leak check.

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _gauges(self):
        metrics = self.metrics()
        gauges = {name: metrics.need(name) for name in BALANCED}
        gauges["weir_uring_buffers leased"] = metrics.need("weir_uring_buffers", state="leased")
        gauges["weir_uring_buffers all"] = metrics.need("weir_uring_buffers")
        gauges["weir_pipes used"] = metrics.need("weir_pipes", state="used")
        gauges["weir_upstream_connections"] = metrics.sum("weir_upstream_connections")
        return gauges

    def take_baseline(self):
        """Remembers what an idle weir holds, once the scrape before has been closed, too."""
        looks = []
        while len(looks) < 5 or any(look != looks[-1] for look in looks[-5:]):
            looks.append(self._gauges())
            assert len(looks) < 200, f"weir never came to rest: {looks[-2:]}"
            time.sleep(0.002)
        self.baseline = looks[-1]
        counts = []
        while len(counts) < 20 or min(counts) not in counts[:-5]:
            counts.append(self.fd_count())
            time.sleep(0.001)
        self.fd_baseline = min(counts) - 2 * int(self.metrics().sum("weir_pipes"))

    def check_no_leak(self):
        """Buffers, slots, operations and descriptors get back to the baseline."""
        assert self.running(), f"weir ended with {self.process.returncode}"
        last = {}

        def back():
            last.update(self._gauges())
            return last == self.baseline

        def difference():
            return "weir gave back what the test used: " + ", ".join(
                f"{name} is {last[name]:g}, was {value:g}"
                for name, value in self.baseline.items() if last.get(name) != value)

        eventually(back, difference)
        # Pipes stay open for the next stream.
        pipe_fds = 2 * int(self.metrics().sum("weir_pipes"))
        eventually(lambda: self.fd_count() - pipe_fds <= self.fd_baseline,
                   lambda: f"weir closed its fds: {self.fd_count()} with {pipe_fds} of pipes, "
                           f"were {self.fd_baseline}")

    # The end.

    def signal(self, number):
        self.process.send_signal(number)

    def drain(self, number=None):
        """Sends SIGTERM, or another signal, and returns when weir drains."""
        self.signal(number or signal.SIGTERM)
        eventually(lambda: self.admin_get("/readyz").status == 503, "weir drains")
        self.says("draining:")

    def drained(self, cut=0):
        """weir ends well, with so many requests cut. To show that it does not wait until it must,
        a test gives it more time to drain than END_S."""
        assert self.wait_exit() == 0, self.log
        said = re.search(r"drained: (\d+) requests were cut", self.log)
        assert said and int(said[1]) == cut, self.log

    def wait_exit(self):
        """The exit status; fails when weir stays."""
        try:
            return self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"weir did not end within {END_S} s") from None

    def check_log(self):
        report = _REPORT.search(self.log)
        assert not report, f"weir reported a bug of its own:\n{self.log}"

    def stop(self):
        """SIGTERM, exit 0, no report. For a weir that has already ended: only the checks."""
        try:
            if self.running():
                self.signal(signal.SIGTERM)
            status = self.wait_exit()
            self.check_log()
            assert status == 0, f"weir exited with {status}:\n{self.log}"
        finally:
            self.kill()

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()
