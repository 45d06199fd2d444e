"""mode = tcp: a FIN arrives as FIN and ends one direction, a RST arrives as RST and ends both."""

import errno
import socket
import time

import pytest

from harness.bulk import Stopped
from harness.wait import eventually

INI = """
[listener raw]
bind = @raw
mode = tcp
upstream = app
[listener late]
bind = @late
mode = tcp
upstream = late
[listener hole]
bind = @to_hole
mode = tcp
upstream = hole
[listener patient]
bind = @patient
mode = tcp
upstream = patient
[listener unix]
bind = @unix
mode = tcp
upstream = unix
[listener queued]
bind = @queued
mode = tcp
upstream = one
[upstream app]
server = @origin
[upstream one]
server = @origin max_connections=1
timeout_queue = 60s
[upstream late]
balance = first
server = @hole
server = @origin
timeout_connect = 900ms
[upstream hole]
server = @hole
timeout_connect = 60s
[upstream patient]
server = @hole
timeout_connect = 2s
[upstream unix]
server = @originunix
"""

BULK = bytes(range(256)) * 1000


def pair(stage, front="raw", origin="origin"):
    """Connected through: a byte has gone both ways."""
    client = stage.connect(front)
    upstream = stage.origins[origin].accept()
    client.send(b"c")
    upstream.expect(b"c")
    upstream.send(b"u")
    client.expect(b"u")
    return client, upstream


@pytest.mark.parametrize("front, origin", [("raw", "origin"), ("unix", "originunix")])
def test_client_half_close_leaves_the_other_direction(stage, front, origin):
    client, upstream = pair(stage, front, origin)
    ends = stage.relays_ended("none")
    client.send(b"last words")
    client.half_close()
    upstream.expect(b"last words")
    upstream.expect_close()
    for _ in range(3):
        upstream.send(BULK)
        client.expect(BULK)
    upstream.half_close()
    client.expect_close()
    ends.grows()


@pytest.mark.parametrize("front, origin", [("raw", "origin"), ("unix", "originunix")])
def test_server_half_close_leaves_the_other_direction(stage, front, origin):
    client, upstream = pair(stage, front, origin)
    ends = stage.relays_ended("none")
    upstream.send(b"last words")
    upstream.half_close()
    client.expect(b"last words")
    client.expect_close()
    for _ in range(3):
        client.send(BULK)
        upstream.expect(BULK)
    client.half_close()
    upstream.expect_close()
    ends.grows()


def test_both_may_half_close_at_once(stage):
    client, upstream = pair(stage)
    client.send(b"a")
    upstream.send(b"b")
    client.half_close()
    upstream.half_close()
    client.expect(b"b")
    upstream.expect(b"a")
    client.expect_close()
    upstream.expect_close()


def test_what_a_server_sent_before_both_ended_is_not_lost(stage):
    client = stage.connect("raw", recv_buffer=4096)
    upstream = stage.origin.accept()
    client.half_close()
    upstream.expect_close()
    upstream.send(BULK)
    upstream.close()
    assert client.read_to_end() == BULK


def test_a_reset_client_is_a_reset_for_the_server(stage):
    client, upstream = pair(stage)
    ends = stage.relays_ended("client_reset")
    client.reset()
    upstream.expect_reset()
    ends.grows()


def test_a_reset_server_is_a_reset_for_the_client(stage):
    client, upstream = pair(stage)
    ends = stage.relays_ended("server_reset")
    upstream.reset()
    client.expect_reset()
    ends.grows()


def test_a_reset_after_the_other_sides_fin(stage):
    client, upstream = pair(stage)
    client.half_close()
    upstream.expect_close()
    upstream.reset()
    client.expect_reset()
    client, upstream = pair(stage)
    upstream.half_close()
    client.expect_close()
    client.reset()
    upstream.expect_reset()


@pytest.mark.parametrize("front, origin", [("raw", "origin"), ("unix", "originunix")])
def test_a_reset_after_ones_own_fin(stage, front, origin):
    """Who has sent FIN is not read any more, and nothing is sent to it: it is watched."""
    reasons = ["client_reset", "server_reset"]
    for reason in reasons:
        ends = pair(stage, front, origin)
        first, other = ends if reason == "client_reset" else reversed(ends)
        counted = stage.relays_ended(reason)
        first.half_close()
        other.expect_close()
        if front == "unix":  # a reset there: the end of who has not read all
            other.send(b"x" * 100)
            eventually(lambda: len(first.sock.recv(1000, socket.MSG_PEEK)) == 100, "it arrived")
            first.close()
        else:
            first.reset()
        counted.grows()


def test_a_close_after_ones_own_fin_is_no_reset(stage):
    """It says nothing new: the server may still be reading."""
    for front, origin in (("raw", "origin"), ("unix", "originunix")):
        client, upstream = pair(stage, front, origin)
        ends = stage.relays_ended("client_reset")
        upstream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        client.send(BULK)
        client.half_close()
        client.close()
        time.sleep(1.5)  # the server is slow, and weir has had a look
        upstream.expect(BULK)
        upstream.expect_close()
        assert ends.grown() == 0


def test_a_reset_of_who_is_not_read_reaches_the_other_side(stage):
    """The server reads nothing, so nothing is read from the client either."""
    client, upstream = pair(stage)
    ends = stage.relays_ended("client_reset")
    client.send_until_stuck(b"x" * 1000000)
    client.reset()
    ends.grows()
    upstream.expect_reset()


def test_a_reset_after_ones_own_fin_shows_with_the_next_bytes(stage):
    """Before anybody has looked."""
    client, upstream = pair(stage)
    client.half_close()
    upstream.expect_close()
    client.reset()
    ends = stage.relays_ended("client_reset")
    upstream.send(b"anybody there?")
    ends.grows()
    # Having read the FIN, a socket says EPIPE where it would say ECONNRESET.
    eventually(lambda: upstream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE,
               "the server is reset")


def test_a_reset_behind_bytes_is_a_reset(stage):
    client, upstream = pair(stage)
    client.send(BULK)
    client.reset()
    upstream.expect_reset()


def test_a_reset_of_a_slow_reader_stops_the_server(stage):
    client = stage.connect("raw", recv_buffer=4096)
    upstream = stage.origin.accept()
    upstream.send_until_stuck(b"x" * 1000000)
    client.reset()
    upstream.expect_reset()


def test_a_close_with_unread_bytes_is_a_reset(stage):
    """Linux says RST when a process closes a socket it has not read to the end: so does weir."""
    client, upstream = pair(stage)
    upstream.send(b"x" * 1000)
    eventually(lambda: len(client.sock.recv(10000, socket.MSG_PEEK)) == 1000, "it arrived")
    client.close()
    upstream.expect_reset()


# Before there is a server.

def connecting(stage, count=1):
    stage.weir.eventually_metric(count, "weir_upstream_connections", state="connecting")


def test_what_a_client_sends_before_the_server_is_there_is_not_lost(stage):
    client = stage.connect("late")
    client.send(b"early bird ")
    connecting(stage)
    client.send(b"x" * 200000)
    upstream = stage.origin.accept()
    upstream.expect(b"early bird " + b"x" * 200000)
    upstream.send(b"heard")
    client.expect(b"heard")


def test_a_waiting_client_holds_one_buffer(stage):
    """The rest stays in the kernel, and the client is told to wait."""
    leased = stage.metrics().need("weir_uring_buffers", state="leased")
    client = stage.connect("patient")
    client.send_until_stuck(b"x" * 1000000)
    connecting(stage)
    assert stage.metrics().need("weir_uring_buffers", state="leased") <= leased + 1


def test_a_fin_before_the_server_is_there_follows_the_bytes(stage):
    with Stopped(stage.weir):
        client = stage.connect("late")
        client.send(b"one shot")
        client.half_close()
    upstream = stage.origin.accept()
    upstream.expect(b"one shot")
    upstream.expect_close()
    upstream.send(b"answer")
    upstream.close()
    client.expect(b"answer")
    client.expect_close()


def test_a_fin_alone_before_the_server_is_there(stage):
    client = stage.connect("late")
    client.half_close()
    upstream = stage.origin.accept()
    upstream.expect_close()
    upstream.send(b"banner")
    client.expect(b"banner")
    upstream.close()
    client.expect_close()


def test_a_reset_before_the_server_is_there_ends_the_connect(stage):
    ends = stage.relays_ended("client_reset")
    client = stage.connect("to_hole")
    connecting(stage)
    client.reset()
    connecting(stage, 0)  # long before timeout_connect
    ends.grows()
    assert stage.metrics().sum("weir_upstream_connections") == 0


@pytest.mark.parametrize("said", [b"hello", b""])
@pytest.mark.parametrize("fin", [False, True])
def test_a_reset_of_who_is_not_read_yet_ends_the_connect(stage, said, fin):
    """What it has said, and its FIN, wait for the server."""
    ends = stage.relays_ended("client_reset")
    client = stage.connect("to_hole")
    connecting(stage)
    client.send(said)
    if fin:
        client.half_close()
    stage.has_read()
    client.reset()
    connecting(stage, 0)  # long before timeout_connect
    ends.grows()


def test_a_reset_of_who_waits_in_the_queue_gives_up_its_place(stage):
    """It has said something, and is not read."""
    first = stage.connect("queued")
    upstream = stage.origin.accept()
    ends = stage.relays_ended("client_reset")
    client = stage.connect("queued")
    client.send(b"me too")
    stage.weir.eventually_metric(1, "weir_upstream_queue_length", upstream="one")
    stage.has_read()
    client.reset()
    stage.weir.eventually_metric(0, "weir_upstream_queue_length", upstream="one")
    ends.grows()
    first.send(b"still here")
    upstream.expect(b"still here")


def test_a_client_that_connects_and_leaves_at_once(stage):
    for _ in range(20):
        stage.connect("raw").close()
        stage.connect("raw").reset()

    def all_gone():
        while upstream := stage.origin.accept_now():
            upstream.expect_end()
            upstream.close()
        return stage.count("weir_listener_connections_active", listener="raw") == 0

    eventually(all_gone, "weir has let go of all of them")
