"""openssl s_client, curl and nghttp as users run them: sessions in files, ALPN, redirects."""

import subprocess

import pytest

from harness.http1 import answer
from harness.wait import PATIENCE

INI = """
[listener secure]
bind = @secure
upstream = app
tls = site
[listener plain]
bind = @plain
[listener only_h1]
bind = @only_h1
upstream = app
tls = site
alpn = http/1.1
[route to_https]
listener = plain
redirect = 308 https://$host$uri
[tls site]
certificate = weir.test+127.0.0.1.pem
[upstream app]
server = @origin
"""
VERSIONS = ("-tls1_2", "-tls1_3")


def s_client(stage, *options):
    """The output of one that sends a request and reads until weir ends."""
    with subprocess.Popen(
            ["openssl", "s_client", "-connect", stage.address("secure"), "-servername", "weir.test",
             "-CAfile", f"{stage.directory}/ca.pem", "-verify_return_error", "-ign_eof", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        out, _ = process.communicate(
            b"GET / HTTP/1.1\r\nHost: weir.test\r\nConnection: close\r\n\r\n", PATIENCE)
    assert process.returncode == 0, out.decode()
    return out.decode()


def curl(stage, *options):
    done = subprocess.run(["curl", "-sS", "--cacert", f"{stage.directory}/ca.pem", "--max-time",
                           "30", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_in_a_file_is_resumed(stage, origin, version):
    origin.serve(lambda request: answer(200, b"for s_client"))
    file = f"{stage.directory}/session{version}"
    counted = stage.counter("weir_tls_handshakes_total", resumed="yes")
    first = s_client(stage, version, "-sess_out", file)
    assert "New, TLSv1." in first and "Reused, TLSv1." not in first and "for s_client" in first
    for _ in range(2):
        again = s_client(stage, version, "-sess_in", file, "-sess_out", file)
        assert "Reused, TLSv1." in again and "for s_client" in again
    assert counted.grown() == 2


def test_nobody_is_asked_for_early_data(stage, origin):
    """What comes before the handshake ends could have been sent before (RFC 8446 section 8)."""
    origin.serve(lambda request: answer(200, b"for s_client"))
    session, early = f"{stage.directory}/session", f"{stage.directory}/early"
    with open(early, "w") as file:
        file.write("GET /early HTTP/1.1\r\nHost: weir.test\r\n\r\n")
    assert "Max Early Data: 0" in s_client(stage, "-tls1_3", "-sess_out", session)
    again = s_client(stage, "-tls1_3", "-sess_in", session, "-early_data", early)
    assert "Reused, TLSv1.3" in again and "Early data was not sent" in again
    assert [request.target for request in origin.requests] == ["/", "/"]


@pytest.mark.parametrize("offered, wanted", [("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"),
                                             ("http/1.1", "http/1.1")])
def test_weir_chooses_h2_where_a_client_has_it(stage, offered, wanted):
    done = subprocess.run(["openssl", "s_client", "-connect", stage.address("secure"), "-alpn",
                           offered], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert f"ALPN protocol: {wanted}" in done.stdout


def test_curl_chooses_by_alpn(stage, origin):
    origin.serve(lambda request: answer(200, b"x"))
    url = stage.url("/", "secure", scheme="https")
    written = ("-o", "/dev/null", "-w", "%{http_version} %{ssl_verify_result}")
    assert curl(stage, *written, url) == "2 0"
    assert curl(stage, *written, "--http1.1", url) == "1.1 0"
    assert curl(stage, *written, "--no-alpn", url) == "1.1 0"
    only_h1 = stage.url("/", "only_h1", scheme="https")
    assert curl(stage, *written, "--http2", only_h1) == "1.1 0"


def test_curl_follows_from_http_to_https(stage, origin):
    origin.serve(lambda request: answer(200, request.target.encode() + request.body))
    secure = stage.address("secure")
    options = ("--connect-to", f"weir.test:80:{stage.address('plain')}",
               "--connect-to", f"weir.test:443:{secure}")
    assert curl(stage, "-L", *options, "http://weir.test/a?b=c") == "/a?b=c"
    # 308: a POST stays one.
    assert curl(stage, "-L", "-d", "body", *options, "http://weir.test/a") == "/abody"


def test_a_hundred_requests_of_curl_at_once(stage, origin):
    origin.serve(lambda request: answer(200, request.target.encode()))
    url = stage.url("/[1000-1099]", "secure", scheme="https")
    got = curl(stage, "--http2", "-Z", "--parallel-max", "100", url)
    assert sorted(got.split("/")[1:]) == [str(number) for number in range(1000, 1100)]


def test_nghttp_asks_for_many(stage, origin):
    origin.serve(lambda request: answer(200, request.target.encode() * 1000))
    done = subprocess.run(["nghttp", "-n", "-s", "-m", "50", "-c", "4k",
                           stage.url("/some", "secure", scheme="https")], capture_output=True,
                          text=True, timeout=3 * PATIENCE)
    lines = [line for line in done.stdout.splitlines() if line.rstrip().endswith("/some")]
    assert len(lines) == 50 and all(" 200 " in line for line in lines), done.stdout
