"""nghttpd as the server, and HAProxy: what others made of RFC 9113."""

import socket
import subprocess
import threading

import pytest

from harness.bulk import MB, pattern
from harness.haproxy import haproxy
from harness.http1 import answer, get, post
from harness.wait import PATIENCE, eventually
from harness.weir import Port

NGHTTPD = "/usr/sbin/nghttpd"
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


def connectable(port):
    try:
        socket.create_connection(port.target, timeout=PATIENCE).close()
        return True
    except ConnectionRefusedError:
        return False


@pytest.fixture
def nghttpd(tmp_path, new_stage):
    """start(*options): its port; files are below tmp_path. It ends before new_stage looks for what
    weir has left."""
    running, ports = [], []

    def start(*options):
        port = Port()
        ports.append(port)
        running.append(subprocess.Popen(
            [NGHTTPD, "--no-tls", "-a", "127.0.0.1", "-d", str(tmp_path), *options,
             str(port.number)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL))
        eventually(lambda: connectable(port), "nghttpd listens")
        return port

    start.running = running
    yield start
    for process in running:
        process.terminate()
        process.wait(PATIENCE)
    for port in ports:
        port.close()


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
    client = stage.connect()
    response = client.ask(get("/small", "TE: trailers"))
    assert response.body == b"hello"
    if response.chunked:
        assert ("x-end", "yes") in response.trailers


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


def test_nghttpd_restarts_while_requests_come(nghttpd, new_stage, tmp_path):
    """GETs on connections that were used before are sent again to the new one."""
    (tmp_path / "small").write_bytes(b"hello")
    port = nghttpd()
    stage = new_stage(INI % port.address)
    client = stage.connect()
    assert client.ask(get("/small")).body == b"hello"
    old = nghttpd.running.pop()
    old.terminate()
    old.wait(PATIENCE)
    nghttpd.running.append(subprocess.Popen(
        [NGHTTPD, "--no-tls", "-a", "127.0.0.1", "-d", str(tmp_path), str(port.number)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    eventually(lambda: connectable(port), "nghttpd listens again")
    assert client.ask(get("/small")).body == b"hello"


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
    port = Port()
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
    with haproxy(tmp_path, sections):
        eventually(lambda: connectable(port), "haproxy listens")
        yield stage
    port.close()
