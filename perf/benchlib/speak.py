"""What a proxy is asked before and beside a load: HTTP/1.1 or HTTP/2, in clear or over TLS."""

import http.client
import os
import re
import socket
import ssl
import subprocess

from benchlib.system import Failure

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, GOAWAY = 0, 1, 4, 7
ACK, END_STREAM, END_HEADERS = 1, 1, 4
STATUS_200 = 0x88  # RFC 7541 appendix A: index 8
# RFC 6455 section 1.3; perf/origin.c knows the answer.
UPGRADE = (b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")


class Unserved(Failure):
    """What answers does not speak the protocol at all."""


def tls_context(protocol):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2" if protocol == "h2" else "http/1.1"])
    return context


class Asker:
    """Asks for whole answers in the protocols of a row's client side."""

    def __init__(self, bench, row, port):
        self.bench = bench
        self.row = row
        self.origin = row.url(port)[:-len(row.path)]
        if row.client == "h1":
            self.client = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=10, context=tls_context("h1")) if row.tls else \
                http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(self, method, path, body=None):
        """(status, body)"""
        if self.row.client == "h2":
            return self._curl(path, body)
        try:
            self.client.request(method, path, body=body)
        except (ssl.SSLError, ConnectionError) as error:
            if self.row.tls:
                raise Unserved(f"no TLS: {error}") from error
            raise
        answer = self.client.getresponse()
        return answer.status, answer.read()

    def _curl(self, path, body):
        """GET, or POST when there is a body."""
        argv = ["curl", "-sS", "-k", "--max-time", "10",
                "-w", "%{stderr}%{http_code} %{http_version}",
                "--http2" if self.row.tls else "--http2-prior-knowledge", self.origin + path]
        if body is not None:
            argv += ["--data-binary", "@-"]
        done = subprocess.run(argv, input=body or b"", capture_output=True, check=False,
                              env=self.bench.client_environment)
        said = done.stderr.decode(errors="replace").strip()
        match = re.fullmatch(r"(\d+) ([\d.]+)", said)
        if done.returncode or not match or match[2] != "2":
            raise Unserved(f"no HTTP/2: {' '.join(said.split()) or done.returncode}")
        return int(match[1]), done.stdout

    def close(self):
        if self.row.client == "h1":
            self.client.close()


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") \
        + payload


def frames(received):
    """(the whole frames as (kind, flags, payload), the bytes that are left)"""
    found = []
    while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3], "big"):
        size = int.from_bytes(received[:3], "big")
        found.append((received[3], received[4], received[9:9 + size]))
        received = received[9 + size:]
    return found, received


class HeldConnection:
    """One connection with one request, in a few bytes of our own: thousands of them are opened.

    HTTP/2: RFC 9113; the head is indexed or literal without Huffman code, RFC 7541.
    """

    def __init__(self, row, port, context):
        self.row = row
        self.authority = f"127.0.0.1:{port}".encode()
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.rest = b""
        if row.tls:
            self.socket = context.wrap_socket(self.socket)
            chosen = self.socket.selected_alpn_protocol()
            if row.client == "h2" and chosen != "h2":
                raise Failure(f"ALPN gives {chosen}, not h2")

    def send_request(self, path):
        if self.row.client == "h1":
            self.socket.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n"
                                % (path.encode(), self.authority,
                                   UPGRADE if self.row.upgrade else b""))
            return
        head = bytes((0x82, 0x87 if self.row.tls else 0x86))  # GET, the scheme
        for name, value in ((4, path.encode()), (1, self.authority)):  # :path, :authority
            head += bytes((name, len(value))) + value
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0)
                            + frame(HEADERS, END_HEADERS | END_STREAM, 1, head))

    def read_answer(self):
        """Returns when an answer of 128 B is there, or the 101 of a WebSocket."""
        received = b""
        while True:
            piece = self.socket.recv(65536)
            if not piece:
                raise Failure("a connection was closed before its answer")
            received += piece
            if self.row.client == "h2":
                if self._is_h2_answer(received):
                    return
                continue
            head, blank, body = received.partition(b"\r\n\r\n")
            if self.row.upgrade and blank:
                if not head.startswith(b"HTTP/1.1 101"):
                    raise Failure(f"the answer is {head[:40]!r}")
                return
            if blank and len(body) >= 128:
                if not head.startswith(b"HTTP/1.1 200"):
                    raise Failure(f"the answer is {head[:40]!r}")
                return

    def _is_h2_answer(self, received):
        found, self.rest = frames(received)
        body = b""
        for kind, flags, payload in found:
            if kind == HEADERS and STATUS_200 not in payload[:8]:
                raise Failure(f"the head of the answer is {payload[:40]!r}")
            if kind == GOAWAY:
                raise Failure(f"the answer is GOAWAY {payload[:40]!r}")
            body += payload if kind == DATA else b""
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                if len(body) != 128:
                    raise Failure(f"the answer has {len(body)} bytes, not 128")
                self.socket.sendall(frame(SETTINGS, ACK, 0))
                return True
        return False

    def is_open(self):
        """Neither closed nor, but for acknowledgements and windows of HTTP/2, sent anything."""
        self.socket.setblocking(False)
        try:
            received = self.socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        if not received or self.row.client == "h1":
            return False
        return GOAWAY not in [kind for kind, _, _ in frames(self.rest + received)[0]]

    def close(self):
        self.socket.close()


def client_environment(conf_path):
    """For generators and curl: OpenSSL reads its suite there."""
    return os.environ | {"OPENSSL_CONF": conf_path}
