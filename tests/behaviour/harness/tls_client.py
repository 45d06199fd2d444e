"""Clients of weir's TLS listeners that are only asked what they see."""

import re
import socket
import ssl
import subprocess

from .certificates import client
from .http1 import get
from .peer import Client
from .wait import PATIENCE


def shake(port, context=None, name=None, session=None):
    """A handshaken socket; ssl.SSLError or ConnectionError when weir refuses."""
    sock = socket.create_connection(port.target, timeout=PATIENCE)
    try:
        return (context or client()).wrap_socket(sock, server_hostname=name, session=session)
    except BaseException:
        sock.close()
        raise


def shown(port, context=None, name=None):
    """The certificate (DER) weir shows to who asks for `name`."""
    with shake(port, context, name) as sock:
        return sock.getpeercert(True)


def ask(sock, request=None):
    """One request over a handshaken socket. With TLS 1.3 a client hears only here whether its own
    certificate was taken."""
    return Client(sock).ask(request or get("/"))


def refused(port, context=None, name=None):
    """The alert that weir refuses with, as OpenSSL's word: "UNRECOGNIZED_NAME"."""
    try:
        with shake(port, context, name) as sock:
            sock.sendall(get("/"))
            got = sock.recv(1)
    except ssl.SSLError as error:
        text = str(error).replace("_", " ").lower()
        alert = re.search(r"(?:alert |(?:tlsv1|sslv3) (?!alert))([a-z ]+)", text)
        assert alert, error
        return alert[1].strip().replace(" ", "_").upper()
    raise AssertionError(f"weir took it, and sent {got!r}")


def s_client(port, *arguments):
    """The output of `openssl s_client`, which says no word and leaves."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port.number}", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30).stdout
