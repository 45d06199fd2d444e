"""Every HTTP version of a client with every one of a server: curl, httpx and nghttp before weir, a
scripted origin of each version behind it, which answers by the path alone."""

import contextlib
import re
import subprocess

import httpx
import pytest

from harness.bulk import MB, pattern
from harness.h2_server import INTERNAL_ERROR, H2Service
from harness.http1 import answer, answer_chunked, answer_head, get, post_chunked
from harness.origin import Last

INI = """
[defaults]
max_body_size = 0
[listener h1]
bind = @to_h1
upstream = h1
[listener h2]
bind = @to_h2
upstream = h2
[upstream h1]
server = @origin
[upstream h2]
protocol = h2
server = @origin_h2
"""

BIG = pattern(10 * MB)
VERSIONS = ("h1", "h2")
CURL = {"h1": "--http1.1", "h2": "--http2-prior-knowledge"}

every_pair = pytest.mark.parametrize("client, server", [(client, server) for client in VERSIONS
                                                        for server in VERSIONS])


# What the origins do, by the path.

def h1_answers(request):
    if request.target == "/big":
        return answer(200, BIG)
    if request.target == "/echo":
        trailer = [f"X-Echo: {value}" for name, value in request.trailers]
        if request.trailers:
            return answer_chunked(request.body, trailers=trailer)
        return answer(200, request.body)
    if request.target == "/trailers":
        return answer_chunked(b"some", lines=["Trailer: X-End"], trailers=["X-End: yes"])
    if request.target == "/early":
        return answer_head(103, "Link: </a>") + answer(200, b"after")
    if request.target == "/none":
        return answer_head(204)
    if request.target == "/cut":
        return Last(answer_head(200, "Content-Length: 100") + b"some")
    if request.method == "HEAD":
        return answer_head(200, "Content-Length: 5")
    return answer(200, b"small")


def h2_answers(server, request):
    if request.path == "/big":
        server.answer(request, 200, BIG)
    elif request.path == "/echo" and request.trailers:
        server.head(request, 200)
        server.data(request, bytes(request.body))
        server.trailers(request, *[("x-echo", value) for _, value in request.trailers])
    elif request.path == "/echo":
        server.answer(request, 200, bytes(request.body))
    elif request.path == "/trailers":
        server.head(request, 200, ("trailer", "x-end"))
        server.data(request, b"some")
        server.trailers(request, ("x-end", "yes"))
    elif request.path == "/early":
        server.head(request, 103, ("link", "</a>"))
        server.answer(request, 200, b"after")
    elif request.path == "/none":
        server.head(request, 204, end=True)
    elif request.path == "/cut":
        server.head(request, 200, ("content-length", "100"))
        server.data(request, b"some")
        server.refuse(request, INTERNAL_ERROR)
    elif request.method == "HEAD":
        server.head(request, 200, ("content-length", "5"), end=True)
    else:
        server.answer(request, 200, b"small")


@contextlib.contextmanager
def origin_of(stage, version):
    """It serves; the listener to it is to_<version>."""
    if version == "h1":
        stage.origin.serve(h1_answers)
        yield
    else:
        with H2Service(stage.origins["origin_h2"], h2_answers):
            yield


def curl(stage, client, server, path, *options):
    """(exit status, head lines with trailers, body)."""
    heads = f"{stage.directory}/heads"
    done = subprocess.run(["curl", "-sS", CURL[client], "-D", heads, "--max-time", "30", *options,
                           stage.url(path, f"to_{server}")], capture_output=True)
    with open(heads) as file:
        return done.returncode, file.read().replace("\r", "").split("\n"), done.stdout


@every_pair
def test_a_small_answer(stage, client, server):
    with origin_of(stage, server):
        status, heads, body = curl(stage, client, server, "/small")
    assert status == 0 and body == b"small"
    assert re.fullmatch(r"HTTP/2 200 ?" if client == "h2" else r"HTTP/1.1 200 .*", heads[0])


@every_pair
def test_ten_megabytes_down(stage, client, server):
    with origin_of(stage, server):
        assert curl(stage, client, server, "/big")[2] == BIG


@every_pair
def test_ten_megabytes_up_and_down(stage, client, server):
    file = f"{stage.directory}/body"
    with open(file, "wb") as out:
        out.write(BIG)
    with origin_of(stage, server):
        status, _, body = curl(stage, client, server, "/echo", "--data-binary", f"@{file}", "-H",
                               "Expect:")
    assert status == 0 and body == BIG


@every_pair
def test_trailers_of_an_answer(stage, client, server):
    with origin_of(stage, server):
        status, heads, body = curl(stage, client, server, "/trailers", "-H", "TE: trailers")
    assert status == 0 and body == b"some"
    assert "x-end: yes" in [line.lower() for line in heads]


@pytest.mark.parametrize("server", VERSIONS)
def test_trailers_of_a_request_from_h1(stage, server):
    with origin_of(stage, server):
        response = stage.connect(f"to_{server}").ask(
            post_chunked("/echo", b"hello", lines=["TE: trailers"], trailers=["X-Sum: 5"]))
    assert response.body == b"hello" and response.trailers == [("x-echo", "5")]


@pytest.mark.parametrize("server", VERSIONS)
def test_trailers_of_a_request_from_h2(stage, server):
    file = f"{stage.directory}/body"
    with open(file, "wb") as out:
        out.write(b"hello")
    with origin_of(stage, server):
        done = subprocess.run(["nghttp", "-v", "--no-content-length", "--data", file,
                               "--trailer", "x-sum: 5", "-H", "te: trailers",
                               stage.url("/echo", f"to_{server}")],
                              capture_output=True, timeout=30)
    assert b"x-echo: 5" in done.stdout and b"hello" in done.stdout


@every_pair
def test_head(stage, client, server):
    with origin_of(stage, server):
        status, heads, body = curl(stage, client, server, "/small", "--head")
    assert status == 0 and "content-length: 5" in [line.lower() for line in heads]


@every_pair
def test_an_interim_answer(stage, client, server):
    with origin_of(stage, server):
        status, heads, body = curl(stage, client, server, "/early")
    assert status == 0 and body == b"after"
    statuses = [line.split()[1] for line in heads if line.startswith("HTTP/")]
    assert statuses == ["103", "200"]
    assert "link: </a>" in [line.lower() for line in heads]


@every_pair
def test_no_content(stage, client, server):
    with origin_of(stage, server):
        status, heads, body = curl(stage, client, server, "/none")
    assert status == 0 and " 204" in heads[0] and body == b""


@every_pair
def test_a_cut_answer_is_seen_as_cut(stage, client, server):
    with origin_of(stage, server):
        status, heads, body = curl(stage, client, server, "/cut")
    assert status == 92 if client == "h2" else status in (18, 56) and " 200" in heads[0]


@every_pair
def test_many_requests_of_one_httpx(stage, client, server):
    with origin_of(stage, server):
        with httpx.Client(http1=client == "h1", http2=client == "h2", timeout=30) as user:
            for number in range(50):
                response = user.post(stage.url("/echo", f"to_{server}"), content=b"%d" % number)
                assert response.content == b"%d" % number
                assert response.http_version == ("HTTP/2" if client == "h2" else "HTTP/1.1")


@pytest.mark.parametrize("server", VERSIONS)
def test_a_load_of_h2load(stage, server):
    with origin_of(stage, server):
        done = subprocess.run(["h2load", "-n", "2000", "-c", "4", "-m", "20",
                               stage.url("/small", f"to_{server}")], capture_output=True,
                              text=True, timeout=60)
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout


@every_pair
def test_a_client_that_leaves_leaves_the_connection(stage, client, server):
    """Killed in the middle of a download; the next one works."""
    with origin_of(stage, server):
        process = subprocess.Popen(["curl", "-sS", CURL[client], "--limit-rate", "1k",
                                    stage.url("/big", f"to_{server}")],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout.read(1)
        process.kill()
        process.wait()
        process.stdout.close()
        status, _, body = curl(stage, client, server, "/small")
        assert status == 0 and body == b"small"
        if server == "h1":
            client_peer = stage.connect("to_h1")
            assert client_peer.ask(get("/small")).body == b"small"
