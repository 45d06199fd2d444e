"""Upgrade: after the origin's 101 weir only carries bytes (RFC 9110 section 7.8)."""

import pytest

from harness.http1 import answer, answer_head, get

INI = """
[listener web]
bind = @web
upstream = app
send_buffer = 16k
[listener slow]
bind = @slow
upstream = slow
[upstream app]
server = @origin
[upstream slow]
server = @originslow
"""

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCH = answer_head(101, "Connection: Upgrade", "Upgrade: websocket",
                     "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                     phrase="Switching Protocols")


def switch(client, origin):
    upstream = origin.asked_by(client, get("/ws", *UPGRADE))
    upstream.send(SWITCH)
    assert client.read_response().status == 101
    return client, upstream


@pytest.fixture
def tunnel(client, origin):
    """(client, upstream), switched."""
    return switch(client, origin)


def test_upgrade_is_handed_over(stage, client, origin):
    client.send(get("/ws", *UPGRADE))
    upstream = origin.next()
    seen = upstream.read_request()
    assert seen["Upgrade"] == "websocket" and "upgrade" in seen["Connection"].lower()
    assert seen["Sec-WebSocket-Key"] == "dGhlIHNhbXBsZSBub25jZQ=="
    upstream.send(SWITCH)
    got = client.read_response()
    assert (got.status, got["Upgrade"]) == (101, "websocket")
    assert "upgrade" in got["Connection"].lower()


@pytest.mark.parametrize("lines", [
    ("Upgrade: h2c",),
    ("Upgrade: chat, h2c",),
    ("Upgrade: h2c ,chat",),
    ("Upgrade: chat", "Upgrade: h2c"),
    ("Upgrade: websocket, chat",),
    ("Upgrade: ,websocket",),
], ids=repr)
def test_what_several_readers_could_choose_from_is_no_upgrade(stage, client, origin, lines):
    """A server that takes one of them would carry what no route has judged."""
    client.send(get("/ws", "Connection: Upgrade", *lines, *UPGRADE[2:]))
    upstream = origin.next()
    seen = upstream.read_request()
    assert seen["Upgrade"] is None and seen["Connection"] is None
    upstream.send(answer(200, b"plain"))
    assert client.read_response().body == b"plain"


@pytest.mark.parametrize("chosen", ["h2c", "chat", "websocket, chat"])
def test_a_server_that_changes_to_something_else_is_502(stage, client, origin, chosen):
    upstream = origin.asked_by(client, get("/ws", *UPGRADE))
    upstream.send(SWITCH.replace(b"Upgrade: websocket", b"Upgrade: " + chosen.encode()))
    got = client.read_response()
    assert (got.status, got.reason) == (502, "bad_response")
    upstream.expect_end()


def test_bytes_pass_both_ways_untouched(stage, tunnel):
    client, upstream = tunnel
    for data in (b"\x00\xff\r\n\r\n", get("/not-a-request"), answer(200, b"not an answer"),
                 b"0\r\n\r\n"):
        client.send(data)
        upstream.expect(data)
        upstream.send(data)
        client.expect(data)


def test_megabytes_pass_both_ways(stage, tunnel):
    client, upstream = tunnel
    data = bytes(range(256)) * 2000
    for _ in range(3):
        client.send(data)
        upstream.expect(data)
        upstream.send(data)
        client.expect(data)


def test_bytes_right_behind_the_101_are_not_lost(stage, client, origin):
    upstream = origin.asked_by(client, get("/ws", *UPGRADE))
    upstream.send(SWITCH + b"server speaks first")
    assert client.read_response().status == 101
    client.expect(b"server speaks first")


def test_bytes_right_behind_the_request_go_into_the_tunnel(stage, client, origin):
    upstream = origin.asked_by(client, get("/ws", *UPGRADE) + b"client could not wait")
    upstream.send(SWITCH)
    assert client.read_response().status == 101
    upstream.expect(b"client could not wait")


def test_client_half_close_leaves_the_other_direction(stage, tunnel):
    client, upstream = tunnel
    client.send(b"last words")
    client.half_close()
    upstream.expect(b"last words")
    upstream.expect_close()
    upstream.send(b"answer to them")
    client.expect(b"answer to them")
    upstream.close()
    client.expect_close()


def test_origin_half_close_leaves_the_other_direction(stage, tunnel):
    client, upstream = tunnel
    upstream.send(b"last words")
    upstream.half_close()
    client.expect(b"last words")
    client.expect_close()
    client.send(b"answer to them")
    upstream.expect(b"answer to them")
    client.close()
    upstream.expect_close()


def test_what_the_origin_sent_before_both_ended_is_not_lost(stage, origin):
    client, upstream = switch(stage.connect(recv_buffer=4096), origin)
    client.half_close()
    upstream.expect_close()
    data = bytes(range(256)) * 1000
    upstream.send(data)
    upstream.close()
    assert client.read_to_end() == data


def test_what_the_client_sent_before_both_ended_is_not_lost(stage):
    client, upstream = switch(stage.connect("slow"), stage.origins["originslow"])
    upstream.half_close()
    client.expect_close()
    before = stage.count("weir_tunnel_bytes_total", direction="to_upstream")
    data = bytes(range(256)) * 1000
    client.send(data)
    client.close()
    # Read slowly until weir has both ends, and bytes that it still owes.
    while stage.count("weir_tunnel_bytes_total", direction="to_upstream") < before + len(data):
        upstream.fill()
    assert upstream.read_to_end() == data


def test_client_reset_ends_the_tunnel(stage, tunnel):
    client, upstream = tunnel
    client.reset()
    upstream.expect_end()


def test_origin_reset_ends_the_tunnel(stage, tunnel):
    client, upstream = tunnel
    upstream.reset()
    client.expect_end()


def test_slow_tunnel_reader_stops_the_sender(stage, tunnel):
    client, upstream = tunnel
    resident = stage.weir.rss_bytes()
    assert upstream.send_until_stuck(b"x" * 1000000) < 40 << 20
    assert stage.weir.rss_bytes() - resident < 16 << 20
    assert client.read_exactly(1 << 20) == b"x" * (1 << 20)


def test_refused_upgrade_is_an_ordinary_answer(stage, client, origin):
    upstream = origin.asked_by(client, get("/ws", *UPGRADE))
    upstream.send(answer(403, b"no"))
    assert client.read_response().body == b"no"
    _, got = stage.exchange(get("/next"), answer(200, b"next"), client)
    assert got.body == b"next"


def test_request_behind_a_refused_upgrade_is_a_request(stage, client, origin):
    upstream = origin.asked_by(client, get("/ws", *UPGRADE) + get("/next"))
    upstream.send(answer(200, b"ignored the upgrade"))
    assert client.read_response().body == b"ignored the upgrade"
    upstream = origin.next()
    assert upstream.read_request().target == "/next"
    upstream.send(answer(200, b"next"))
    assert client.read_response().body == b"next"


def test_interim_answers_may_come_before_the_101(stage, client, origin):
    upstream = origin.asked_by(client, get("/ws", *UPGRADE))
    upstream.send(answer_head(103, "Link: </a>") + SWITCH + b"data")
    assert client.read_response().status == 103
    assert client.read_response().status == 101
    client.expect(b"data")


def test_http_1_0_cannot_upgrade(stage):
    """RFC 9110 section 7.8: ignored in HTTP/1.0."""
    request = get("/ws", *UPGRADE, version="1.0")
    seen, _ = stage.exchange(request, answer(200, b"plain"))
    assert "Upgrade" not in seen


def test_tunnel_bytes_are_counted(stage, tunnel):
    client, upstream = tunnel
    to_upstream = stage.counter("weir_tunnel_bytes_total", direction="to_upstream")
    to_client = stage.counter("weir_tunnel_bytes_total", direction="to_client")
    client.send(b"x" * 100)
    upstream.expect(b"x" * 100)
    upstream.send(b"y" * 70)
    client.expect(b"y" * 70)
    to_upstream.grows(100)
    to_client.grows(70)
