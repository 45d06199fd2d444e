"""mode = tcp: timeout_tunnel ends what is idle in both directions, and nothing else."""

import threading
import time

INI = """
[listener raw]
bind = @raw
mode = tcp
upstream = app
send_buffer = 16k
[listener wide]
bind = @wide
mode = tcp
upstream = wide
[listener patient]
bind = @patient
mode = tcp
upstream = patient
[listener stopping]
bind = @stopping
mode = tcp
upstream = stopping
[listener echo]
bind = @echo
mode = tcp
service = back
[upstream app]
server = @origin
timeout_tunnel = 1s
[upstream wide]
server = @origin
timeout_tunnel = 1500ms
[upstream patient]
server = @origin
timeout_tunnel = 2500ms
[upstream stopping]
server = @origin
timeout_tunnel = 1500ms
[service back]
type = echo
[defaults]
timeout_tunnel = 1s
timeout_client = 700ms
timeout_server = 700ms
timeout_request = 700ms
timeout_keepalive = 700ms
"""


def pair(stage, name="raw", **how):
    client = stage.connect(name, **how)
    upstream = stage.origin.accept()
    client.send(b"c")
    upstream.expect(b"c")
    return client, upstream


def test_an_idle_pair_is_reset(stage):
    """Other timeouts do not matter, though they are shorter."""
    ends = stage.relays_ended("tunnel_timeout")
    started = time.monotonic()
    client, upstream = pair(stage)
    client.expect_reset()
    upstream.expect_reset()
    assert time.monotonic() - started >= 0.95
    ends.grows()


def test_a_connection_on_which_nothing_was_ever_sent(stage):
    client = stage.connect("raw")
    upstream = stage.origin.accept()
    client.expect_reset()
    upstream.expect_reset()


def test_one_direction_keeps_both_alive(stage):
    client, upstream = pair(stage)
    for number in range(12):
        time.sleep(0.1)  # the server's pace
        upstream.send(b"%d" % (number % 10))
        client.expect(b"%d" % (number % 10))
    client.send(b"after 1.2 s of silence")
    upstream.expect(b"after 1.2 s of silence")
    for number in range(12):
        time.sleep(0.1)  # the client's pace
        client.send(b"%d" % (number % 10))
        upstream.expect(b"%d" % (number % 10))
    upstream.send(b"and the other way")
    client.expect(b"and the other way")


def test_a_half_closed_pair_goes_on_while_bytes_come(stage):
    client, upstream = pair(stage)
    client.half_close()
    upstream.expect_close()
    for _ in range(12):
        time.sleep(0.1)  # the server's pace
        upstream.send(b"x")
        client.expect(b"x")
    upstream.close()
    client.expect_close()


def test_a_half_closed_pair_that_falls_silent_is_reset(stage):
    client, upstream = pair(stage)
    client.half_close()
    upstream.expect_close()
    client.expect_reset()


def test_a_slow_reader_is_not_idle(stage):
    """Every read takes some of weir's queue; weir reads on only once that is half empty, which
    takes longer than the timeout."""
    client, upstream = pair(stage, recv_buffer=4096)
    data = bytes(range(256)) * 65536
    sender = threading.Thread(target=upstream.send, args=(data,), daemon=True)
    sender.start()
    got = b""
    for _ in range(25):
        time.sleep(0.1)  # the client's pace
        got += client.sock.recv(3000)
    assert sender.is_alive(), "all of it went at once: the reader was not slow"
    assert got + client.read_exactly(len(data) - len(got)) == data
    sender.join()


def test_a_slow_reader_of_the_last_bytes_is_not_idle(stage):
    """The server has said all it has to say and waits; what is left in weir's queue is too little
    to pause it. Only the client's side moves."""
    client = stage.connect("raw", recv_buffer=4096)
    upstream = stage.origin.accept()
    sent, stuck_since = 0, None
    while not stuck_since or time.monotonic() - stuck_since < 0.4:
        if stage.count("weir_memory_used_bytes", pool="send_queue") == 0:
            upstream.send(b"z" * 8000)
            sent += 8000
            stuck_since = time.monotonic()
    upstream.send(b"z" * 40000)
    sent += 40000
    got = b""
    for _ in range(15):
        time.sleep(0.1)  # the client's pace
        got += client.sock.recv(2500)
    got += client.read_exactly(sent - len(got))
    assert got == b"z" * sent
    upstream.send(b"and on")
    client.expect(b"and on")


def test_a_slow_reader_of_what_the_kernel_holds_is_not_idle(stage):
    """weir has given all of it to the kernel; the client takes longer than the timeout."""
    client = stage.connect("wide", recv_buffer=4096)
    upstream = stage.origin.accept()
    got, sent = stage.counter("weir_tunnel_bytes_total", direction="to_client"), 40000
    upstream.send(b"z" * sent)
    got.grows(sent)
    assert stage.count("weir_memory_used_bytes", pool="send_queue") == 0
    taken = b""
    while len(taken) < sent:
        time.sleep(0.05)  # the client's pace
        taken += client.sock.recv(1000)
    assert taken == b"z" * sent
    upstream.send(b"and on")
    client.expect(b"and on")


def given_to_the_kernel(stage, name):
    """A pair of which the client has yet to read what weir has no more: (client, upstream)."""
    client = stage.connect(name, recv_buffer=4096)
    upstream = stage.origin.accept()
    got = stage.counter("weir_tunnel_bytes_total", direction="to_client")
    upstream.send(b"z" * 40000)
    got.grows(40000)
    return client, upstream


def test_what_was_read_last_counts_though_nothing_is_left(stage):
    """The kernel has sent all of it when weir looks."""
    client, upstream = given_to_the_kernel(stage, "patient")
    time.sleep(1.6)  # the client's pause, within timeout_tunnel of 2.5 s
    client.expect(b"z" * 40000)
    time.sleep(1.6)  # and again
    upstream.send(b"and on")
    client.expect(b"and on")


def test_who_has_stopped_reading_is_idle_from_then_on(stage):
    """Not from when weir has looked: that would be twice 1.5 s, and behind a pair with 2.5 s."""
    client, upstream = given_to_the_kernel(stage, "stopping")
    other = pair(stage, "patient")
    client.expect(b"z" * 8000)
    upstream.expect_reset()
    other[0].send(b"still here")
    other[1].expect(b"still here")
    other[0].reset()
    client.expect_end()


def test_a_reader_that_leaves_it_to_the_kernel_is_idle(stage):
    ends = stage.relays_ended("tunnel_timeout")
    client = stage.connect("wide", recv_buffer=4096)
    upstream = stage.origin.accept()
    upstream.send(b"z" * 40000)
    upstream.expect_reset()
    client.expect_reset()
    ends.grows()


def test_a_reader_that_stops_is_idle(stage):
    ends = stage.relays_ended("tunnel_timeout")
    client, upstream = pair(stage, recv_buffer=4096)
    upstream.send_until_stuck(b"x" * 1000000)
    upstream.expect_reset()
    client.expect_reset()
    ends.grows()


def test_an_idle_echo_is_reset(stage):
    client = stage.connect("echo")
    for _ in range(12):
        time.sleep(0.1)  # the client's pace
        started = time.monotonic()
        client.send(b"x")
        client.expect(b"x")
    client.expect_reset()
    assert time.monotonic() - started >= 0.95
