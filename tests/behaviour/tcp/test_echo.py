"""[service NAME] type = echo: every byte comes back, and the FIN behind the last of them."""

import threading

INI = """
[listener echo]
bind = @echo @port6 @unix
mode = tcp
service = back
[listener narrow]
bind = @narrow
mode = tcp
service = back
send_buffer = 16k
[service back]
type = echo
"""
GLOBAL = {"max_connections": 4000}

MANY = 2500


def test_every_byte_comes_back(stage):
    for name in ("echo", "port6", "unix"):
        client = stage.connect(name)
        for data in (b"x", b"\x00\xff\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 200):
            client.send(data)
            client.expect(data)


def test_bytes_one_by_one(stage):
    client = stage.connect("echo")
    for byte in range(256):
        client.send(bytes([byte]))
        client.expect(bytes([byte]))
    client.send_each_byte(bytes(range(256)))
    client.expect(bytes(range(256)))


def test_a_half_close_gets_the_rest_then_fin(stage):
    client = stage.connect("echo")
    data = bytes(range(256)) * 500
    client.send(data)
    client.half_close()
    assert client.read_to_end() == data


def test_a_half_close_alone_gets_fin(stage):
    client = stage.connect("echo")
    client.half_close()
    client.expect_close()


def test_megabytes_come_back_while_they_are_sent(stage):
    client = stage.connect("echo")
    data = bytes(range(256)) * 80000

    def send():
        client.send(data)
        client.half_close()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert client.read_to_end() == data
    sender.join()


def test_a_client_that_does_not_read_is_not_read(stage):
    client = stage.connect("echo", recv_buffer=4096)
    resident = stage.weir.rss_bytes()
    sent = client.send_until_stuck(b"z" * 1000000)
    assert sent < 40 << 20
    assert stage.weir.rss_bytes() - resident < 16 << 20
    client.half_close()
    client.widen()
    assert client.read_to_end() == b"z" * sent


def test_single_bytes_that_nobody_takes_hold_few_buffers(stage):
    """Each of them comes in a buffer of its own."""
    client = stage.connect("narrow", recv_buffer=4096)
    base = stage.count("weir_client_bytes_received_total")
    sent = 0
    while not sent or stage.count("weir_memory_used_bytes", pool="send_queue") == 0:
        client.send(b"q" * 8000)
        sent += 8000
        stage.weir.eventually_metric(lambda now: now >= base + sent,
                                     "weir_client_bytes_received_total")
    client.send(b"q" * 80000)
    client.send_each_byte(b"b" * 3000)
    stage.has_read()
    assert stage.count("weir_uring_buffers", state="leased") < 100
    client.half_close()
    client.widen()
    assert client.read_to_end() == b"q" * (sent + 80000) + b"b" * 3000


def test_a_reset_leaves_nothing(stage):
    client = stage.connect("echo", recv_buffer=4096)
    client.send_until_stuck(b"z" * 1000000)
    client.reset()
    stage.weir.eventually_metric(0, "weir_relay_slots_used")
    stage.weir.eventually_metric(0, "weir_memory_used_bytes", pool="echo")


def test_2500_connections_at_once(stage):
    clients = [stage.connect("echo") for _ in range(MANY)]
    stage.weir.eventually_metric(MANY, "weir_listener_connections_active", listener="echo")
    for turn in range(2):
        for number, client in enumerate(clients):
            client.send(b"%d of turn %d" % (number, turn))
        for number, client in enumerate(clients):
            client.expect(b"%d of turn %d" % (number, turn))
    each = stage.count("weir_memory_used_bytes", pool="echo") / MANY
    assert 0 < each <= 192
    for client in clients[::2]:
        client.half_close()
    for client in clients[::2]:
        client.expect_close()
    for number, client in enumerate(clients[1::2]):
        client.send(b"after %d" % number)
        client.expect(b"after %d" % number)


def test_ends_are_counted(stage):
    ends = stage.relays_ended("none")
    client = stage.connect("echo")
    client.send(b"x")
    client.expect(b"x")
    client.half_close()
    client.expect_close()
    ends.grows()
    assert stage.metrics().series("weir_http_requests_total", listener="echo") == []
