"""Few descriptors: weir takes no more than it can serve; a shortage all the same only pauses it."""

import re
import resource
import shutil
import subprocess

import pytest

from harness.http1 import answer, get
from harness.wait import eventually, readable
from harness.weir import few_files

INI = """
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin
"""
FILES = 100


def served(client):
    assert client.ask(get()).body == b"hello"
    return client


def serve(stage):
    stage.origin.serve(lambda request: answer(200, b"hello"))


def serve_as_they_come(clients):
    """Who has an answer closes, so that the next one gets the place."""
    waiting = set(clients)
    while waiting:
        ready = readable(waiting)
        assert ready, f"{len(waiting)} clients wait for ever"
        for client in ready:
            assert client.read_response().body == b"hello"
            client.close()
            waiting.remove(client)


@pytest.fixture
def few(new_stage):
    """A weir as after `ulimit -n 100`, and how many clients it says it can serve."""
    stage = new_stage(INI, preexec=few_files(FILES), max_connections=1000)
    said = re.search(r"max_connections = 1000 needs \d+ file descriptors and RLIMIT_NOFILE allows "
                     rf"{FILES}: serving (\d+) connections", stage.weir.log)
    return stage, int(said[1])


def test_whoever_is_accepted_can_be_served(few):
    """All of them at once, each with a connection to the server of its own."""
    stage, places = few
    assert places >= 20
    clients = [stage.connect() for _ in range(places + 50)]
    for client in clients:
        client.send(get("/slow"))
    upstreams = [stage.origin.accept() for _ in range(places)]
    assert stage.weir.admin_get("/healthz").status == 200
    assert stage.weir.fd_count() <= FILES
    for upstream in upstreams:
        upstream.read_request()
        upstream.send(answer(200, b"hello"))
    for client in clients[:places]:
        assert client.read_response().body == b"hello"
    assert all(client.has_nothing() for client in clients[places:])
    assert stage.count("weir_listener_connections_active", listener="web") == places
    assert "cannot accept" not in stage.weir.log
    for peer in upstreams + clients[:places]:
        peer.close()
    serve(stage)
    serve_as_they_come(clients[places:])


def test_at_its_limit_it_sleeps(few):
    """A thousand clients in the backlog and idle ones on every place are no work."""
    stage, places = few
    serve(stage)
    first = [served(stage.connect()) for _ in range(places)]
    late = [stage.connect() for _ in range(1000)]
    for client in late:
        client.send(get())
    for client in first:
        served(client)
    before = stage.metrics()
    scrapes = 20
    for _ in range(scrapes):
        after = stage.metrics()
    turns = after.sum("weir_uring_enter_total") - before.sum("weir_uring_enter_total")
    assert turns < 12 * scrapes, "the scrapes themselves are all that happens"
    assert after.need("weir_listener_connections_active", listener="web") == places
    reached = "connections in this worker is reached"
    assert stage.weir.says(reached).count(reached) == 1
    for client in first:
        client.close()
    serve_as_they_come(late)


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_thousand_clients_of_wrk_under_ulimit_100(few):
    """As operators try it. Who waits is served when somebody leaves, and afterwards all is well."""
    stage, _ = few
    serve(stage)
    done = subprocess.run(["wrk", "-t", "1", "-c", "1000", "-d", "3", "--timeout", "30",
                           stage.url()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"(\d+) requests in", done.stdout)[1]) > 0
    assert "Non-2xx" not in done.stdout, done.stdout
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", done.stdout)
    assert not errors or errors.groups() == ("0", "0", "0"), done.stdout
    served(stage.connect()).close()
    # Those that wrk has left in the backlog are worked off.
    stage.weir.eventually_metric(0, "weir_listener_connections_active", listener="web")
    assert stage.count("weir_listener_connections_rejected_total") == 0
    assert stage.count("weir_http_exchanges_ended_total", reason="connect_failed") == 0
    assert "cannot accept" not in stage.weir.says("connections in this worker is reached")


def test_connections_are_kept_for_reuse_but_no_more_than_fit(new_stage):
    """Idle connections to one server leave room for those to another."""
    stage = new_stage("""
    [listener web]
    bind = @web
    upstream = app
    [listener other]
    bind = @other
    upstream = other
    [upstream app]
    server = @origin
    [upstream other]
    server = @origin_b
    """, preexec=few_files(FILES), max_connections=1000)
    places = int(re.search(r"serving (\d+) connections", stage.weir.log)[1])
    kept = int(re.search(r"keeping (\d+) idle ones", stage.weir.log)[1])
    for name, origin in (("web", "origin"), ("other", "origin_b"), ("web", "origin")):
        clients = [stage.connect(name) for _ in range(places)]
        for client in clients:
            client.send(get())
        upstreams = []
        while len(upstreams) < places:
            upstream = stage.origins[origin].next()
            upstream.read_request()
            upstreams.append(upstream)
        for upstream in upstreams:
            upstream.send(answer(200, b"hello"))
        for client in clients:
            assert client.read_response().body == b"hello"
            client.close()
        stage.weir.eventually_metric(lambda now: 0 < now <= kept, "weir_upstream_connections")
        stage.weir.eventually_metric(0, "weir_listener_connections_active", listener=name)
    assert stage.count("weir_http_exchanges_ended_total", reason="connect_failed") == 0


def ask_metrics(probe):
    """Over a connection that is there already: in a shortage the admin's listener waits as well."""
    got = probe.ask(get("/metrics"))
    assert got.status == 200
    text = got.body.decode()
    pauses = re.search(r'accept_pauses_total{reason="no_descriptors"} (\d+)', text)
    turns = re.search(r"^weir_uring_enter_total (\d+)", text, re.M)
    return int(pauses[1]) if pauses else 0, int(turns[1])


def test_a_shortage_is_logged_once_and_does_not_spin(new_stage):
    """Somebody lowers the limit below what weir reckoned with."""
    stage = new_stage(INI, max_connections=200)
    serve(stage)
    probe = stage.weir.connect_admin()
    try:
        used = stage.weir.fd_count()
        before = resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE, (used + 10, before[1]))
        clients = [stage.connect() for _ in range(40)]
        eventually(lambda: ask_metrics(probe)[0] >= 2, "accepts paused")
        pauses, turns = ask_metrics(probe)
        scrapes = []

        def more():
            scrapes.append(ask_metrics(probe))
            return scrapes[-1][0] >= pauses + 5

        eventually(more, "accepts are tried again")
        tries = scrapes[-1][0] - pauses
        # A pause is the turn that fails and the timer; a scrape its request and its answer.
        assert scrapes[-1][1] - turns <= 6 * tries + 6 * len(scrapes)
        said = stage.weir.says("cannot accept")
        lines = [line for line in said.splitlines() if "cannot accept" in line]
        assert len(lines) == 1, "one line for the process"
        assert re.search(rf"Too many open files; .*RLIMIT_NOFILE.*max_connections.* {used + 10} of "
                         r".*fs.file-max was \d+", lines[0]), lines[0]
        resource.prlimit(stage.weir.pid, resource.RLIMIT_NOFILE, before)
        for client in clients:
            served(client)
    finally:
        probe.close()
