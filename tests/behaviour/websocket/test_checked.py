"""websocket = checked: frames pass as they are, and what breaks a rule closes both sides."""

import pytest

from harness.http1 import answer
from harness.websocket import (BINARY, CLOSE, CONTINUATION, KEY, MASK, PING, PONG, TEXT, close,
                               expect_close, frame, open_tunnel, read_frame, switch, upgrade)

INI = """
[listener web]
bind = @web
upstream = app
websocket = checked
websocket_max_message = 1000
[listener raw]
bind = @raw
upstream = app
[route off]
path = /off
upstream = app
websocket = off
[route raw]
path = /raw
upstream = app
websocket = raw
[route large]
path = /large
upstream = app
websocket = checked
websocket_max_message = 0
[upstream app]
server = @origin
"""


@pytest.fixture
def tunnel(client, origin):
    """(client, upstream), switched."""
    return open_tunnel(client, origin)


def test_frames_pass_both_ways_as_they_are(stage, tunnel):
    client, upstream = tunnel
    from_client = (frame(TEXT, "H\u00e4ll\u00f6".encode(), MASK) + frame(PING, b"p", MASK) +
                   frame(BINARY, b"\xff" * 500, MASK, fin=False) + frame(PONG, b"", MASK) +
                   frame(CONTINUATION, b"\xfe" * 500, MASK))
    from_server = (frame(TEXT, b"") + frame(BINARY, b"\x00" * 1000) + frame(PING, b"p" * 125) +
                   frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"\xac"))
    for _ in range(3):
        client.send(from_client)
        upstream.expect(from_client)
        upstream.send(from_server)
        client.expect(from_server)


def test_frames_pass_byte_by_byte(stage, tunnel):
    client, upstream = tunnel
    data = (frame(TEXT, "\u20ac".encode(), MASK) + frame(PING, b"abc", MASK) +
            frame(BINARY, b"x" * 200, MASK))
    client.send_each_byte(data)
    upstream.expect(data)
    data = frame(TEXT, "\u20ac".encode()) + frame(PONG, b"abc") + frame(BINARY, b"y" * 200)
    upstream.send_each_byte(data)
    client.expect(data)


def test_a_piece_of_a_frame_passes_at_once(stage, tunnel):
    """Only headers and control frames are held until they are whole."""
    client, upstream = tunnel
    whole = frame(BINARY, b"abcdef")
    upstream.send(whole[:3])
    client.expect(whole[:3])
    upstream.send(whole[3:])
    client.expect(whole[3:])


def test_megabytes_of_messages_pass(stage, client, origin):
    client, upstream = open_tunnel(client, origin, "/large")
    message = frame(BINARY, bytes(range(256)) * 8192)
    for _ in range(3):
        upstream.send(message)
        client.expect(message)
    message = frame(TEXT, b"x" * 300000, MASK)
    for _ in range(3):
        client.send(message)
        upstream.expect(message)


def test_a_slow_reader_stops_the_sender(stage, client, origin):
    client, upstream = open_tunnel(client, origin, "/large")
    resident = stage.weir.rss_bytes()
    message = frame(BINARY, b"x" * 1000000)
    head = len(message) - 1000000
    assert upstream.send_until_stuck(message) < 40 << 20
    assert stage.weir.rss_bytes() - resident < 16 << 20
    assert client.read_exactly(head + 500000) == message[:head + 500000]


BROKEN = {
    "reserved bit": frame(TEXT, b"x", MASK, rsv=4),
    "unknown opcode": frame(3, b"x", MASK),
    "unknown control": frame(11, b"x", MASK),
    "not masked": frame(TEXT, b"x"),
    "continues nothing": frame(CONTINUATION, b"x", MASK),
    "long control": frame(PING, b"x" * 126, MASK),
    "cut control": frame(PING, b"x", MASK, fin=False),
    "length in too many bytes": b"\x82\xfe\x00\x05" + MASK + b"xxxxx",
    "close of one byte": frame(CLOSE, b"\x03", MASK),
    "close with a reserved code": close(1005, mask=MASK),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_violation_closes_both_sides(stage, tunnel, name):
    client, upstream = tunnel
    ends = stage.ended("websocket_protocol")
    good = frame(TEXT, b"good", MASK)
    client.send(good + BROKEN[name])
    upstream.expect(good)
    expect_close(upstream, 1001, is_masked=True)
    upstream.expect_close()
    expect_close(client, 1002, is_masked=False)
    client.expect_close()
    ends.grows()


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "not masked"])
def test_a_violation_that_comes_byte_by_byte_is_the_same(stage, tunnel, name):
    client, upstream = tunnel
    good = frame(TEXT, b"good", MASK)
    try:
        client.send_each_byte(good + BROKEN[name])
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has been closed before the last byte
    upstream.expect(good)
    expect_close(upstream, 1001, is_masked=True)
    upstream.expect_close()
    expect_close(client, 1002, is_masked=False)


def test_a_violation_of_the_server_closes_both_sides(stage, tunnel):
    client, upstream = tunnel
    ends = stage.ended("websocket_protocol")
    upstream.send(frame(TEXT, b"good") + frame(TEXT, b"masked", MASK))
    client.expect(frame(TEXT, b"good"))
    expect_close(client, 1001, is_masked=False)
    client.expect_close()
    expect_close(upstream, 1002, is_masked=True)
    upstream.expect_close()
    ends.grows()


def test_text_that_is_not_utf8_closes_both_sides(stage, tunnel):
    client, upstream = tunnel
    ends = stage.ended("websocket_bad_text")
    client.send(frame(TEXT, b"fine \xed\xa0\x80", MASK))
    expect_close(client, 1007, is_masked=False)
    client.expect_close()
    expect_close(upstream, 1001, is_masked=True)
    upstream.expect_close()
    ends.grows()


def test_a_frame_cut_short_is_followed_by_no_other(stage, tunnel):
    """Some of the text has passed when its bad byte comes: no Close can stand there."""
    client, upstream = tunnel
    whole = frame(TEXT, b"fine\xff", MASK)
    client.send(whole[:-1])
    upstream.expect(whole[:-1])
    client.send(whole[-1:])
    expect_close(client, 1007, is_masked=False)
    upstream.expect_reset()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_message_over_the_limit_closes_both_sides(stage, tunnel, parts):
    client, upstream = tunnel
    ends = stage.ended("websocket_too_large")
    size = 1000 // parts
    for i in range(parts):
        piece = frame(CONTINUATION if i else BINARY, b"x" * size, MASK, fin=i == parts - 1)
        client.send(piece)
        upstream.expect(piece)
    client.send(frame(BINARY, b"x" * 500, MASK, fin=False))
    upstream.expect(frame(BINARY, b"x" * 500, MASK, fin=False))
    client.send(frame(CONTINUATION, b"x" * 501, MASK))
    expect_close(client, 1009, is_masked=False)
    client.expect_close()
    expect_close(upstream, 1001, is_masked=True)
    upstream.expect_close()
    ends.grows()


def test_a_close_goes_through_and_ends_it(stage, tunnel):
    client, upstream = tunnel
    client.send(close(4000, b"bye", MASK))
    upstream.expect(close(4000, b"bye", MASK))
    upstream.send(frame(TEXT, b"last") + close(4000, b"bye"))
    client.expect(frame(TEXT, b"last") + close(4000, b"bye"))
    client.expect_close()
    upstream.expect_close()


def test_nothing_passes_behind_a_close(stage, tunnel):
    client, upstream = tunnel
    client.send(close(1000, mask=MASK) + frame(TEXT, b"too late", MASK) + b"\xff\xff\xff")
    upstream.expect(close(1000, mask=MASK))
    upstream.send(close(1000))
    client.expect(close(1000))
    upstream.expect_close()


def test_an_end_without_a_close_is_passed_on(stage, tunnel):
    client, upstream = tunnel
    client.half_close()
    upstream.expect_close()
    upstream.send(frame(TEXT, b"answer"))
    client.expect(frame(TEXT, b"answer"))
    upstream.close()
    client.expect_close()


def test_a_reset_is_told_by_a_close(stage, tunnel):
    client, upstream = tunnel
    ends = stage.ended("client_reset")
    client.send(frame(TEXT, b"x", MASK))
    upstream.expect(frame(TEXT, b"x", MASK))
    client.reset()
    expect_close(upstream, 1001, is_masked=True)
    upstream.expect_close()
    ends.grows()


def test_frames_right_behind_the_handshake_are_checked(stage, client, origin):
    upstream = origin.asked_by(client, upgrade() + frame(TEXT, b"early", MASK))
    upstream.send(switch() + frame(TEXT, b"too"))
    upstream.expect(frame(TEXT, b"early", MASK))
    assert client.read_response().status == 101
    client.expect(frame(TEXT, b"too"))


def test_a_violation_right_behind_the_handshake_is_one(stage, client, origin):
    upstream = origin.asked_by(client, upgrade())
    upstream.send(switch() + frame(TEXT, b"x", rsv=1))
    assert client.read_response().status == 101
    expect_close(client, 1001, is_masked=False)
    expect_close(upstream, 1002, is_masked=True)


def test_extensions_are_not_offered(stage, client, origin):
    client.send(upgrade("/ws", "Sec-WebSocket-Extensions: permessage-deflate"))
    upstream = origin.next()
    assert "Sec-WebSocket-Extensions" not in upstream.read_request()
    upstream.send(answer(403, b"no"))
    assert client.read_response().status == 403


def test_an_extension_that_was_not_offered_is_502(stage, client, origin):
    """The client has offered it, and would believe the answer."""
    client.send(upgrade("/ws", "Sec-WebSocket-Extensions: permessage-deflate"))
    upstream = origin.asked()
    upstream.send(switch(KEY, "Sec-WebSocket-Extensions: permessage-deflate"))
    got = client.read_response()
    assert (got.status, got.reason) == (502, "bad_response")
    upstream.expect_end()


def test_raw_tunnels_carry_anything(stage, client, origin):
    client.send(upgrade("/raw", "Sec-WebSocket-Extensions: permessage-deflate"))
    upstream = origin.next()
    assert upstream.read_request()["Sec-WebSocket-Extensions"] == "permessage-deflate"
    upstream.send(switch())
    assert client.read_response().status == 101
    for data in BROKEN.values():
        client.send(data)
        upstream.expect(data)


def test_websocket_off_refuses(stage, client):
    ends = stage.ended("websocket_refused")
    got = client.ask(upgrade("/off"))
    assert (got.status, got.reason) == (403, "websocket_refused")
    ends.grows()


def test_other_upgrades_are_not_checked(stage, client, origin):
    upstream = origin.asked_by(client, upgrade().replace(b"Upgrade: websocket", b"Upgrade: chat"))
    upstream.send(switch().replace(b"Upgrade: websocket", b"Upgrade: chat"))
    assert client.read_response().status == 101
    client.send(b"anything")
    upstream.expect(b"anything")


def test_websockets_are_counted_while_they_stand(stage, client, origin):
    stage.weir.eventually_metric(0, "weir_websocket_connections")
    open_tunnel(client, origin)
    stage.weir.eventually_metric(1, "weir_websocket_connections")
    other, _ = open_tunnel(stage.connect("raw"), origin)
    stage.weir.eventually_metric(2, "weir_websocket_connections")
    other.reset()
    stage.weir.eventually_metric(1, "weir_websocket_connections")


def test_the_last_frames_are_read(stage, tunnel):
    """A frame that ends a buffer needs no other one to be let go."""
    client, upstream = tunnel
    client.send(frame(PING, b"", MASK))
    assert read_frame(upstream) == (PING, b"", True)
    upstream.send(frame(PONG, b""))
    assert read_frame(client) == (PONG, b"", False)
