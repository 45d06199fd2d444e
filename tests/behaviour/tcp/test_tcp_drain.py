"""SIGTERM with mode = tcp: connections go on until they end, or drain_timeout cuts them."""

import signal

INI = """
[listener raw]
bind = @raw
mode = tcp
upstream = app
[listener slow]
bind = @slow
mode = tcp
upstream = slow
[listener hole]
bind = @to_hole
mode = tcp
upstream = hole
[listener echo]
bind = @echo
mode = tcp
service = back
[upstream app]
server = @origin
[upstream slow]
server = @originunix
[upstream hole]
server = @hole
timeout_connect = 60s
[service back]
type = echo
"""


def pair(stage, front="raw", origin="origin"):
    client = stage.connect(front)
    upstream = stage.origins[origin].accept()
    client.send(b"c")
    upstream.expect(b"c")
    return client, upstream


def test_a_connection_goes_on_and_ends_the_drain_with_it(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, upstream = pair(stage)
    stage.weir.drain()
    client.send(b"still")
    upstream.expect(b"still")
    upstream.send(b"here")
    client.expect(b"here")
    client.close()
    upstream.expect_close()
    upstream.close()
    stage.weir.drained()


def test_drain_timeout_cuts_connections(new_stage):
    stage = new_stage(INI, drain_timeout="300ms")
    pairs = [pair(stage) for _ in range(3)]
    echo = stage.connect("echo")
    echo.send(b"x")
    echo.expect(b"x")
    waiting = stage.connect("to_hole")
    stage.weir.eventually_metric(1, "weir_upstream_connections", state="connecting")
    stage.weir.signal(signal.SIGTERM)
    for client, upstream in pairs:
        client.expect_reset()
        upstream.expect_reset()
    echo.expect_reset()
    waiting.expect_reset()
    stage.weir.drained(cut=5)


def test_a_second_signal_cuts_at_once(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, upstream = pair(stage)
    stage.weir.drain()
    stage.weir.signal(signal.SIGTERM)
    client.expect_reset()
    upstream.expect_reset()
    stage.weir.drained(cut=1)


def leave_bytes(stage):
    """A client that has gone, and bytes of it that its server has yet to read. By a unix socket:
    the room of a TCP socket grows while one looks."""
    client, upstream = pair(stage, "slow", "originunix")
    upstream.half_close()
    client.expect_close()
    sent = stage.send_into_queue(client)
    client.close()
    stage.weir.eventually_metric(0, "weir_relay_slots_used")
    assert stage.count("weir_memory_used_bytes", pool="send_queue") > 0
    return upstream, sent


def test_what_a_client_left_is_still_sent(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    upstream, sent = leave_bytes(stage)
    stage.weir.drain()
    assert stage.count("weir_session_slots_used") > 0
    assert upstream.read_to_end() == b"q" * sent
    upstream.close()
    stage.weir.drained()


def test_what_a_client_left_is_cut(new_stage):
    stage = new_stage(INI, drain_timeout="300ms")
    upstream, sent = leave_bytes(stage)
    stage.weir.signal(signal.SIGTERM)
    stage.weir.drained(cut=1)
    upstream.expect_end()
    assert len(upstream.received) < sent
