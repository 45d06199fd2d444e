"""What is refused over HTTP/2: how it is told and counted, and that no server sees it."""

import struct

import pytest

from harness.h2_client import (ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS,
                               FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, PADDED, PING,
                               PREFACE, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM,
                               SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, H2Client, pack, settings)
from harness.http1 import answer
from harness.stage import HELLO_SERVICE, WEB

INI = WEB + HELLO_SERVICE + """
[defaults]
max_header_size = 4k
max_headers = 20
max_target = 1k
max_body_size = 100k
h2_max_made_resets = 0
"""

GET, SCHEME, PATH, AUTHORITY = ((":method", "GET"), (":scheme", "http"), (":path", "/"),
                                (":authority", "a.example"))
GOOD = [GET, SCHEME, PATH, AUTHORITY]


@pytest.fixture
def h2(stage):
    return H2Client(stage.connect())


def refused(stage, h2, fields, reason, end=True):
    """RST_STREAM, the reason counted, nothing forwarded, and the connection is well."""
    counted = stage.counter("weir_http_parse_errors_total", reason=reason)
    h2.headers(1, fields, end)
    h2.expect_reset(1, PROTOCOL_ERROR)
    assert h2.on(1).fields is None
    assert counted.grown() == 1
    h2.get(3, "/hello")
    assert h2.answer(3).body == b"hello"
    assert stage.origin.saw_nothing()


@pytest.mark.parametrize("fields", [
    [SCHEME, PATH, AUTHORITY],
    [GET, PATH, AUTHORITY],
    [GET, SCHEME, AUTHORITY],
    [*GOOD, GET],
    [GET, GET, SCHEME, PATH, AUTHORITY],
    [GET, SCHEME, PATH, PATH, AUTHORITY],
    [*GOOD, ("x", "1"), (":authority", "b")],
    [GET, SCHEME, ("x", "1"), PATH, AUTHORITY],
    [*GOOD, (":status", "200")],
    [*GOOD, (":unknown", "x")],
    [*GOOD, (":", "x")],
    [*GOOD, (":protocol", "websocket")],
    [(":method", "CONNECT"), SCHEME, PATH, AUTHORITY],
    [(":method", "CONNECT"), (":protocol", "h2c"), SCHEME, PATH, AUTHORITY],
    [(":method", "CONNECT"), (":protocol", "a b"), SCHEME, PATH, AUTHORITY],
    [(":method", "CONNECT")],
])
def test_pseudo_fields_out_of_place(stage, h2, fields):
    refused(stage, h2, fields, "bad_pseudo_field")


@pytest.mark.parametrize("name, value", [
    ("connection", "close"), ("connection", "x-a"), ("keep-alive", "5"), ("proxy-connection", "x"),
    ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("te", "gzip"),
    ("te", "trailers, gzip"),
])
def test_connection_fields_over_h2(stage, h2, name, value):
    refused(stage, h2, [*GOOD, (name, value)], "bad_connection_field")


@pytest.mark.parametrize("name", ["Accept", "x y", "x:", "", "x\r", "x\n", "x\0", "x\x7f", "\xe4",
                                  "x(", "HOST"])
def test_bad_names_over_h2(stage, h2, name):
    refused(stage, h2, [*GOOD, (name.encode("latin-1"), "v")], "bad_field_name")


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0b", "a\rb", " a", "a ", "\ta", "\x7f",
                                   "\x01"])
def test_bad_values_over_h2(stage, h2, value):
    refused(stage, h2, [*GOOD, ("x", value)], "bad_field_value")


@pytest.mark.parametrize("path", ["", "x", "*", "/a b", "/a#b", "/\xe4", "http://a.example/"])
def test_bad_paths_over_h2(stage, h2, path):
    refused(stage, h2, [GET, SCHEME, (b":path", path.encode("latin-1")), AUTHORITY], "bad_target")


@pytest.mark.parametrize("value", ["/a\r\nX: y", "/a\0"])
def test_control_bytes_in_a_path(stage, h2, value):
    refused(stage, h2, [GET, SCHEME, (":path", value), AUTHORITY], "bad_field_value")


def test_other_schemes(stage, h2):
    refused(stage, h2, [GET, (":scheme", "ftp"), PATH, AUTHORITY], "bad_target")


def test_connect_needs_a_port(stage, h2):
    refused(stage, h2, [(":method", "CONNECT"), AUTHORITY], "bad_target", end=False)


@pytest.mark.parametrize("method", ["G T", "", "GET/"])
def test_methods_that_are_no_tokens(stage, h2, method):
    refused(stage, h2, [(":method", method), SCHEME, PATH, AUTHORITY], "bad_request_line")


@pytest.mark.parametrize("fields", [
    [GET, SCHEME, PATH],
    [GET, SCHEME, PATH, (":authority", "")],
    [GET, SCHEME, PATH, (":authority", "user@a.example")],
    [GET, SCHEME, PATH, (":authority", "a/b")],
    [GET, SCHEME, PATH, ("host", "a b")],
    [*GOOD, ("host", "b.example")],
    [*GOOD, ("host", "a.example"), ("host", "a.example")],
])
def test_bad_authorities(stage, h2, fields):
    refused(stage, h2, fields, "bad_host")


def test_an_authority_and_the_same_host_pass(stage, h2):
    h2.headers(1, [*GOOD, ("host", "A.example")])
    upstream = stage.origin.next()
    assert upstream.read_request()["Host"] == "a.example"
    upstream.send(answer(200))
    h2.answer(1)


@pytest.mark.parametrize("lengths", [["x"], ["-1"], ["+1"], ["1", "1"], ["1, 1"], [""],
                                     ["99999999999999999999"]])
def test_bad_lengths_over_h2(stage, h2, lengths):
    refused(stage, h2, [*GOOD, *(("content-length", length) for length in lengths)],
            "bad_content_length", end=False)


def test_a_body_of_another_length(stage, h2):
    refused(stage, h2, [*GOOD, ("content-length", "5")], "bad_body_length")
    for stream, body in ((5, b"1234"), (7, b"123456")):
        counted = stage.ended("bad_body_length")
        h2.request(stream, "POST", "/", ("content-length", "5"), end=False)
        upstream = stage.origin.asked(whole=False)
        h2.data(stream, body, end=True)
        h2.expect_reset(stream, PROTOCOL_ERROR)
        assert h2.on(stream).fields is None
        upstream.expect_end()
        counted.grows()


def test_trailers_end_short_of_the_length(stage, h2):
    h2.request(1, "POST", "/", ("content-length", "5"), end=False)
    upstream = stage.origin.asked(whole=False)
    h2.data(1, b"1234")
    h2.headers(1, [("x", "1")])
    h2.expect_reset(1, PROTOCOL_ERROR)
    upstream.expect_end()


@pytest.mark.parametrize("fields, end", [
    ([("x", "1")], False), ([(":path", "/")], True), ([("Upper", "x")], True),
    ([("connection", "x")], True), ([("x", "a\nb")], True)])
def test_bad_trailers(stage, h2, fields, end):
    h2.request(1, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    h2.headers(1, fields, end)
    h2.expect_reset(1, PROTOCOL_ERROR)
    upstream.expect_end()
    h2.get(3, "/hello")
    assert h2.answer(3).status == 200


@pytest.mark.parametrize("path, fields, status, reason", [
    ("/", [("x", "y" * 5000)], 431, "head_too_large"),
    ("/", [(f"x{n}", "y") for n in range(21)], 431, "too_many_fields"),
    ("/", [("cookie", f"c{n}=1") for n in range(21)], 431, "too_many_fields"),
    ("/" + "x" * 1024, [], 414, "target_too_long"),
    ("/", [("content-length", str(100 * 1024 + 1))], 413, "body_too_large"),
])
def test_what_is_too_much_is_answered(stage, h2, path, fields, status, reason):
    counted = stage.counter("weir_http_parse_errors_total", reason=reason)
    h2.request(1, "GET", path, *fields, end=reason != "body_too_large")
    got = h2.answer(1)
    assert (got.status, got.reason) == (status, reason)
    assert got["content-length"] == str(len(got.body)) and got["date"]
    assert counted.grown() == 1
    if reason == "body_too_large":
        h2.expect_reset(1, 0)
    h2.get(3, "/hello")
    assert h2.answer(3).status == 200
    assert stage.origin.saw_nothing()


def test_limits_at_their_edge_pass(stage, h2):
    h2.request(1, "GET", "/" + "x" * 1023, *((f"x{n:02}", "y") for n in range(20)))
    upstream = stage.origin.next()
    assert len(upstream.read_request().target) == 1024
    upstream.send(answer(200))
    assert h2.answer(1).status == 200


def test_a_body_that_grows_too_large(stage, h2):
    h2.request(1, "POST", "/", end=False)
    upstream = stage.origin.asked(whole=False)
    h2.data(1, b"x" * 60_000)
    h2.data(1, b"x" * 60_000)
    got = h2.answer(1)
    assert (got.status, got.reason) == (413, "body_too_large")
    h2.expect_reset(1, 0)
    upstream.expect_end()


@pytest.mark.parametrize("sent, code", [
    (pack(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    (pack(DATA, 0, 5, b"x"), PROTOCOL_ERROR),
    (pack(HEADERS, END_HEADERS, 0, b"\x82"), PROTOCOL_ERROR),
    (pack(HEADERS, END_HEADERS, 2, b"\x82"), PROTOCOL_ERROR),
    (pack(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION_ERROR),
    (pack(HEADERS, END_HEADERS | PADDED, 1, b"\xff\x82"), PROTOCOL_ERROR),
    (pack(CONTINUATION, END_HEADERS, 1, b"\x82"), PROTOCOL_ERROR),
    (pack(HEADERS, 0, 1, b"\x82") + pack(PING, 0, 0, b"12345678"), PROTOCOL_ERROR),
    (pack(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x82"), PROTOCOL_ERROR),
    (pack(SETTINGS, 0, 1), PROTOCOL_ERROR),
    (pack(SETTINGS, 0, 0, b"12345"), FRAME_SIZE_ERROR),
    (pack(SETTINGS, ACK, 0, b"123456"), FRAME_SIZE_ERROR),
    (settings((4, 0x80000000)), FLOW_CONTROL_ERROR),
    (settings((5, 100)), PROTOCOL_ERROR),
    (pack(PING, 0, 0, b"1234567"), FRAME_SIZE_ERROR),
    (pack(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
    (pack(RST_STREAM, 0, 0, b"\0\0\0\1"), PROTOCOL_ERROR),
    (pack(RST_STREAM, 0, 9, b"\0\0\0\1"), PROTOCOL_ERROR),
    (pack(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), PROTOCOL_ERROR),
    (pack(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
    (pack(WINDOW_UPDATE, 0, 9, b"\0\0\0\1"), PROTOCOL_ERROR),
    (b"\x00\x40\x01" + bytes([DATA, 0]) + b"\0\0\0\1", FRAME_SIZE_ERROR),
    (pack(HEADERS, 0, 1, b"\x82") + b"\x00\x40\x01" + bytes([CONTINUATION, 0]) + b"\0\0\0\1",
     FRAME_SIZE_ERROR),
])
def test_a_broken_connection_gets_goaway(stage, h2, sent, code):
    h2.echo()
    h2.peer.send(sent)
    h2.expect_goaway(code)
    assert stage.origin.saw_nothing()


def test_a_broken_connection_ends_its_requests(stage, h2):
    counted = stage.ended("h2_protocol")
    h2.get(1)
    upstream = stage.origin.asked()
    h2.frame(PING, 0, 1, b"12345678")
    h2.expect_goaway(PROTOCOL_ERROR)
    upstream.expect_end()
    counted.grows()


def test_data_on_a_stream_that_has_ended(stage, h2):
    h2.get(1)
    upstream = stage.origin.asked()
    h2.frame(DATA, 0, 1, b"more")
    h2.expect_goaway(STREAM_CLOSED)
    upstream.expect_end()


def test_a_window_that_overflows(stage, h2):
    h2.request(1, "POST", "/", ("content-length", "100000"), end=False)
    upstream = stage.origin.asked(whole=False)
    h2.frame(DATA, 0, 1, b"x" * 16384)
    h2.frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff")
    h2.expect_reset(1, FLOW_CONTROL_ERROR)
    upstream.expect_end()
    h2.get(3, "/hello")
    assert h2.answer(3).status == 200


@pytest.mark.parametrize("sent", [
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", PREFACE + pack(PING, 0, 0, b"12345678"),
    PREFACE + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_a_preface_that_is_none(stage, sent):
    h2 = H2Client(stage.connect(), first=sent)
    h2.expect_goaway(PROTOCOL_ERROR)


def test_a_preface_with_another_version_is_http1s(stage):
    client = stage.connect()
    client.send(b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n")
    assert client.read_response().status == 505


def test_goaway_from_the_client_lets_its_requests_end(stage, h2):
    h2.get(1)
    upstream = stage.origin.asked()
    h2.frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0))
    h2.echo()
    upstream.send(answer(200, b"still"))
    assert h2.answer(1).body == b"still"
    h2.peer.expect_end()


def test_who_has_all_the_streams_it_may_have_lacks_no_memory(new_stage):
    """It is set aside for as many as h2_max_streams says."""
    stage = new_stage(INI.replace("[defaults]", "[defaults]\nh2_max_streams = 1"),
                      max_connections=1)
    counted = stage.counter("weir_http_parse_errors_total", reason="no_memory")
    h2 = H2Client(stage.connect())
    h2.get(1)
    h2.get(3)  # before it knows better
    h2.expect_reset(3, REFUSED_STREAM)
    upstream = stage.origin.asked()
    upstream.send(answer(200))
    assert h2.answer(1).status == 200
    assert counted.grown() == 0
