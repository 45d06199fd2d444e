"""What travels inside TLS, from and to clients: every byte, every end."""

import ctypes
import os
import re
import subprocess

import pytest
from harness.bulk import MUCH, Sending, pattern
from harness.h2_client import PREFACE, settings
from harness.http1 import (answer, answer_chunked, answer_head, chunk, get, post, post_chunked)
from harness.tls import LISTENERS
from harness.wait import PATIENCE, eventually

INI = LISTENERS + """
[listener echo]
bind = @echo
mode = tcp
tls = site
service = echo
[listener reading]
bind = @reading
tls = site
upstream = app
timeout_keepalive = 400ms
[listener slow]
bind = @slow
tls = site
upstream = slow
[route old]
path = /old
redirect = 301 $scheme://new.test$path
[route facts]
listener = secure
path = /facts
upstream = app
set_request_header = X-Tls: $tls_version $tls_cipher $tls_sni $tls_client_verify
[upstream slow]
server = @originslow
[listener tight]
bind = @unixtight
mode = tcp
tls = site
service = echo
send_buffer = 4k
[service echo]
type = echo
"""

VERSIONS = pytest.mark.parametrize("version", [1.2, 1.3])


@VERSIONS
def test_requests_follow_each_other(stage, version):
    client = stage.connect_tls(version=version)
    for number in range(5):
        seen, got = stage.exchange(get(f"/{number}"), answer(200, b"%d" % number), client)
        assert (seen.target, got.body) == (f"/{number}", b"%d" % number)


@VERSIONS
def test_pipelined_requests_are_answered_in_order(stage, origin, version):
    origin.serve(lambda request: answer(200, request.target.encode() * 3000))
    client = stage.connect_tls(version=version)
    client.send(b"".join(get(f"/{number}") for number in range(50)))
    for number in range(50):
        assert client.read_response().body == f"/{number}".encode() * 3000


def test_a_request_byte_by_byte(stage):
    """Each byte of the records by itself, and each byte in a record of its own."""
    client = stage.connect_tls()
    client.sock.each_byte = True
    body = pattern(300)
    seen, got = stage.exchange(post("/a", body), client=client)
    assert (seen.body, got.status) == (body, 200)
    client.sock.each_byte = False
    for byte in post("/b", body):
        client.send(bytes([byte]))
    upstream = stage.origin.next()
    assert upstream.read_request().body == body
    upstream.send(answer(200, b"all"))
    assert client.read_response().body == b"all"


def test_a_head_and_its_body_share_a_record(stage):
    client = stage.connect_tls()
    stage.exchange(get("/"), answer(200, b"first"), client)
    upstream = stage.origin.asked_by(client, get("/"))
    upstream.send(answer(200, b"b" * 10000))
    raw = b""
    while len(raw) < 10000:
        raw += client.sock.sock.recv(65536)
    sizes = []
    while raw:
        sizes.append(int.from_bytes(raw[3:5], "big"))
        raw = raw[5 + sizes[-1]:]
    assert len(sizes) == 1, sizes


@VERSIONS
@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 65536, 1000003])
def test_bodies_of_all_sizes_both_ways(stage, origin, version, size):
    body = pattern(size)
    origin.serve(lambda request: answer(200, request.body))
    client = stage.connect_tls(version=version)
    client.send(post("/", body))
    assert client.read_response().body == body
    client.send(post_chunked("/", *[body[at:at + 50000] for at in range(0, size, 50000)]))
    assert client.read_response().body == body


def test_a_chunked_answer_passes_as_it_comes(stage):
    client = stage.connect_tls()
    upstream = stage.origin.asked_by(client, get())
    upstream.send(answer_head(200, "Transfer-Encoding: chunked"))
    client.read_response_head()
    for part in (b"one", b"two", b"3" * 20000):
        upstream.send(chunk(part))
        got = b""
        while len(got) < len(part):
            got += client.read_chunk()
        assert got == part
    upstream.send(b"0\r\n\r\n")
    assert client.read_chunk() == b""


def little_is_held(stage, sending):
    """What one side sends and the other does not read waits in the kernel, which may take it all;
    weir has a fraction of it."""
    sending.thread.join(0.5)  # until it has been sent, or is stuck
    metrics = stage.metrics()
    held = sum(metrics.sum("weir_memory_used_bytes", pool=pool)
               for pool in ("buffer_small", "buffer_bulk"))
    assert 0 < held < 2 << 20


def test_a_long_download_to_a_slow_reader(stage, origin):
    client = stage.connect_tls("narrow")
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, f"Content-Length: {len(MUCH)}"))
    sending = Sending(upstream, MUCH)
    client.read_response_head()
    assert client.read_exactly(1000) == MUCH[:1000]
    little_is_held(stage, sending)
    assert client.read_exactly(len(MUCH) - 1000) == MUCH[1000:]
    sending.done()


def test_a_long_upload_to_a_slow_server(stage):
    client = stage.connect_tls("slow")
    sending = Sending(client, post("/", MUCH))
    upstream = stage.origins["originslow"].next()
    head = upstream.read_request_head()
    assert head["Content-Length"] == str(len(MUCH))
    assert upstream.read_exactly(1000) == MUCH[:1000]
    little_is_held(stage, sending)
    assert upstream.read_exactly(len(MUCH) - 1000) == MUCH[1000:]
    sending.done()
    upstream.send(answer(200, b"thanks"))
    assert client.read_response().body == b"thanks"


def test_both_directions_of_a_tunnel_at_once(stage, origin):
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    up, down = Sending(client, MUCH[:6000000]), Sending(upstream, MUCH[:6000000])
    assert upstream.read_exactly(6000000) == MUCH[:6000000]
    assert client.read_exactly(6000000) == MUCH[:6000000]
    up.done()
    down.done()


def test_nothing_of_tls_is_spliced(stage, origin):
    counted = stage.counter("weir_spliced_bytes_total")
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    sending = Sending(client, MUCH)
    assert upstream.read_exactly(len(MUCH)) == MUCH
    sending.done()
    assert counted.grown() == 0


@VERSIONS
def test_echo(stage, version):
    client = stage.connect_tls("echo", version=version)
    for size in (1, 100, 16384, 70000):
        body = pattern(size)
        sending = Sending(client, body)
        assert client.read_exactly(size) == body
        sending.done()
    client.half_close()
    client.expect_close()
    assert client.sock.notified


# Ends.


def test_an_end_is_told_before_fin(stage):
    client = stage.connect_tls()
    _, got = stage.exchange(get("/", "Connection: close"), client=client)
    assert got.body == b"hello"
    client.expect_close()
    assert client.sock.notified
    assert not client.sock.get()


def test_an_idle_connection_is_closed_with_notice(stage):
    client = stage.connect_tls("reading")
    stage.exchange(get("/"), client=client)
    client.expect_close()
    assert client.sock.notified


def test_an_end_is_told_when_there_is_room_for_it(stage):
    """All that was sent is the kernel's, which for some of these takes no more until it is read."""
    for size in range(33000, 48000, 600):
        client = stage.connect_tls("unixtight")
        sent, ended = stage.counter("weir_client_bytes_sent_total"), stage.relays_ended("none")
        body = pattern(size)
        client.send(body)
        eventually(lambda: sent.grown() > size, "all of it is echoed")
        client.half_close()
        ended.grows(1)
        assert client.read_exactly(size) == body
        client.expect_close()
        assert client.sock.notified, size


@VERSIONS
@pytest.mark.parametrize("fin", [True, False])
def test_a_client_that_has_said_all_gets_its_answer(stage, version, fin):
    client = stage.connect_tls(version=version)
    client.send(get("/"))
    if fin:
        client.half_close()
    else:
        client.sock.notify()
    upstream = stage.origin.asked()
    upstream.send(answer(200, b"late" * 10000))
    assert client.read_response().body == b"late" * 10000
    client.expect_close()
    assert client.sock.notified


def test_fin_without_notice_after_a_request_is_an_end(stage):
    client = stage.connect_tls()
    client.send(get("/"))
    client.sock.sock.shutdown(1)
    upstream = stage.origin.asked()
    upstream.send(answer(200, b"late"))
    assert client.read_response().body == b"late"
    client.expect_close()


@pytest.mark.parametrize("notice", [True, False])
def test_an_end_inside_a_body_goes_no_further(stage, notice):
    client = stage.connect_tls()
    upstream = stage.origin.asked_by(client, post("/", b"x" * 1000)[:-1], whole=False)
    if notice:
        client.sock.notify()
    else:
        client.sock.sock.shutdown(1)
    assert upstream.expect_end() == "reset"


def test_a_half_close_passes_through_a_tunnel(stage, origin):
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    client.send(b"question")
    client.half_close()
    assert upstream.read_to_end() == b"question"
    upstream.send(b"answer")
    upstream.close()
    assert client.read_to_end() == b"answer"
    assert client.sock.notified


def test_a_server_half_closes_a_tunnel(stage, origin):
    client = stage.connect_tls("bytes", version=1.3)
    upstream = origin.accept()
    upstream.send(b"that is all")
    upstream.half_close()
    assert client.read_to_end() == b"that is all"
    assert client.sock.notified
    client.sock.sendall(b"and this")
    assert upstream.read_exactly(8) == b"and this"
    client.half_close()
    upstream.expect_close()


def ask_for_new_keys(sock):
    """A KeyUpdate that wants one back, which Python has no word for: of the SSL in its object."""
    library = ctypes.CDLL("libssl.so.3")
    tls = ctypes.c_void_p.from_address(id(sock.tls._sslobj) + object.__basicsize__ + 8)
    assert library.SSL_key_update(tls, 1) == 1
    assert library.SSL_do_handshake(tls) == 1
    sock.put()


def test_a_tunnel_goes_on_when_no_answer_can_be_sent(stage, origin):
    """New keys are asked for behind weir's FIN."""
    client = stage.connect_tls("bytes", version=1.3)
    upstream = origin.accept()
    upstream.half_close()
    assert client.read_to_end() == b""
    for piece in (b"before", b"behind"):
        ask_for_new_keys(client.sock)
        client.sock.sendall(piece)
        assert upstream.read_exactly(6) == piece
    client.half_close()
    upstream.expect_close()


def test_a_reset_passes_through_a_tunnel(stage, origin):
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    client.send(b"x")
    upstream.expect(b"x")
    client.reset()
    upstream.expect_reset()
    client = stage.connect_tls("bytes")
    upstream = origin.accept()
    upstream.reset()
    client.expect_reset()


@pytest.mark.parametrize("stage_of", ["handshake", "head", "body", "answer"])
def test_resets_at_each_stage(stage, origin, stage_of):
    client = stage.connect_tls()
    if stage_of == "head":
        client.send(get("/")[:-5])
    elif stage_of == "body":
        client.send(post("/", b"x" * 1000)[:-1])
        origin.next().read_request_head()
    elif stage_of == "answer":
        upstream = origin.asked_by(client, get("/"))
        upstream.send(answer_head(200, "Content-Length: 100") + b"half")
        client.read_response_head()
    client.reset()
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="wire")


def test_a_changed_byte_ends_the_connection(stage):
    client = stage.connect_tls()
    client.sock.tls.write(get("/"))
    record = bytearray(client.sock.outgoing.read())
    record[-1] ^= 1
    client.sock.sock.sendall(record)
    alert = client.sock.sock.recv(100)
    assert alert[0] in (0x15, 0x17)
    client.sock = client.sock.sock
    client.expect_end()
    assert stage.origin.saw_nothing()


# Facts.


def test_variables_know_it(stage):
    client = stage.connect_tls(version=1.3)
    seen, _ = stage.exchange(get("/facts"), client=client)
    assert seen["X-Tls"] == f"TLSv1.3 {client.sock.tls.cipher()[0]} weir.test NONE"


def test_the_scheme_is_https(stage):
    client = stage.connect_tls()
    client.send(get("/old/page"))
    got = client.read_response()
    assert (got.status, got["Location"]) == (301, "https://new.test/old/page")


# Real clients.


@pytest.mark.parametrize("alpn", [None, ["http/1.1"]])
def test_nobody_speaks_h2_without_having_asked(stage, origin, alpn):
    """A listener that does not offer h2 has not to fear it."""
    client = stage.connect_tls(alpn=alpn)
    client.send(PREFACE + settings())
    assert client.read_response().status == 505
    assert origin.saw_nothing()


def test_an_upgrade_to_h2c_is_none_in_tls(stage, origin):
    """RFC 9113 section 3.1: it is for connections in clear; here ALPN decides."""
    seen, got = stage.exchange(
        get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAQAAP__"),
        client=stage.connect_tls())
    assert got.body == b"hello"
    assert seen["X-Forwarded-Proto"] == "https" and seen["Upgrade"] is None


def test_curl(stage, origin):
    origin.serve(lambda request: answer(200, b"for curl"))
    for version in ("--tlsv1.2 --tls-max 1.2", "--tlsv1.3"):
        done = subprocess.run(
            ["curl", "-sS", "--http1.1", *version.split(), "--cacert", f"{stage.directory}/ca.pem",
             "--connect-to", f"weir.test:443:{stage.address('secure')}", "https://weir.test/a",
             "https://weir.test/b"], capture_output=True, timeout=PATIENCE)
        assert done.stdout == b"for curl" * 2, done.stderr


class SClient:
    """openssl s_client, whose commands are lines of one letter."""

    def __init__(self, stage, *arguments):
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", stage.address("secure"), "-servername",
             "weir.test", "-CAfile", f"{stage.directory}/ca.pem", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output = b""

    def say(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def until(self, wanted):
        def seen():
            self.output += self.process.stdout.read() or b""
            return re.search(wanted, self.output)

        eventually(seen, lambda: f"s_client printed {wanted}: {self.output[-2000:]}")

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("size", [0, 200_000], ids=["short", "long"])
def test_new_keys_in_the_middle(stage, origin, size):
    origin.serve(lambda request: answer(200, b"." * size + request.target.encode()))
    client = SClient(stage, "-tls1_3", "-crlf")
    try:
        client.until(b"Verify return code: 0")
        for number, command in enumerate((b"k\n", b"K\n", b"K\n")):
            client.say(command)
            client.until(b"KEYUPDATE")
            client.output = b""
            client.say(b"GET /%d HTTP/1.1\n" % number)
            client.say(b"Host: test\n\n")
            client.until(b"(?s)HTTP/1.1 200 .*/%d" % number)
            assert client.output.count(b".") >= size
            client.output = b""
    finally:
        client.end()


def test_renegotiation_is_refused(stage, origin):
    client = SClient(stage, "-tls1_2")
    try:
        client.until(b"Verify return code: 0")
        client.say(b"R\n")
        client.until(b"RENEGOTIATING")
        client.until(b"no renegotiation")
    finally:
        client.end()
    assert origin.saw_nothing()


def test_many_connections_keep_their_bytes_apart(stage, origin):
    origin.serve(lambda request: answer_chunked(request.target.encode() * 500, b"end"))
    clients = [stage.connect_tls(version=1.2 if number % 2 else 1.3) for number in range(100)]
    for turn in range(3):
        for number, client in enumerate(clients):
            client.send(get(f"/{turn}/{number}"))
        for number, client in enumerate(clients):
            assert client.read_response().body == f"/{turn}/{number}".encode() * 500 + b"end"
