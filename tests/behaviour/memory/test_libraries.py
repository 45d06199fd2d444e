"""What nghttp2 and OpenSSL take for connections is bounded, counted, and given back."""

import re

from harness.h2_client import H2Client
from harness.http1 import get
from harness.memory import KIB, MIB, WITH_ASAN, budget, pools, resident
from harness.wait import eventually

INI = """
[tls site]
certificate = weir.test.pem
[listener web]
bind = @web
[listener secure]
bind = @secure
tls = site
[route hello]
path = /hello
respond = 200 hello
"""
GLOBAL = {"max_connections": 1000, "workers": 1}

# Under AddressSanitizer there are no arenas: what OpenSSL takes is not known.
KNOWN = not WITH_ASAN
# What the worker's thread keeps in its cache, of connections that have gone.
CACHE = 2 * MIB


def sizes(log):
    """Of one, by what it is: session, stream, connection, handshake; and the sums."""
    h2 = re.search(r"memory of nghttp2 in a worker: sessions (\d+) x (\d+) \+ streams (\d+) x "
                   r"(\d+), at most (\d+) bytes$", log, re.M)
    tls = re.search(r"memory of openssl in a worker: (.+) = (\d+) bytes$", log, re.M)
    terms = {name: (int(count), int(size)) for name, count, size in
             re.findall(r"(\w+) (\d+) x (\d+)", tls[1])}
    return [int(number) for number in h2.groups()], terms, int(tls[2])


def used(stage, pool):
    """Looked at, with what must hold at all times."""
    metrics = stage.metrics()
    capacity = pools(metrics, "weir_memory_capacity_bytes")[pool]
    now = pools(metrics, "weir_memory_used_bytes")[pool]
    assert now <= pools(metrics)[pool] <= capacity
    return now


def test_what_libraries_may_take_can_be_checked_by_hand(new_stage):
    stage = new_stage(INI, workers=2, max_connections=102)
    (of_worker, _), _ = budget(stage.weir.log)
    (sessions, session, streams, stream, most), terms, sum_of_terms = sizes(stage.weir.log)
    assert most == min(1 << 30, sessions * session + streams * stream)
    assert sum_of_terms == sum(count * size for count, size in terms.values())
    assert set(terms) == {"arena", "connections", "handshakes"}
    capacity = pools(stage.metrics(), "weir_memory_capacity_bytes")
    for name, each in (("nghttp2", most), ("openssl", sum_of_terms)):
        assert of_worker[name] == (each, 1)
        assert capacity[name] == 2 * each


def test_without_tls_openssl_takes_nothing(new_stage):
    stage = new_stage("[listener web]\nbind = @web\n[route hello]\npath = /\nrespond = 200 hello\n")
    _, terms, most = sizes(stage.weir.log)
    assert set(terms) == {"arena"} and most == 4 * MIB
    client = stage.connect()
    assert client.ask(get("/")).body == b"hello"
    assert used(stage, "openssl") < 256 * KIB


def test_connections_with_tls_take_what_was_reckoned_with(stage):
    count = 300 if KNOWN else 30
    _, terms, _ = sizes(stage.weir.log)
    before = used(stage, "openssl")
    rests = []
    for _ in range(3):
        clients = [stage.connect_tls(version=1.2 if number % 2 else 1.3)
                   for number in range(count)]
        for client in clients:
            assert client.ask(get("/hello")).body == b"hello"
        taken = used(stage, "openssl") - before
        if not KNOWN:
            assert taken == 0
            return
        assert count * 2 * KIB < taken <= count * terms["connections"][1]
        held = pools(stage.metrics())
        assert resident(stage.weir) <= sum(held.values()) * 1.02 + MIB, held
        stage.clear()
        eventually(lambda: used(stage, "openssl") - before < taken / 2,
                   lambda: f"it is given back: {used(stage, 'openssl')}, {before} before")
        rests.append(used(stage, "openssl") - before)
    assert rests[-1] < rests[0] + taken / 4, f"each load leaves some of it behind: {rests}"


def test_handshakes_take_what_was_reckoned_with(stage):
    """A hello as long as OpenSSL reads one, of which the beginning has come."""
    count = 200 if KNOWN else 20
    _, terms, _ = sizes(stage.weir.log)
    rest = used(stage, "openssl")
    clients = [stage.connect("secure") for _ in range(count)]
    for client in clients:
        client.send(b"\x16\x03\x01\x00\x40" + b"\x01\x02\x01\x40" + bytes(60))
    each = terms["connections"][1] + terms["handshakes"][1]
    if KNOWN:
        eventually(lambda: used(stage, "openssl") - rest > count * 128 * KIB,
                   lambda: f"{used(stage, 'openssl')}, {rest} before")
    assert used(stage, "openssl") - rest <= count * each
    for client in clients:
        client.reset()
    eventually(lambda: used(stage, "openssl") <= rest + CACHE,
               lambda: f"it is given back: {used(stage, 'openssl')}, {rest} before")


def test_sessions_and_streams_take_what_was_reckoned_with(stage):
    count, streams = 100, 10
    (_, session, _, stream, most), _, _ = sizes(stage.weir.log)
    assert used(stage, "nghttp2") == 0
    clients = [H2Client(stage.connect()) for _ in range(count)]
    for client in clients:
        client.get(1, "/hello")
    for client in clients:
        assert client.answer(1).body == b"hello"
    idle = used(stage, "nghttp2")
    assert count * KIB < idle <= count * session
    for client in clients:
        for number in range(streams):
            client.request(3 + 2 * number, "POST", "/hello", end=False)
        client.echo()
    assert idle < used(stage, "nghttp2") <= count * (session + streams * stream)
    stage.clear()
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="nghttp2")


def test_an_idle_weir_gives_pages_of_libraries_back(stage):
    """Nothing happens on it then: jemalloc by itself would wait for the next allocation."""
    before = pools(stage.metrics())["openssl"]
    clients = [stage.connect("secure") for _ in range(300)]
    for client in clients:
        client.send(b"\x16\x03\x01\x00\x40" + b"\x01\x02\x01\x40" + bytes(60))
    if not KNOWN:
        assert before == pools(stage.metrics())["openssl"] == 0
        return
    eventually(lambda: pools(stage.metrics())["openssl"] > before + 16 * MIB,
               lambda: f"{pools(stage.metrics())['openssl']}, {before} before")
    for client in clients:
        client.reset()
    eventually(lambda: pools(stage.metrics())["openssl"] <= before + MIB,
               lambda: f"{pools(stage.metrics())['openssl']}, {before} before", within=40)
