"""The log: who does not read it stops nobody, and loses no line without being told."""

import fcntl
import os
import signal
import socket
import subprocess

import pytest

from harness.http1 import get
from harness.peer import Client
from harness.wait import PATIENCE
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


class Piped:
    """A weir whose log goes into a pipe of 4 KB, as in `weir 2>&1 | less`."""

    def __init__(self, directory, level="info"):
        self.web, self.admin, self.dead = Port(), Port(), Port()
        (directory / "weir.ini").write_text(INI.format(
            level=level, web=self.web.address, admin=self.admin.address, dead=self.dead.address))
        self.reads, writes = os.pipe()
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

    def read_until(self, word):
        """Whole lines, up to the one with `word`; None: up to the end."""
        text = b""
        while piece := os.read(self.reads, 4096 if word is None else 1):
            text += piece
            if word and word in text and text.endswith(b"\n"):
                break
        return text.decode().splitlines()

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
        os.close(self.reads)
        for port in (self.web, self.admin, self.dead):
            port.close()


@pytest.fixture
def piped(tmp_path):
    started = []

    def piped(**keys):
        started.append(Piped(tmp_path, **keys))
        started[-1].read_until(b" ready: ")
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
    weir.process.send_signal(signal.SIGTERM)
    lines = [line for line in weir.read_until(None) if line]
    assert weir.process.wait(RUN_S) == 0
    assert "warn upstream dead: server " in lines[0]
    assert "info draining: " in lines[1]
    assert lines[2].endswith(" info drained: 0 requests were cut")
    assert len(lines) == 3


def test_the_flags_of_stderr_belong_to_who_started_it(piped):
    weir = piped()
    with open(f"/proc/{weir.process.pid}/fdinfo/2") as file:
        flags = next(line for line in file if line.startswith("flags:"))
    assert not int(flags.split()[1], 8) & os.O_NONBLOCK
