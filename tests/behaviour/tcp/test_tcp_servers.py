"""mode = tcp: which server gets a connection, and what happens when none can be had."""

import time

from harness.bulk import Stopped
from harness.wait import eventually

INI = """
[listener next]
bind = @next
mode = tcp
upstream = next
[listener backup]
bind = @backup
mode = tcp
upstream = backup
[listener dead]
bind = @to_dead
mode = tcp
upstream = dead
[listener hole]
bind = @to_hole
mode = tcp
upstream = hole
[listener turns]
bind = @turns
mode = tcp
upstream = turns
[listener weights]
bind = @weights
mode = tcp
upstream = weights
[listener source]
bind = @source
mode = tcp
upstream = source
[listener maglev]
bind = @maglev
mode = tcp
upstream = maglev
[listener least]
bind = @least
mode = tcp
upstream = least
[listener full]
bind = @full
mode = tcp
upstream = full
[listener fullslow]
bind = @fullslow
mode = tcp
upstream = fullslow
[listener spill]
bind = @spill
mode = tcp
upstream = spill

[upstream next]
balance = first
server = @dead
server = @dead_b
server = @origin
[upstream backup]
server = @dead
server = @origin backup
[upstream dead]
server = @dead
server = @dead_b
server = @dead_c
[upstream hole]
server = @hole
timeout_connect = 300ms
[upstream turns]
server = @origin_a
server = @origin_b
[upstream weights]
server = @origin_a weight=3
server = @origin_b
[upstream source]
balance = source_ip
server = @origin_a
server = @origin_b
server = @origin_c
[upstream maglev]
balance = maglev
hash_key = client_ip
server = @origin_a
server = @origin_b
server = @origin_c
[upstream least]
balance = least_conn
server = @origin_a
server = @origin_b
[upstream full]
queue = 0
server = @origin max_connections=2
[listener narrow]
bind = @narrow
mode = tcp
upstream = narrow
[upstream narrow]
queue = 2
timeout_queue = 60s
server = @origin max_connections=1
[listener late]
bind = @late
mode = tcp
upstream = late
[upstream late]
timeout_queue = 200ms
server = @origin max_connections=1
[upstream fullslow]
queue = 0
server = @originunix max_connections=1
[upstream spill]
balance = first
server = @origin_a max_connections=1
server = @origin_b
"""


def is_reset(stage, front):
    """It may be so fast that the client sees it in its connect."""
    try:
        client = stage.connect(front)
    except ConnectionResetError:
        return
    client.expect_reset()


def taker(stage, client):
    """The name of the origin that got `client`'s connection, and that connection."""
    found = []

    def look():
        for name, origin in stage.origins.items():
            upstream = origin.accept_now()
            if upstream:
                found.append((name, upstream))
        return found

    eventually(look, "a server was connected")
    name, upstream = found[0]
    client.send(b"which?")
    upstream.expect(b"which?")
    return name, upstream


def names(stage, front, count, **how):
    """The takers of `count` connections one after the other; they stay open."""
    return [taker(stage, stage.connect(front, **how))[0] for _ in range(count)]


def test_a_failed_connect_goes_to_the_next_server(stage, origin):
    counted = stage.counter("weir_upstream_retries_total", reason="connect_failed")
    client = stage.connect("next")
    client.send(b"hello")
    upstream = origin.accept()
    upstream.expect(b"hello")
    upstream.send(b"world")
    client.expect(b"world")
    counted.grows(2)


def test_a_backup_takes_over(stage, origin):
    client = stage.connect("backup")
    upstream = origin.accept()
    upstream.send(b"backup")
    client.expect(b"backup")


def test_without_a_server_the_client_is_reset(stage):
    ends = stage.relays_ended("connect_failed")
    retries = stage.counter("weir_upstream_retries_total")
    failures = stage.counter("weir_upstream_connect_failures_total", reason="connect_failed")
    is_reset(stage, "to_dead")
    ends.grows()
    failures.grows(3)
    assert retries.grown() == 2, "behind the last one there is none"
    stage.weir.says("server " + stage.address("dead"))


def test_timeout_connect_resets_the_client(stage):
    ends = stage.relays_ended("connect_timeout")
    started = time.monotonic()
    with Stopped(stage.weir):
        client = stage.connect("to_hole")
        client.send(b"anybody?")
    client.expect_reset()
    assert time.monotonic() - started >= 0.28
    ends.grows()


def test_connections_take_turns(stage):
    got = names(stage, "turns", 6)
    assert got.count("origin_a") == got.count("origin_b") == 3


def test_weights_hold(stage):
    got = names(stage, "weights", 8)
    assert got.count("origin_a") == 6


def test_least_conn_counts_open_connections(stage):
    takers = []
    for _ in range(4):
        client = stage.connect("least")
        takers.append((client, *taker(stage, client)))
    assert sorted(name for _, name, _ in takers) == ["origin_a"] * 2 + ["origin_b"] * 2
    for client, name, upstream in takers:
        if name == "origin_a":
            client.close()
            upstream.expect_close()
            upstream.close()
    stage.weir.eventually_metric(2, "weir_upstream_connections", state="active")
    assert names(stage, "least", 2) == ["origin_a", "origin_a"]


def test_a_client_address_keeps_its_server(stage):
    for front in ("source", "maglev"):
        seen = {}
        for number in range(2, 18):
            source = f"127.0.0.{number}"
            got = set(names(stage, front, 3, source=source))
            assert len(got) == 1, f"{front}: {source} went to {got}"
            seen[source] = got.pop()
        assert len(set(seen.values())) > 1, f"{front}: all went to one server"


def test_max_connections_of_a_server(stage, origin):
    ends = stage.relays_ended("server_busy")
    clients = [stage.connect("full") for _ in range(2)]
    upstreams = [origin.accept() for _ in clients]
    is_reset(stage, "full")
    ends.grows()
    clients[0].close()
    upstreams[0].expect_close()
    upstreams[0].close()
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="active")
    client = stage.connect("full")
    upstream = origin.accept()
    client.send(b"room again")
    upstream.expect(b"room again")


def test_connections_wait_for_a_full_server_in_their_order(stage, origin):
    ends = stage.relays_ended("queue_full")
    clients = [stage.connect("narrow")]
    upstream = origin.accept()
    for number in (1, 2):
        clients.append(stage.connect("narrow"))
        clients[-1].send(b"%d" % number)  # what comes meanwhile is kept
        stage.weir.eventually_metric(number, "weir_upstream_queue_length", upstream="narrow")
    is_reset(stage, "narrow")
    ends.grows()
    for number in (1, 2):
        clients[number - 1].close()
        upstream.expect_close()
        upstream.close()
        upstream = origin.accept()
        upstream.expect(b"%d" % number)


def test_who_resets_while_waiting_is_not_connected(stage, origin):
    first = stage.connect("narrow")
    upstream = origin.accept()
    second = stage.connect("narrow")
    stage.weir.eventually_metric(1, "weir_upstream_queue_length", upstream="narrow")
    second.reset()
    stage.weir.eventually_metric(0, "weir_upstream_queue_length", upstream="narrow")
    first.close()
    upstream.expect_close()
    upstream.close()
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="active")
    assert len(origin.open_connections()) == 0


def test_a_connection_that_waits_too_long_is_reset(stage, origin):
    ends = stage.relays_ended("queue_timeout")
    stage.connect("late")
    origin.accept()
    is_reset(stage, "late")
    ends.grows()


def test_a_full_server_gives_way_to_the_next(stage):
    assert names(stage, "spill", 3) == ["origin_a", "origin_b", "origin_b"]


def test_bytes_still_to_be_sent_hold_the_servers_slot(stage):
    """The client has gone with all it had to say; its server has not read all of it yet."""
    origin = stage.origins["originunix"]
    client = stage.connect("fullslow")
    upstream = origin.accept()
    upstream.half_close()
    client.expect_close()
    sent = stage.send_into_queue(client)
    client.close()
    stage.weir.eventually_metric(0, "weir_relay_slots_used")
    assert stage.count("weir_upstream_connections", state="active") == 1
    is_reset(stage, "fullslow")
    assert upstream.read_to_end() == b"q" * sent
    upstream.close()
    stage.weir.eventually_metric(0, "weir_upstream_connections", state="active")
    stage.connect("fullslow").send(b"next")
    origin.accept().expect(b"next")

