"""Long bodies over TLS are spliced where the kernel can encrypt what is sent (kTLS), and arrive as
before where it cannot: these tests know by themselves which kernel they run on. tests/vm/run has
one that can."""

import ctypes
import errno
import re
import socket
import ssl
import subprocess
import time

import pytest
from harness.bulk import MB, MUCH, Sending, download, spliced
from harness.http1 import answer, answer_head, get
from harness.peer import Ended, WasReset
from harness.seccomp import forbid_option
from harness.tls import LISTENERS, TO_ORIGIN
from harness.wait import eventually
from harness.weir import BINARY

TCP_ULP, SOL_TLS, TLS_TX = 31, 282, 1
# Shorter streams are not worth the kernel's preparations.
LONG = 256 << 10

SITES = {"aes128": ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_AES_128_GCM_SHA256"),
         "aes256": ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_AES_256_GCM_SHA384"),
         "chacha": ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_CHACHA20_POLY1305_SHA256")}

INI = LISTENERS + """
[listener patience]
bind = @patience
tls = site
upstream = app
send_buffer = 16k
timeout_client = 400ms
[listener resting]
bind = @resting
tls = site
upstream = app
send_buffer = 16k
timeout_keepalive = 300ms
[listener up]
bind = @up
upstream = hidden
[upstream hidden]
server = @origintls
""" + TO_ORIGIN + "".join(f"""
[tls {name}]
certificate = weir.test.pem
ciphers = {ciphers[0]}
ciphersuites = {ciphers[1]}
[listener {name}]
bind = @{name}
tls = {name}
upstream = app
""" for name, ciphers in SITES.items())

VERSIONS = pytest.mark.parametrize("version", [1.2, 1.3])


def kernel_has_it():
    """Known, but of use to a connection only: ENOTCONN."""
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls\0")
        except OSError as error:
            return error.errno == errno.ENOTCONN
    return True


KTLS = kernel_has_it()


class Counted:
    """What has been spliced and taken over since."""

    def __init__(self, stage):
        self.stage = stage
        self.before = self.now()

    def now(self):
        metrics = self.stage.metrics()
        return [metrics.sum(name) for name in ("weir_spliced_bytes_total",
                                               "weir_ktls_connections_total",
                                               "weir_ktls_refusals_total")]

    def since(self):
        return [now - before for now, before in zip(self.now(), self.before)]

    def expect(self, passed, connections=1):
        assert self.since() == ([passed, connections, 0] if KTLS else [0, 0, 0])


def take_over(stage, client, size=MB):
    """A long download, so that what follows goes the kernel's way."""
    counted = Counted(stage)
    upstream, sending = download(stage, client, MUCH[:size])
    assert client.read_exactly(size) == MUCH[:size]
    sending.done()
    counted.expect(size)
    return upstream


# What there is.

def test_the_probe_says_what_the_kernel_has(stage, tmp_path):
    word = "yes, long bodies and streams over TLS are spliced" if KTLS else \
        "no, what is sent over TLS is copied"
    assert re.search(rf"kTLS {word}$", stage.weir.log, re.M), stage.weir.log
    done = subprocess.run([BINARY, "-c", stage.weir.file, "doctor"], capture_output=True, text=True)
    wanted = r"^ok +kTLS: " if KTLS else r"^warn +kTLS: not in this kernel.*modprobe tls"
    assert re.search(wanted, done.stdout, re.M), done.stdout
    assert done.returncode == 0


def test_without_tls_nothing_is_said_of_it(new_stage):
    assert "kTLS" not in new_stage().weir.log


# Bytes.

@VERSIONS
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("size", [LONG, 20 * MB])
def test_downloads_pass_whole(stage, site, version, size):
    counted = Counted(stage)
    client = stage.connect_tls(site, version=version)
    assert client.sock.tls.cipher()[0] == SITES[site][version == 1.3]
    _, sending = download(stage, client, MUCH[:size])
    assert client.read_exactly(size) == MUCH[:size]
    sending.done()
    counted.expect(size)


def test_shorter_ones_are_copied(stage):
    counted = Counted(stage)
    client = stage.connect_tls()
    for size in (65536, LONG - 1):
        _, sending = download(stage, client, MUCH[:size])
        assert client.read_exactly(size) == MUCH[:size]
        sending.done()
    counted.expect(0, 0)


@VERSIONS
def test_a_connection_goes_on_with_all_that_follows(stage, version):
    """What was sent before, and how many records that took, is part of what the kernel is told."""
    counted = Counted(stage)
    client = stage.connect_tls(version=version)
    for size in (1, 100000, 5, MB, 1, 70000, 3 * MB, 0, LONG - 1, 2 * MB, 10):
        _, sending = download(stage, client, MUCH[:size])
        assert client.read_exactly(size) == MUCH[:size]
        sending.done()
    assert counted.since()[1:] == ([1, 0] if KTLS else [0, 0])
    assert (counted.since()[0] >= 6 * MB) == KTLS


@VERSIONS
def test_what_comes_with_its_head_passes_too(stage, version):
    client = stage.connect_tls(version=version)
    for number in range(5):
        client.send(get())
        upstream = stage.origin.next()
        upstream.read_request()
        sending = Sending(upstream, answer(200, MUCH[number:5 * MB]))
        assert client.read_response().body == MUCH[number:5 * MB]
        sending.done()


@VERSIONS
def test_a_resumed_session_does_it_too(stage, version):
    first = stage.connect_tls(version=version)
    take_over(stage, first)
    session = (first.context, first.sock.tls.session)
    first.close()
    again = stage.connect_tls(session=session)
    assert again.sock.tls.session_reused
    take_over(stage, again)


@VERSIONS
def test_close_delimited_bodies_pass_whole(stage, version):
    counted = Counted(stage)
    client = stage.connect_tls(version=version)
    upstream, sending = download(stage, client, MUCH, version="1.0")
    assert client.read_exactly(len(MUCH)) == MUCH
    sending.done()
    upstream.close()
    client.expect_close()
    assert client.sock.notified
    assert (counted.since()[0] > 10 * MB) == KTLS


def test_both_directions_of_a_tunnel_at_once(stage, origin):
    """Only what is sent over TLS is spliced: what comes by it is decrypted here."""
    counted = Counted(stage)
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    up, down = Sending(client, MUCH), Sending(upstream, MUCH)
    assert upstream.read_exactly(len(MUCH)) == MUCH
    assert client.read_exactly(len(MUCH)) == MUCH
    up.done()
    down.done()
    passed, connections, refused = counted.since()
    assert (connections, refused) == (KTLS, 0)
    assert 10 * MB < passed <= len(MUCH) if KTLS else passed == 0


def test_a_tunnel_carries_megabytes_and_messages_in_turn(stage, origin):
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    for _ in range(3):
        sending = Sending(upstream, MUCH[:8 * MB])
        client.expect(MUCH[:8 * MB])
        sending.done()
        for number in range(30):
            message = b"message %d" % number
            client.send(message)
            upstream.expect(message)
            upstream.send(message * 2)
            client.expect(message * 2)


def test_uploads_to_servers_pass_whole(stage):
    counted = Counted(stage)
    client = stage.connect("up")
    for size in (10, 20 * MB, 3, MB):
        client.send(get("/", f"Content-Length: {size}", method="POST"))
        upstream = stage.origins["origintls"].next()
        upstream.read_request_head()
        sending = Sending(client, MUCH[:size])
        assert upstream.read_exactly(size) == MUCH[:size]
        sending.done()
        upstream.send(answer(200, b"thanks"))
        assert client.read_response().body == b"thanks"
    counted.expect(21 * MB)


def test_many_at_once_keep_their_bytes_apart(stage):
    counted = Counted(stage)
    clients = [stage.connect_tls(version=1.2 if number % 2 else 1.3) for number in range(40)]
    sendings = []
    for number, client in enumerate(clients):
        sendings.append(download(stage, client, MUCH[number:MB + number])[1])
    for number, client in enumerate(clients):
        assert client.read_exactly(MB) == MUCH[number:MB + number]
    for sending in sendings:
        sending.done()
    counted.expect(40 * MB, 40)


# Ends.

@VERSIONS
def test_the_end_is_told_before_fin(stage, version):
    client = stage.connect_tls(version=version)
    take_over(stage, client)
    _, got = stage.exchange(get("/", "Connection: close"), answer(200, b"bye"), client)
    assert got.body == b"bye"
    client.expect_close()
    assert client.sock.notified
    assert not client.sock.get()


@VERSIONS
@pytest.mark.parametrize("more", range(0, 16384, 1489))
def test_a_slow_reader_gets_the_last_bytes_and_the_end(stage, version, more):
    """The kernel may have taken bytes that it cannot send yet: they go before FIN."""
    size = 4 * MB + more
    client = stage.connect("narrow", recv_buffer=4096)
    client = secure(stage, client, version)
    client.send(get("/", "Connection: close"))
    upstream = stage.origin.next()
    upstream.read_request()
    sending = Sending(upstream, answer_head(200, f"Content-Length: {size}") + MUCH[:size])
    client.read_response_head()
    left = 300000
    assert client.read_exactly(size - left) == MUCH[:size - left]
    sending.done()
    assert client.read_exactly(left) == MUCH[size - left:size]
    client.expect_close()
    assert client.sock.notified
    assert not client.sock.get()


def secure(stage, client, version):
    """TLS on a connection that is there."""
    other = stage.connect_tls(version=version, handshake=False)
    client.sock, other.sock = type(other.sock)(client.sock, other.context, name="weir.test"), \
        other.sock.sock
    client.sock.handshake()
    other.close()
    return client


@VERSIONS
def test_a_slow_reader_is_closed_behind_its_last_byte(stage, version):
    """Idle for weir while the kernel is still sending: an end may not cut it."""
    client = secure(stage, stage.connect("resting", recv_buffer=4096), version)
    size = 2 * MB
    _, sending = download(stage, client, MUCH[:size])
    got = client.read_exactly(size - 300000)
    sending.done()
    time.sleep(0.5)  # longer than its timeout_keepalive
    assert got + client.read_exactly(300000) == MUCH[:size]
    client.expect_close()
    assert client.sock.notified


class Ending:
    """A peer whose end follows at once."""

    def __init__(self, peer):
        self.peer = peer

    def send(self, data):
        self.peer.send(data)
        self.peer.half_close()


def test_a_server_half_closes_a_tunnel_behind_a_stream(stage, origin):
    client = stage.connect_tls("bytes", version=1.3)
    upstream = origin.accept()
    sending = Sending(Ending(upstream), MUCH)
    assert client.read_to_end() == MUCH
    sending.done()
    assert client.sock.notified
    client.sock.sendall(b"and this")
    assert upstream.read_exactly(8) == b"and this"
    client.half_close()
    upstream.expect_close()


@pytest.mark.parametrize("fin", [True, False])
def test_a_client_half_closes_a_tunnel_inside_a_stream(stage, origin, fin):
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    sending = Sending(upstream, MUCH)
    got = client.read_exactly(8 * MB)
    if fin:
        client.half_close()
    else:
        client.sock.notify()
    assert got + client.read_exactly(len(MUCH) - 8 * MB) == MUCH[:len(MUCH)]
    sending.done()
    upstream.expect_close()
    upstream.send(b"the last word")
    upstream.close()
    assert client.read_to_end() == b"the last word"
    assert client.sock.notified


@pytest.mark.parametrize("way", ["reset", "close"])
@pytest.mark.parametrize("name", ["secure", "narrow"])
def test_a_client_that_goes_resets_the_server(stage, name, way):
    client = stage.connect_tls(name)
    upstream, sending = download(stage, client, MUCH)
    client.read_exactly(2 * MB)
    getattr(client, way)()
    sending.wait()
    upstream.expect_end()


@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_server_that_breaks_off_leaves_a_cut_answer(stage, way):
    client = stage.connect_tls()
    upstream, sending = download(stage, client, MUCH[:4 * MB], size=len(MUCH))
    got = client.read_exactly(4 * MB)
    sending.done()
    getattr(upstream, way)()
    assert got == MUCH[:4 * MB]
    client.expect_close()


def test_resets_pass_through_a_tunnel(stage, origin):
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    sending = Sending(upstream, MUCH)
    client.read_exactly(8 * MB)
    client.reset()
    sending.wait()  # it may have been the one that was told of the reset
    assert isinstance(sending.error, OSError) or upstream.expect_end() == "reset"
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    sending = Sending(upstream, MUCH[:8 * MB])
    client.read_exactly(8 * MB)
    sending.done()
    upstream.reset()
    client.expect_reset()


def test_a_client_that_stops_reading_is_ended(new_stage):
    stage = new_stage(INI)
    client = secure(stage, stage.connect("patience", recv_buffer=4096), 1.3)
    upstream, sending = download(stage, client, MUCH)
    stage.weir.eventually_metric(1, "weir_http_exchanges_ended_total", reason="client_timeout")
    sending.wait()
    upstream.expect_end()


def test_a_drain_lets_a_stream_finish(new_stage):
    stage = new_stage(INI, drain_timeout="20s")
    client = stage.connect_tls("narrow")
    _, sending = download(stage, client, MUCH[:4 * MB])
    got = client.read_exactly(MB)
    stage.weir.signal(15)
    eventually(lambda: "draining" in stage.weir.log, "weir drains")
    assert got + client.read_exactly(3 * MB) == MUCH[:4 * MB]
    sending.done()
    client.expect_close()
    assert client.sock.notified
    assert stage.weir.wait_exit() == 0


# What OpenSSL has to say afterwards.

def heard(client):
    """The error that the client's TLS reads."""
    try:
        client.expect_close()
    except ssl.SSLError as error:
        return error.reason
    raise AssertionError("no alert")


@VERSIONS
def test_alerts_arrive(stage, version):
    client = stage.connect_tls(version=version)
    take_over(stage, client)
    client.sock.tls.write(get("/"))
    record = bytearray(client.sock.outgoing.read())
    record[-1] ^= 1
    client.sock.sock.sendall(record)
    assert heard(client) == "SSLV3_ALERT_BAD_RECORD_MAC"


def library_and_tls(sock):
    """OpenSSL, and the SSL in a Python object, for what Python has no word for."""
    tls = ctypes.c_void_p.from_address(id(sock.tls._sslobj) + object.__basicsize__ + 8)
    return ctypes.CDLL("libssl.so.3"), tls


def update_keys(sock, wants_answer):
    library, tls = library_and_tls(sock)
    assert library.SSL_key_update(tls, int(wants_answer)) == 1
    assert library.SSL_do_handshake(tls) == 1
    sock.put()


def test_a_client_may_change_its_own_keys(stage):
    client = stage.connect_tls(version=1.3)
    take_over(stage, client)
    for number in range(3):
        update_keys(client.sock, wants_answer=False)
        _, got = stage.exchange(get(f"/{number}"), answer(200, b"%d" % number), client)
        assert got.body == b"%d" % number


def test_new_keys_before_a_stream_leave_it_to_openssl(stage):
    counted = Counted(stage)
    client = stage.connect_tls(version=1.3)
    update_keys(client.sock, wants_answer=True)
    _, sending = download(stage, client, MUCH)
    assert client.read_exactly(len(MUCH)) == MUCH
    sending.done()
    assert counted.since() == [0, 0, 0]


def test_new_keys_that_the_kernel_cannot_make_end_the_connection(stage):
    """It would have to send with other keys from here on."""
    client = stage.connect_tls(version=1.3)
    take_over(stage, client)
    update_keys(client.sock, wants_answer=True)
    if KTLS:
        assert heard(client) == "TLSV1_ALERT_INTERNAL_ERROR"
    else:
        take_over(stage, client)
    _, got = stage.exchange(get("/next"), answer(200, b"next"), stage.connect_tls())
    assert got.body == b"next"


def test_new_keys_inside_a_stream(stage):
    client = stage.connect_tls("narrow", version=1.3)
    upstream, sending = download(stage, client, MUCH)
    got = client.read_exactly(4 * MB)
    update_keys(client.sock, wants_answer=True)
    if KTLS:
        with pytest.raises((ssl.SSLError, Ended, WasReset)):
            client.read_exactly(len(MUCH) - len(got))
        sending.wait()
        upstream.expect_end()
    else:
        assert got + client.read_exactly(len(MUCH) - len(got)) == MUCH
        sending.done()


def test_new_keys_behind_the_end_are_nothing_to_it(stage, origin):
    client = stage.connect_tls("bytes", version=1.3)
    upstream = origin.accept()
    sending = Sending(upstream, MUCH[:8 * MB])
    got = client.read_exactly(8 * MB)
    sending.done()
    upstream.half_close()
    assert got + client.read_to_end() == MUCH[:8 * MB]
    for piece in (b"before", b"behind"):
        update_keys(client.sock, wants_answer=True)
        client.sock.sendall(piece)
        assert upstream.read_exactly(6) == piece
    client.half_close()
    upstream.expect_close()


def test_renegotiation_is_refused_behind_a_stream(stage):
    client = stage.connect_tls(version=1.2)
    take_over(stage, client)
    library, tls = library_and_tls(client.sock)
    assert library.SSL_renegotiate(tls) == 1
    library.SSL_do_handshake(tls)
    client.sock.put()
    assert heard(client) == "NO_RENEGOTIATION"


# Without it, though the kernel has it.

def carry(stage, version):
    client = stage.connect_tls(version=version)
    for size in (10, 8 * MB, MB):
        _, sending = download(stage, client, MUCH[:size])
        assert client.read_exactly(size) == MUCH[:size]
        sending.done()
    _, got = stage.exchange(get("/", "Connection: close"), answer(200, b"bye"), client)
    assert got.body == b"bye"
    client.expect_close()
    assert client.sock.notified


@VERSIONS
def test_a_kernel_without_it_copies(new_stage, version):
    stage = new_stage(INI, preexec=forbid_option(socket.IPPROTO_TCP, TCP_ULP, errno.ENOENT))
    assert "kTLS no, " in stage.weir.log
    carry(stage, version)
    assert Counted(stage).now() == [0, 0, 0]


@VERSIONS
def test_a_connection_that_is_refused_goes_on_without(new_stage, version):
    """As by a kernel that lacks the cipher: it is told so once, and not asked again."""
    stage = new_stage(INI, preexec=forbid_option(SOL_TLS, TLS_TX, errno.EINVAL))
    carry(stage, version)
    assert Counted(stage).now() == [0, 0, 1 if KTLS else 0]


def test_a_client_that_has_half_closed_is_copied_to(stage):
    """Such a socket cannot be taken over any more (tls_init wants TCP_ESTABLISHED)."""
    client = stage.connect_tls(version=1.3)
    client.send(get())
    client.half_close()
    upstream = stage.origin.next()
    upstream.read_request()
    sending = Sending(upstream, answer(200, MUCH))
    assert client.read_response().body == MUCH
    sending.done()
    client.expect_close()
    assert client.sock.notified
