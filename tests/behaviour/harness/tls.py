"""TLS for both peers of weir: certificates made for the run, and a socket whose every step the test
decides.

A word NAME.pem in the text of an INI file is a certificate with its key, for the names between its
plus signs (weir.test.pem, a.test+127.0.0.1.pem), signed by ca.pem; both lie beside weir's file.
other-ca.pem is somebody else's.
"""

import os
import re
import socket
import ssl
import subprocess
import threading
import time

RECORD = 16384
# What an [upstream] says of an origin in TLS (@origintls): who it must be.
TO_ORIGIN = """
tls = on
ca = ca.pem
server_name = origin.test
"""
# What modules about bytes inside TLS begin with: requests, one of them with little room to send,
# and a tunnel, to the one origin.
LISTENERS = """
[defaults]
max_body_size = 0
min_read_rate = 0
[tls site]
certificate = weir.test.pem
[listener secure]
bind = @secure
tls = site
upstream = app
[listener narrow]
bind = @narrow
tls = site
upstream = app
send_buffer = 16k
[listener bytes]
bind = @bytes
mode = tcp
tls = site
upstream = app
[upstream app]
server = @origin
"""


def _openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def _issue(directory, file, *subject):
    """A key and a certificate for a day, in one file."""
    key, certificate = f"{directory}/key.tmp", f"{directory}/certificate.tmp"
    _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "1", "-keyout", key, "-out", certificate, *subject)
    with open(f"{directory}/{file}", "wb") as whole:
        for part in (certificate, key):
            with open(part, "rb") as piece:
                whole.write(piece.read())
            os.unlink(part)


def _alternative(name):
    return ("IP:" if re.fullmatch(r"[\d.]+", name) else "DNS:") + name


# What was made once is good for every stage of the run: they have one authority.
_made = {}


def _make(directory, file):
    path = f"{directory}/{file}"
    if os.path.exists(path):
        return
    if file not in _made:
        _make_anew(directory, file)
        with open(path, "rb") as made:
            _made[file] = made.read()
    with open(path, "wb") as copy:
        copy.write(_made[file])


def _make_anew(directory, file):
    if file.endswith("ca.pem"):
        _issue(directory, file, "-subj", f"/CN={file[:-4]}")
        return
    names = file.removesuffix(".pem").split("+")
    authority = f"{directory}/ca.pem"
    _issue(directory, file, "-subj", f"/O=Tests/CN={names[0]}", "-CA", authority, "-CAkey",
           authority, "-addext", "basicConstraints=critical,CA:FALSE", "-addext",
           "subjectAltName=" + ",".join(map(_alternative, names)))


def make_certificates(directory, text):
    """Those that `text` names."""
    files = set(re.findall(r"[\w.*+-]+\.pem\b", text))
    if files:
        _make(directory, "ca.pem")
    for file in sorted(files):
        _make(directory, file)


def client_context(directory, version=None, authority="ca.pem", certificate=None, alpn=None):
    """`version` (1.2 or 1.3): the only one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(f"{directory}/{authority}")
    return _finish(context, directory, version, certificate, alpn)


def server_context(directory, certificate="origin.test.pem", version=None, authority=None,
                   alpn=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if authority:
        context.load_verify_locations(f"{directory}/{authority}")
        context.verify_mode = ssl.CERT_REQUIRED
    return _finish(context, directory, version, certificate, alpn)


def _finish(context, directory, version, certificate, alpn):
    if version:
        only = {1.2: ssl.TLSVersion.TLSv1_2, 1.3: ssl.TLSVersion.TLSv1_3}[version]
        context.minimum_version = context.maximum_version = only
    if certificate:
        _make(directory, certificate)
        context.load_cert_chain(f"{directory}/{certificate}")
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


class TlsSocket:
    """As much of a socket as Peer uses, over a plain one. `notified`: close_notify has come.

    `each_byte`: what it sends goes byte by byte.
    """

    def __init__(self, sock, context, server_side=False, name=None, session=None, each_byte=False):
        self.sock = sock
        self.each_byte = each_byte
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side,
                                    server_hostname=name, session=session)
        self.lock = threading.Lock()  # one thread may send while another receives
        self.notified = False
        self.unsent = b""
        self.family = sock.family

    def __getattr__(self, name):
        return getattr(self.sock, name)

    # Steps.

    def put(self):
        """Sends what TLS has to say."""
        data = self.outgoing.read()
        if not self.each_byte:
            self.sock.sendall(data)
            return
        for at in range(len(data)):
            self.sock.sendall(data[at:at + 1])
            time.sleep(0.0002)

    def step(self):
        """One step of the handshake: sends what there is, True when it is done."""
        try:
            self.tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            self.put()

    def get(self):
        """One receive; False at FIN."""
        data = self.sock.recv(65536)
        with self.lock:
            self.incoming.write(data)
        return bool(data)

    def handshake(self):
        while not self.step():
            if not self.get():
                raise ConnectionAbortedError("FIN inside the handshake")
        return self

    def notify(self):
        """close_notify, without FIN."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.put()

    # What a socket does.

    def recv(self, size):
        """What there is: close_notify gives b"" as FIN does."""
        got = b""
        while len(got) < size:
            try:
                with self.lock:
                    piece = self.tls.read(size - len(got))
            except ssl.SSLWantReadError:
                if got or not self.get():
                    return got
                continue
            except ssl.SSLZeroReturnError:
                piece = b""
            if not piece:
                self.notified = True
                return got
            got += piece
        return got

    def sendall(self, data):
        for at in range(0, len(data), RECORD):
            with self.lock:
                self.tls.write(data[at:at + RECORD])
            self.put()

    def send(self, data):
        """One record, or BlockingIOError."""
        if not self.unsent:
            data = data[:RECORD]
            self.tls.write(data)
            self.unsent = self.outgoing.read()
            self._push()
            return len(data)
        self._push()
        return 0

    def _push(self):
        self.unsent = self.unsent[self.sock.send(self.unsent):]

    def shutdown(self, how):
        if how == socket.SHUT_WR:
            self.notify()
        self.sock.shutdown(how)
