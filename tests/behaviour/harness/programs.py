"""Real programs before or behind weir: HAProxy, nginx, nghttpd.

They set SO_REUSEPORT, so each binds beside a port that is held (weir.Port).
"""

import contextlib
import socket
import subprocess

from .peer import Client
from .wait import PATIENCE, eventually

HAPROXY = "/usr/sbin/haproxy"
NGHTTPD = "/usr/sbin/nghttpd"
HAPROXY_DEFAULTS = """
defaults
    timeout connect 5s
    timeout client 20s
    timeout server 20s
"""


def listens(port):
    try:
        socket.create_connection(port.target, timeout=PATIENCE).close()
        return True
    except ConnectionRefusedError:
        return False


@contextlib.contextmanager
def running(argv, port, log=subprocess.DEVNULL):
    """A server that ends by SIGTERM; it listens on `port` when the block begins."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(lambda: listens(port) or process.poll() is not None, f"{argv[0]} listens")
        assert process.poll() is None, f"{argv[0]} ended with {process.returncode}"
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextlib.contextmanager
def haproxy(directory, sections, port):
    """A HAProxy with these proxy sections, of which the last one listens on `port`."""
    file = directory / "haproxy.cfg"
    file.write_text(HAPROXY_DEFAULTS + sections)
    with open(directory / "haproxy.log", "wb") as log:
        with running([HAPROXY, "-db", "-f", str(file)], port, log) as process:
            yield process


def nghttpd(directory, port, *options, certificate=None):
    """nghttpd with the files of `directory`, in clear unless it has a certificate."""
    in_tls = (str(certificate), str(certificate)) if certificate else ()
    return running([NGHTTPD, *([] if certificate else ["--no-tls"]), "-a", "127.0.0.1", "-d",
                    str(directory), *options, str(port.number), *in_tls], port)


def connect(port):
    """A client of the port; the caller closes it."""
    return Client(socket.create_connection(port.target, timeout=PATIENCE))
