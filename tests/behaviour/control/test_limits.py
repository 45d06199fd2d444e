"""What happens when something is used up: clients wait or get a reason; nothing ever crashes."""

import os
import re
import resource
import select
import signal
import socket
import subprocess

import pytest

from harness.http1 import answer, get, post
from harness.wait import PATIENCE, eventually
from harness.weir import BINARY, Port, few_files

FILL = "$header_fill" * 12

INI = f"""
[listener web]
bind = @web
upstream = app
[listener side]
bind = @side
upstream = app
[route hello]
path = /hello
respond = 200 hello
[route big_answer]
path = /big_answer
respond = 200 {FILL}
[route big_location]
path = /big_location
redirect = 302 http://x/{FILL}
[route big_request]
path = /big_request
upstream = app
set_request_header = X-Fill: {FILL}
[route big_response]
path = /big_response
upstream = app
set_response_header = X-Fill: {FILL}
[upstream app]
server = @origin
keepalive = 0
"""
FILLER = "Fill: " + "f" * 12000


def served(stage, client=None):
    assert (client or stage.connect()).ask(get("/hello")).body == b"hello"


@pytest.mark.parametrize("path", ["/big_answer", "/big_location", "/big_request"])
def test_no_memory_is_503(stage, path):
    """Fields are copied into memory of a fixed size per request: here they become 144 KB."""
    client = stage.connect()
    for _ in range(3):
        got = client.ask(get(path, FILLER))
        assert (got.status, got.reason) == (503, "no_memory")
        assert got["Connection"] is None, "the connection is as good as before"
    served(stage, client)
    assert stage.origin.saw_nothing()


def test_no_memory_for_an_answer_is_503(stage, origin):
    client = stage.connect()
    upstream = origin.asked_by(client, get("/big_response", FILLER))
    upstream.send(answer(200, b"x" * 100))
    got = client.read_response()
    assert (got.status, got.reason) == (503, "no_memory")
    upstream.expect_end()
    served(stage)


def test_the_same_fields_in_a_small_request_do_no_harm(stage, origin):
    client = stage.connect()
    assert client.ask(get("/big_answer", "Fill: yes")).body == b"yes" * 12
    seen, _ = stage.exchange(get("/big_request", "Fill: yes"), client=client)
    assert seen["X-Fill"] == "yes" * 12


def test_every_client_with_a_head_at_its_limit_is_served(new_stage):
    """As many as max_connections, all at once: that is what memory is set aside for."""
    stage = new_stage(INI, max_connections=20)
    clients = [stage.connect() for _ in range(20)]
    for client in clients:
        client.send(get("/", "Fill: " + "f" * 15000, *[f"X-{n}: {n}" for n in range(80)]))
    upstreams = [stage.origin.accept() for _ in clients]
    for upstream in upstreams:
        assert len(upstream.read_request()["Fill"]) == 15000
        upstream.send(answer(200, b"fine", "Fill: " + "f" * 15000))
    for client in clients:
        assert client.read_response().body == b"fine"


def test_every_client_in_the_middle_of_a_head_is_served(new_stage):
    stage = new_stage(INI, max_connections=20)
    clients = [stage.connect() for _ in range(20)]
    for client in clients:
        client.send(get("/hello", FILLER)[:-2])
    stage.weir.eventually_metric(lambda now: now > 0, "weir_memory_used_bytes", pool="head")
    for client in clients:
        client.send(b"\r\n")
    for client in clients:
        assert client.read_response().body == b"hello"


# max_connections.

def test_over_max_connections_clients_wait_in_the_backlog(new_stage):
    stage = new_stage(INI, max_connections=5)
    first = [stage.connect() for _ in range(5)]
    for client in first:
        served(stage, client)
    late = [stage.connect() for _ in range(10)]
    for client in late:
        client.send(get("/hello"))
    for client in first:
        served(stage, client)
    assert stage.count("weir_listener_connections_active", listener="web") == 5
    assert all(client.has_nothing() for client in late)
    for client in first:
        client.close()
    waiting = list(late)
    while waiting:
        ready = [client for client in waiting if readable(client)]
        for client in ready:
            assert client.read_response().body == b"hello"
            client.close()
            waiting.remove(client)
    assert stage.count("weir_listener_connections_rejected_total") == 0


def test_max_connections_is_for_all_listeners_together(new_stage):
    stage = new_stage(INI, max_connections=4)
    first = [stage.connect(name) for name in ("web", "side", "web", "side")]
    for client in first:
        assert client.ask(get("/hello")).body == b"hello"
    for name, other in (("side", "web"), ("web", "side")):
        late = stage.connect(name)
        late.send(get("/hello"))
        for client in first:
            assert client.ask(get("/hello")).body == b"hello"
        assert late.has_nothing()
        assert stage.count("weir_worker_connections") == 4 + 1
        # A place that a client of the other listener leaves is as good.
        first.pop([stage.address(other) in peer(client) for client in first].index(True)).close()
        assert late.read_response().body == b"hello"
        first.append(late)


def peer(client):
    return "%s:%d" % client.sock.getpeername()


def readable(client):
    return bool(select.select([client.sock], [], [], 0.01)[0])


def test_a_client_that_waits_in_the_backlog_may_leave(new_stage):
    stage = new_stage(INI, max_connections=2)
    first = [stage.connect() for _ in range(2)]
    for client in first:
        served(stage, client)
    for how in ("close", "reset", "half_close"):
        late = stage.connect()
        late.send(get("/hello"))
        getattr(late, how)()
    for client in first:
        client.close()
    served(stage)


def test_the_admin_answers_when_the_clients_take_all(new_stage):
    stage = new_stage(INI, max_connections=3)
    clients = [stage.connect() for _ in range(6)]
    for client in clients:
        client.send(get("/hello"))
    eventually(lambda: stage.count("weir_listener_connections_active", listener="web") == 3,
               "all places are taken")
    for _ in range(5):
        assert stage.weir.admin_get("/healthz").status == 200
        assert stage.weir.admin_get("/readyz").status == 200


def test_the_admin_answers_when_every_client_is_being_served(new_stage):
    stage = new_stage(INI, max_connections=3)
    clients = [stage.connect() for _ in range(3)]
    for client in clients:
        client.send(get("/slow"))
    for _ in clients:
        stage.origin.accept()
    assert stage.metrics().need("weir_http_requests_in_flight") == 3 + 1
    assert stage.weir.admin_get("/readyz").status == 200


def test_a_drain_at_the_limit(new_stage):
    stage = new_stage(INI, max_connections=3, drain_timeout="60s")
    clients = [stage.connect() for _ in range(3)]
    for client in clients:
        client.send(get("/slow"))
    upstreams = [stage.origin.accept() for _ in clients]
    late = stage.connect()
    stage.weir.signal(signal.SIGTERM)
    for upstream in upstreams:
        upstream.read_request()
        upstream.send(answer(200, b"done"))
    for client in clients:
        assert client.read_response().body == b"done"
        client.close()
    late.close()
    stage.weir.drained()


# Descriptors.

@pytest.mark.parametrize("files", [100, 30])
def test_few_descriptors_serve_many_clients_after_each_other(tmp_path, files):
    port = Port()
    (tmp_path / "weir.ini").write_text(
        f"[global]\nworkers = 1\ncpu_affinity = off\n"
        f"[listener web]\nbind = {port.address}\nservice = hi\n"
        f"[service hi]\ntype = respond\nbody = hello\n")
    with open(tmp_path / "stderr", "wb") as stderr:
        process = subprocess.Popen([BINARY, "-c", "weir.ini"], cwd=tmp_path, stderr=stderr,
                                   stdin=subprocess.DEVNULL, preexec_fn=few_files(files))
    clients = {}
    try:
        log = tmp_path / "stderr"
        eventually(lambda: "ready" in log.read_text() or process.poll() is not None, "a start")
        assert process.poll() is None, log.read_text()
        assert re.search(rf"max_connections = 100000 .* RLIMIT_NOFILE allows {files}: serving \d+",
                         log.read_text())
        for _ in range(300):
            sock = socket.create_connection(port.target, timeout=PATIENCE)
            clients[sock.fileno()] = sock
        for sock in clients.values():
            sock.sendall(get())
        assert serve_as_they_come(clients) == 300
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "bug" not in log.read_text()
    finally:
        process.kill()
        process.wait()
        for sock in clients.values():
            sock.close()
        port.close()


def serve_as_they_come(clients):
    """Reads answers and closes; whoever waits gets the place. Returns how many were answered."""
    poll = select.poll()
    for fd in clients:
        poll.register(fd, select.POLLIN)
    answered = 0
    while clients:
        ready = poll.poll(PATIENCE * 1000)
        assert ready, f"{len(clients)} clients wait for ever"
        for fd, _ in ready:
            poll.unregister(fd)
            sock = clients.pop(fd)
            answered += sock.recv(1000).endswith(b"hello")
            sock.close()
    return answered


def test_descriptors_that_run_out_while_it_runs(new_stage):
    """Accepts wait, connects to servers fail with a reason; later all is as before."""
    stage = new_stage(INI, max_connections=200)
    used = stage.weir.fd_count()
    before = resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE, (used + 40, before[1]))
    clients = [stage.connect() for _ in range(100)]
    for client in clients:
        client.send(get("/"))
    eventually(lambda: "cannot accept: Too many open files" in stage.weir.log, "a warning")
    stage.origin.serve(lambda request: answer(200, b"late"))
    statuses = []
    waiting = list(clients)
    while waiting:
        for client in [client for client in waiting if readable(client)]:
            got = client.read_response()
            assert (got.status, got.reason) in ((200, None), (503, "no_descriptors"))
            statuses.append(got.status)
            client.close()
            waiting.remove(client)
    assert len(statuses) == 100
    assert stage.count("weir_listener_accept_pauses_total", reason="no_descriptors") > 0
    resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE, before)
    eventually(lambda: stage.connect().ask(get()).status == 200, "it serves again")


def test_a_request_body_larger_than_all_buffers_passes(new_stage):
    """Buffers are few: a body goes through them again and again."""
    stage = new_stage(INI.replace("bind = @web", "bind = @web\nmax_body_size = 0"),
                      max_connections=4)
    stage.origin.serve(lambda request: answer(200, b"%d" % len(request.body)))
    clients = [stage.connect() for _ in range(4)]
    body = os.urandom(1 << 20) * 12
    for client in clients[:2]:
        client.send(post("/", body))
    for client in clients[:2]:
        assert client.read_response().body == b"%d" % len(body)
