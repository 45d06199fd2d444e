"""slowhttptest in its four modes, with a thousand connections: others see no error."""

import shutil
import subprocess

import pytest

from harness.http1 import answer, get, post

pytestmark = pytest.mark.skipif(not shutil.which("slowhttptest"),
                                reason="slowhttptest is not installed")

BIG = "/big/" + "x" * 55
INI = f"""
[defaults]
timeout_request = 1s
timeout_client = 1s
timeout_keepalive = 10s
min_read_rate = 1000
[listener web]
bind = @web
upstream = app
send_buffer = 4k
[route big]
path = /big
respond = 200 {"$path" * 500}
[upstream app]
server = @origin
"""
GLOBAL = {"max_connections": 2500}
CONNECTIONS = 1000
SECONDS = 5


def attack(stage, path, *options):
    """slowhttptest with a thousand connections; meanwhile every other client is served. Returns the
    numbers of connections that were seen."""
    command = ["slowhttptest", "-c", str(CONNECTIONS), "-r", "500", "-l", str(SECONDS), "-i", "1",
               "-p", "5", "-v", "1", "-u", stage.url(path), *options]
    stage.origin.serve(lambda request: answer(200, b"served"))
    attacker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, cwd=stage.directory)
    served = 0
    active = []
    try:
        kept = stage.connect()
        while attacker.poll() is None:
            assert kept.ask(get("/")).body == b"served"
            fresh = stage.connect()
            assert fresh.ask(post("/", b"a body" * 100)).body == b"served"
            fresh.close()
            served += 2
            if served % 100 == 0:
                active.append(stage.count("weir_listener_connections_active", listener="web"))
        said = attacker.stdout.read().decode(errors="replace")
        assert attacker.returncode == 0, said
    finally:
        attacker.kill()
        attacker.wait()
        attacker.stdout.close()
    assert served > 100
    return active


def ended(stage, *reasons):
    return sum(stage.count("weir_http_exchanges_ended_total", reason=reason)
               for reason in reasons)


def test_slow_headers(stage):
    before = ended(stage, "request_timeout")
    active = attack(stage, "/", "-H", "-x", "24")
    assert ended(stage, "request_timeout") - before >= CONNECTIONS / 2
    assert max(active) > 10


def test_slow_bodies(stage):
    reasons = ("client_too_slow", "client_timeout", "client_closed", "client_reset")
    before = ended(stage, *reasons)
    active = attack(stage, "/", "-B", "-s", "8192", "-x", "10")
    assert ended(stage, *reasons) - before >= CONNECTIONS / 2
    assert max(active) > 10


def test_slow_readers(stage):
    """Each asks for ten answers of 30 KB: no more of them are made than may wait to be sent, 64 KB
    and one answer."""
    assert len(stage.connect().ask(get(BIG)).body) == 500 * len(BIG)
    resident = stage.weir.rss_bytes()
    active = attack(stage, BIG, "-X", "-k", "10", "-w", "512", "-y", "1024", "-n", "4", "-z", "32")
    assert stage.weir.rss_bytes() - resident < CONNECTIONS * 128 * 1024
    assert max(active) > CONNECTIONS / 2
    assert active[-1] < CONNECTIONS / 2, "who reads nothing for timeout_client is ended"


def test_ranges_without_end(stage):
    """A head that is too large is refused; one that fits is a request like others."""
    before = ended(stage, "head_too_large")
    attack(stage, "/", "-R", "-a", "10", "-b", "3000", "-t", "HEAD")
    assert ended(stage, "head_too_large") - before >= CONNECTIONS / 2
