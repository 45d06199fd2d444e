"""SIGTERM: both ends of a checked WebSocket are told by a Close, and their answers waited for."""

from harness.websocket import (MASK, TEXT, close, expect_close, frame, open_tunnel, switch,
                               upgrade)

INI = """
[listener web]
bind = @web
upstream = app
websocket = checked
[upstream app]
server = @origin
"""


def test_both_ends_are_told_and_answer(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, upstream = open_tunnel(stage.connect(), stage.origin)
    stage.weir.drain()
    expect_close(client, 1001, is_masked=False)
    expect_close(upstream, 1001, is_masked=True)
    client.send(close(1001, mask=MASK))
    # The server's last words go nowhere any more: the client was told that none follow.
    upstream.send(frame(TEXT, b"late") + close(1001))
    client.expect_close()
    upstream.expect_close()
    client.close()
    upstream.close()
    stage.weir.drained()


def test_an_end_is_an_answer_too(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, upstream = open_tunnel(stage.connect(), stage.origin)
    stage.weir.drain()
    expect_close(client, 1001, is_masked=False)
    client.close()
    expect_close(upstream, 1001, is_masked=True)
    upstream.close()
    stage.weir.drained()


def test_a_frame_under_way_is_finished_first(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, upstream = open_tunnel(stage.connect(), stage.origin)
    whole = frame(TEXT, b"half and half")
    upstream.send(whole[:6])
    client.expect(whole[:6])
    stage.weir.drain()
    expect_close(upstream, 1001, is_masked=True)
    upstream.send(whole[6:])
    client.expect(whole[6:])
    expect_close(client, 1001, is_masked=False)
    client.send(close(1001, mask=MASK))
    upstream.send(close(1001))
    client.expect_close()
    client.close()
    upstream.close()
    stage.weir.drained()


def test_a_close_under_way_is_answered_by_its_other_end(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client, upstream = open_tunnel(stage.connect(), stage.origin)
    client.send(close(4321, mask=MASK))
    upstream.expect(close(4321, mask=MASK))
    stage.weir.drain()
    upstream.send(close(4321))
    client.expect(close(4321))
    client.expect_close()
    client.close()
    upstream.close()
    stage.weir.drained()


def test_who_does_not_answer_is_cut(new_stage):
    stage = new_stage(INI, drain_timeout="1s")
    client, upstream = open_tunnel(stage.connect(), stage.origin)
    stage.weir.drain()
    expect_close(client, 1001, is_masked=False)
    expect_close(upstream, 1001, is_masked=True)
    client.send(close(1001, mask=MASK))
    stage.weir.drained(cut=1)
    upstream.expect_end()


def test_a_handshake_under_way_is_told_at_once(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    client = stage.connect()
    upstream = stage.origin.asked_by(client, upgrade())
    stage.weir.drain()
    upstream.send(switch())
    assert client.read_response().status == 101
    expect_close(client, 1001, is_masked=False)
    expect_close(upstream, 1001, is_masked=True)
    client.send(close(1001, mask=MASK))
    upstream.send(close(1001))
    client.expect_close()
    client.close()
    upstream.close()
    stage.weir.drained()
