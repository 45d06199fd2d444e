"""A real HAProxy, before or behind weir.

It sets SO_REUSEPORT, so it binds beside a port that is held (weir.Port).
"""

import contextlib
import socket
import subprocess

from .peer import Client
from .wait import PATIENCE, eventually

PROGRAM = "/usr/sbin/haproxy"
DEFAULTS = """
defaults
    timeout connect 5s
    timeout client 20s
    timeout server 20s
"""


@contextlib.contextmanager
def haproxy(directory, sections):
    """Runs it with these proxy sections until the block ends."""
    file = directory / "haproxy.cfg"
    file.write_text(DEFAULTS + sections)
    with open(directory / "haproxy.log", "wb") as log:
        process = subprocess.Popen([PROGRAM, "-db", "-f", str(file)], stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def connect_through(port):
    """A client of the port, once something listens there; the caller closes it."""
    def connected():
        try:
            return socket.create_connection(port.target, timeout=PATIENCE)
        except ConnectionRefusedError:
            return None

    return Client(eventually(connected, "haproxy listens"))
