"""The log: who does not read it stops nobody, and loses no line without being told."""

import fcntl
import os
import re
import signal
import socket
import subprocess

import pytest

from harness.http1 import answer, get
from harness.peer import Client
from harness.wait import PATIENCE, eventually
from harness.weir import BINARY, Port

RUN_S = 20

INI = """[global]
workers = 1
max_connections = 100
cpu_affinity = off
log_level = {level}
[admin]
bind = {admin}
[listener web]
bind = {web}
upstream = dead
[route hello]
path = /hello
respond = 200 hello
[upstream dead]
server = {dead}
"""


def says(text):
    return lambda lines: any(text in line for line in lines)


def lost_lines(lines):
    found = [re.match(r"\S+ warn (\d+) lines of the log were lost: ", line) for line in lines]
    return sum(int(each[1]) for each in found if each)


class Piped:
    """A weir whose log goes into a pipe of 4 KB, as in `weir 2>&1 | less`."""

    def __init__(self, directory, level="info"):
        self.web, self.admin, self.dead = Port(), Port(), Port()
        (directory / "weir.ini").write_text(INI.format(
            level=level, web=self.web.address, admin=self.admin.address, dead=self.dead.address))
        self.reads, writes = os.pipe()
        self.reader = os.fdopen(self.reads, "rb", 0)  # unbuffered: what is not read stays there
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
        self.process = subprocess.Popen([BINARY, "-c", "weir.ini"], cwd=directory,
                                        stdin=subprocess.DEVNULL, stderr=writes)
        os.close(writes)

    def ask(self, path, port=None):
        with socket.create_connection((port or self.web).target, timeout=PATIENCE) as sock:
            client = Client(sock)
            client.send(get(path, "Connection: close"))
            return client.read_response()

    def metric(self, name):
        lines = self.ask("/metrics", self.admin).body.decode().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"weir_{name} "))

    def read_until(self, enough=lambda lines: False):
        """Whole lines, until enough(lines) or the end; not the empty ones of fill()."""
        lines = []
        while not enough(lines) and (line := self.reader.readline()):
            lines += [line.decode()] if line != b"\n" else []
        return lines

    def fill(self):
        """What its next line would have to wait for."""
        other = os.open(f"/proc/self/fd/{self.reads}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(other, b"\n" * 64)
        except BlockingIOError:
            os.close(other)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.close()
        for port in (self.web, self.admin, self.dead):
            port.close()


@pytest.fixture
def piped(tmp_path):
    started = []

    def piped(**keys):
        started.append(Piped(tmp_path, **keys))
        started[-1].read_until(says(" ready: "))
        return started[-1]

    yield piped
    for weir in started:
        weir.close()


def test_who_does_not_read_the_log_stops_no_worker_and_no_end(piped):
    weir = piped()
    weir.fill()
    # The worker has a line to say of it, the main thread of the signals.
    assert weir.ask("/").reason == "connect_failed"
    weir.process.send_signal(signal.SIGHUP)
    assert weir.ask("/hello").body == b"hello"
    weir.process.send_signal(signal.SIGTERM)
    assert weir.process.wait(RUN_S) == 0


def test_what_was_said_while_nobody_read_comes_later(piped):
    weir = piped()
    weir.fill()
    assert weir.ask("/").reason == "connect_failed"
    lines = weir.read_until(says("cannot connect"))
    weir.process.send_signal(signal.SIGTERM)
    lines += weir.read_until()
    assert weir.process.wait(RUN_S) == 0
    assert "warn upstream dead: server " in lines[0]
    assert "info draining: " in lines[1]
    assert lines[2].endswith(" info drained: 0 requests were cut\n")
    assert len(lines) == 3


def test_the_flags_of_stderr_belong_to_who_started_it(piped):
    weir = piped()
    with open(f"/proc/{weir.process.pid}/fdinfo/2") as file:
        flags = next(line for line in file if line.startswith("flags:"))
    assert not int(flags.split()[1], 8) & os.O_NONBLOCK


def test_lines_that_are_too_many_are_lost_counted_and_said(piped):
    weir = piped(level="debug")
    weir.fill()
    for _ in range(100):
        assert weir.ask("/hello").body == b"hello"
    lost = weir.metric("log_dropped_total")
    assert lost > 0
    lines = weir.read_until(lambda lines: lost_lines(lines) >= lost)
    weir.process.send_signal(signal.SIGTERM)
    lines += weir.read_until()
    assert weir.process.wait(RUN_S) == 0
    # The scrape that told of it had lines, too.
    assert lost <= lost_lines(lines) <= lost + 10
    assert all(re.match(r"20\d\d-\d\d-\d\dT\S{12}Z (debug|info|warn) .*[a-z0-9)]\n$", line)
               for line in lines), "every line is whole"
    assert lines[-1].endswith(" info drained: 0 requests were cut\n")


DEBUG = """
[listener web]
bind = @web
upstream = app
[listener secure]
bind = @secure
tls = site
upstream = app
[listener raw]
bind = @raw
mode = tcp
upstream = rawapp
[route hello]
path = /hello
respond = 200 hello
[tls site]
certificate = weir.test.pem
[upstream app]
balance = first
server = @dead
server = @origin
[upstream rawapp]
balance = first
server = @dead
server = @origin
"""


def says_in_order(weir, *patterns):
    """Each in a line of its own, one behind the other, some of all that is said."""
    def found():
        at, log = 0, weir.log
        for pattern in patterns:
            match = re.search(rf"^\S+ debug {pattern}$", log[at:], re.M)
            if not match:
                return False
            at += match.end()
        return True

    eventually(found, lambda: f"the log says {patterns}:\n{weir.log}")


def test_debug_tells_what_is_decided_for_a_request(new_stage):
    stage = new_stage(DEBUG, log_level="debug")
    dead, origin = stage.address("dead"), stage.origin.address
    client = stage.connect_tls("secure", alpn=["http/1.1"])
    who = rf"listener secure: client 127\.0\.0\.1 port {client.sock.getsockname()[1]}: "
    upstream = stage.origin.asked_by(client, get("/path?secret=1"))
    upstream.send(answer(200, b"x"))
    assert client.read_response().body == b"x"
    client.close()
    says_in_order(
        stage.weir,
        who + r"connected, h1, TLSv1\.3 TLS_AES_\w+, ALPN http/1\.1.*",
        r"request [0-9a-f]{16}: client 127\.0\.0\.1 port \d+, listener secure: GET \S+ /path: "
        r"route none",
        rf"request [0-9a-f]{{16}}: upstream app: server {dead}, a new one",
        rf"upstream app: server {dead}: cannot connect: connect_failed",
        rf"request [0-9a-f]{{16}}: upstream app: server {origin}, a new one, after connect_failed",
        rf"upstream app: server {origin}: connected, h1",
        r"request [0-9a-f]{16}: ended: status 200, none, after \d+ ms",
        who + "closed: .+")
    assert "secret" not in stage.weir.log


def test_debug_tells_why_a_client_gets_no_session(new_stage):
    stage = new_stage(DEBUG, log_level="debug")
    client = stage.connect("secure")
    client.send(b"\x17\x03\x03\x00\x05hello")
    client.expect_end()
    at = stage.address("secure")
    says_in_order(stage.weir, rf"{at}: client 127\.0\.0\.1 port \d+: refused: tls_protocol: .+")
    refused = stage.connect()
    refused.send(b"nonsense\r\n\r\n")
    assert refused.read_response().status == 400
    says_in_order(stage.weir, r"listener web: client 127\.0\.0\.1 port \d+: "
                              r"a request was refused: bad_request_line: .+")


def test_debug_tells_what_is_decided_for_a_connection_of_tcp(new_stage):
    stage = new_stage(DEBUG, log_level="debug")
    client = stage.connect("raw")
    upstream = stage.origin.accept()
    upstream.close()
    client.expect_close()
    client.close()
    who = r"listener raw: client 127\.0\.0\.1 port \d+: "
    says_in_order(stage.weir, who + "connected, tcp",
                  who + rf"upstream rawapp: server {stage.address('dead')}",
                  who + rf"upstream rawapp: server {stage.origin.address}, after connect_failed",
                  who + "ended: none: .*")


def test_without_debug_nobody_is_told_of(new_stage):
    stage = new_stage(DEBUG, log_level="info")
    client = stage.connect()
    assert client.ask(get("/hello")).body == b"hello"
    client.close()
    stage.weir.drain()
    stage.weir.drained()
    assert " debug " not in stage.weir.log and "client" not in stage.weir.log
