"""nghttpd as the server, and HAProxy: what others made of RFC 9113."""

import contextlib
import subprocess
import threading

import pytest

from harness import programs
from harness.bulk import MB, pattern
from harness.h2_client import H2Client
from harness.http1 import answer, get, post
from harness.weir import Port

INI = """
[defaults]
max_body_size = 0
[listener web]
bind = @web
upstream = app
[upstream app]
protocol = h2
server = %s
"""


@pytest.fixture
def nghttpd(tmp_path, new_stage):
    """start(*options): its port; files are below tmp_path. It ends before new_stage looks for what
    weir has left."""
    with contextlib.ExitStack() as stack:
        def start(*options):
            port = stack.enter_context(contextlib.closing(Port()))
            stack.enter_context(programs.nghttpd(tmp_path, port, *options))
            return port

        yield start


def test_files_of_nghttpd(nghttpd, new_stage, tmp_path):
    (tmp_path / "small").write_bytes(b"hello")
    (tmp_path / "big").write_bytes(pattern(10 * MB))
    stage = new_stage(INI % nghttpd().address)
    client = stage.connect()
    for _ in range(3):
        assert client.ask(get("/small")).body == b"hello"
        assert client.ask(get("/big")).body == pattern(10 * MB)
        head = client.ask(get("/small", method="HEAD"), "HEAD")
        assert head["Content-Length"] == "5"
        assert client.ask(get("/none")).status == 404
    assert stage.count("weir_upstream_connects_total") == 1


def test_nghttpd_echoes_uploads(nghttpd, new_stage):
    stage = new_stage(INI % nghttpd("--echo-upload").address)
    body = pattern(3 * MB)
    client, got = stage.connect(), []
    reading = threading.Thread(target=lambda: got.append(client.read_response()))
    reading.start()
    client.send(post("/", body))
    reading.join()
    assert got[0].body == body


def test_trailers_of_nghttpd(nghttpd, new_stage, tmp_path):
    (tmp_path / "small").write_bytes(b"hello")
    stage = new_stage(INI % nghttpd("--trailer", "x-end: yes").address)
    client = H2Client(stage.connect())
    client.get(1, "/small", ("te", "trailers"))
    got = client.answer(1)
    assert (got.body, got.trailers) == (b"hello", [("x-end", "yes")])
    # To HTTP/1.1 a body of known length has no place for them.
    response = stage.connect().ask(get("/small", "TE: trailers"))
    assert (response.body, response["Content-Length"]) == (b"hello", "5")


def test_few_streams_at_once(nghttpd, new_stage, tmp_path):
    """-m 2: forty clients need several connections, and all get their answer."""
    (tmp_path / "small").write_bytes(b"hello")
    stage = new_stage(INI % nghttpd("-m", "2").address)
    errors = []

    def fetch():
        try:
            client = stage.connect()
            for _ in range(20):
                response = client.ask(get("/small"))
                assert response.status == 200 and response.body == b"hello", response
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


def test_nghttpd_restarts_between_requests(new_stage, tmp_path):
    """Its end is noticed on the idle connection: the next request takes one to the new nghttpd."""
    (tmp_path / "small").write_bytes(b"hello")
    with contextlib.closing(Port()) as port:
        stage = new_stage(INI % port.address)
        client = stage.connect()
        for _ in range(2):
            with programs.nghttpd(tmp_path, port):
                assert client.ask(get("/small")).body == b"hello"
        assert stage.count("weir_upstream_connects_total") == 2
        client.close()


def test_bytes_alone_go_to_a_server_of_h2_as_well(nghttpd, new_stage, tmp_path):
    """mode = tcp knows no protocol: who speaks HTTP/2 then is the client."""
    (tmp_path / "small").write_bytes(b"hello")
    stage = new_stage(INI.replace("bind = @web", "bind = @web\nmode = tcp") % nghttpd().address)
    done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", stage.url("/small")],
                          capture_output=True, timeout=30)
    assert done.stdout == b"hello"


def test_a_real_haproxy_as_the_server(stage_behind_haproxy):
    stage = stage_behind_haproxy
    stage.origin.serve(lambda request: answer(
        200, request.body or request.target.encode(), "X-Saw: " + request.method))
    client = stage.connect()
    for number in range(5):
        assert client.ask(get(f"/{number}")).body == b"/%d" % number
        response = client.ask(post("/", b"x" * 100000))
        assert response.body == b"x" * 100000 and response["X-Saw"] == "POST"


@pytest.fixture
def stage_behind_haproxy(new_stage, tmp_path):
    with contextlib.closing(Port()) as port:
        stage = new_stage(INI % port.address + "[upstream back]\nserver = @origin\n")
        sections = f"""
frontend front
    mode http
    bind {port.address} proto h2
    default_backend back
backend back
    mode http
    server one {stage.origin.address}
"""
        with programs.haproxy(tmp_path, sections, port):
            yield stage
