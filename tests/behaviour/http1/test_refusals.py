"""What the parser must not take: status and reason of the answer, nothing of it at the origin."""

import pytest

from harness.http1 import answer, get, post, post_chunked

INI = """
[defaults]
max_header_size = 4k
max_headers = 20
max_target = 1k
max_body_size = 10k
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin
"""


def claims(*cases):
    return pytest.mark.parametrize("raw", cases, ids=[repr(case)[2:50] for case in cases])


def head(*lines):
    """A head from raw lines, CRLF after each and at the end."""
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def with_line(*lines):
    return head(b"GET / HTTP/1.1", b"Host: test", *lines)


def refused(stage, raw, status, reason, counted=True):
    """weir answers `raw` by itself and closes; the origin has seen nothing of it."""
    errors = stage.counter("weir_http_parse_errors_total", reason=reason)
    client = stage.connect()
    client.send(raw)
    got = client.read_response()
    assert (got.status, got.reason) == (status, reason)
    assert got["Content-Type"].startswith("text/plain") and got.body
    assert got["Connection"] == "close"
    client.expect_end()
    assert stage.origin.saw_nothing()
    if counted:
        errors.grows()


@claims(
    head(b"GET", b"Host: test"),
    head(b"GET /", b"Host: test"),
    head(b"GET\t/ HTTP/1.1", b"Host: test"),
    head(b"GET /\tHTTP/1.1", b"Host: test"),
    head(b" GET / HTTP/1.1", b"Host: test"),
    head(b"/ HTTP/1.1", b"Host: test"),
    head(b"G(T / HTTP/1.1", b"Host: test"),
    head(b"G\xcbT / HTTP/1.1", b"Host: test"),
    head(b"G\x00T / HTTP/1.1", b"Host: test"),
    head(b"GET: / HTTP/1.1", b"Host: test"),
    head(b"\x16\x03\x01\x02\x00\x01\x00", b"Host: test"),
)
def test_bad_request_lines(stage, raw):
    refused(stage, raw, 400, "bad_request_line")


@claims(
    head(b"GET index.html HTTP/1.1", b"Host: test"),
    head(b"GET  / HTTP/1.1", b"Host: test"),
    head(b"GET /  HTTP/1.1", b"Host: test"),
    head(b"GET /a#fragment HTTP/1.1", b"Host: test"),
    head(b"GET /\x00 HTTP/1.1", b"Host: test"),
    head(b"GET /\x01 HTTP/1.1", b"Host: test"),
    head(b"GET /\x7f HTTP/1.1", b"Host: test"),
    head(b"GET * HTTP/1.1", b"Host: test"),
    head(b"GET http:// HTTP/1.1", b"Host: test"),
    head(b"GET http:///path HTTP/1.1", b"Host: test"),
    head(b"GET http://user@test/ HTTP/1.1", b"Host: test"),
    head(b"GET http://a:b:c/ HTTP/1.1", b"Host: test"),
    head(b"GET ftp://test/ HTTP/1.1", b"Host: test"),
    head(b"GET test:80 HTTP/1.1", b"Host: test"),
    head(b"GET ?q HTTP/1.1", b"Host: test"),
)
def test_bad_targets(stage, raw):
    refused(stage, raw, 400, "bad_target")


@claims(
    with_line(b": no name"),
    with_line(b"X-A : space before the colon"),
    with_line(b"X-A\t: tab before the colon"),
    with_line(b"X A: space inside"),
    with_line(b"X(A): not a token"),
    with_line(b"X\x00A: nul"),
    with_line(b"X\xe9: not ASCII"),
    with_line(b"no colon"),
    with_line(b"X@Y: at"),
    with_line(b"Content-Length : 5"),
    with_line(b"Transfer-Encoding : chunked"),
    head(b"GET / HTTP/1.1", b"Host : test"),
)
def test_bad_field_names(stage, raw):
    refused(stage, raw, 400, "bad_field_name")


@claims(*(with_line(b"X-A: a" + bytes([byte]) + b"b") for byte in (0, 1, 8, 11, 12, 27, 31, 127)))
def test_bad_field_values(stage, raw):
    refused(stage, raw, 400, "bad_field_value")


@claims(
    b"GET / HTTP/1.1\nHost: test\n\n",
    b"GET / HTTP/1.1\r\nHost: test\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\n\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nX-A: a\nX-B: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nX-A: a\rX-B: b\r\n\r\n",
    b"GET / HTTP/1.1\rHost: test\r\r",
    b"GET / HTTP/1.1\r\nHost: test\rX-A: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nX-A: a\r\r\n\r\n",
    b"\nGET / HTTP/1.1\r\nHost: test\r\n\r\n",
)
def test_bare_cr_and_lf(stage, raw):
    refused(stage, raw, 400, "bad_line_end")


@claims(
    with_line(b"X-A: one", b" two"),
    with_line(b"X-A: one", b"\ttwo"),
    with_line(b"X-A:", b"  folded"),
    head(b"GET / HTTP/1.1", b"Host: test", b" folded"),
    head(b"GET / HTTP/1.1", b" X-A: before any field", b"Host: test"),
    head(b"POST / HTTP/1.1", b"Host: test", b"Transfer-Encoding: chunked", b" , gzip"),
    head(b"GET / HTTP/1.1", b"Host: test", b" "),
)
def test_obs_fold(stage, raw):
    refused(stage, raw, 400, "bad_fold")


@claims(
    head(b"GET / HTTP/1.1"),
    head(b"GET / HTTP/1.1", b"X-Host: test"),
    head(b"GET / HTTP/1.1", b"Host: a", b"Host: b"),
    head(b"GET / HTTP/1.1", b"Host: a", b"Host: a"),
    head(b"GET / HTTP/1.1", b"Host: a", b"host: a"),
    head(b"GET / HTTP/1.0", b"Host: a", b"Host: b"),
    head(b"GET http://a/ HTTP/1.1"),
    head(b"GET http://a/ HTTP/1.1", b"Host: a", b"Host: b"),
    head(b"GET / HTTP/1.1", b"Host: a b"),
    head(b"GET / HTTP/1.1", b"Host: a/b"),
    head(b"GET / HTTP/1.1", b"Host: user@a"),
    head(b"GET / HTTP/1.1", b"Host: a:port"),
    head(b"GET / HTTP/1.1", b"Host: a:80:80"),
    head(b"GET / HTTP/1.1", b"Host: [::1"),
    head(b"GET / HTTP/1.1", b"Host: [::g]"),
    head(b"GET / HTTP/1.1", b"Host: ::1"),
    head(b"GET / HTTP/1.1", b"Host: http://a"),
    head(b"GET / HTTP/1.1", b"Host: a?b"),
    head(b"GET / HTTP/1.1", b"Host: a#b"),
    head(b"GET / HTTP/1.1", b"Host: a\\b"),
)
def test_bad_hosts(stage, raw):
    refused(stage, raw, 400, "bad_host")


@pytest.mark.parametrize("value", [
    b"", b"+5", b"-5", b"0x5", b"5,5", b"5, 5", b"5 5", b"5.0", b"5;", b"five", b"1e1", b"5,",
    b",5", b"\xb2", b"18446744073709551616", b"99999999999999999999999999", b'"5"', b"0x", b"5a",
])
def test_bad_content_lengths(stage, value):
    refused(stage, head(b"POST / HTTP/1.1", b"Host: test", b"Content-Length: " + value) + b"12345",
            400, "bad_content_length")


@pytest.mark.parametrize("first, second", [(b"5", b"6"), (b"5", b"5"), (b"5", b""), (b"0", b"5")])
def test_repeated_content_lengths(stage, first, second):
    refused(stage, head(b"POST / HTTP/1.1", b"Host: test", b"Content-Length: " + first, b"X-A: 1",
                        b"content-length: " + second) + b"12345", 400, "bad_content_length")


@pytest.mark.parametrize("lines", [
    [b"Transfer-Encoding: chunked, chunked"],
    [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked;q=1"],
    [b"Transfer-Encoding:"],
    [b"Transfer-Encoding: ,"],
    [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
    [b"Transfer-Encoding: chunked, gzip"],
    [b"Transfer-Encoding: \"chunked\""],
])
def test_bad_transfer_encodings(stage, lines):
    refused(stage, head(b"POST / HTTP/1.1", b"Host: test", *lines) + b"5\r\nhello\r\n0\r\n\r\n",
            400, "bad_transfer_encoding")


def test_transfer_encoding_in_http_1_0(stage):
    """RFC 9112 section 6.1: the framing is faulty."""
    raw = head(b"POST / HTTP/1.0", b"Host: test", b"Transfer-Encoding: chunked")
    refused(stage, raw + b"5\r\nhello\r\n0\r\n\r\n", 400, "bad_transfer_encoding")


@pytest.mark.parametrize("lines", [
    [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    [b"transfer-encoding: chunked", b"X: 1", b"content-length: 0"],
])
def test_both_framings(stage, lines):
    refused(stage, head(b"POST / HTTP/1.1", b"Host: test", *lines) + b"5\r\nhello\r\n0\r\n\r\n",
            400, "bad_framing")


BAD_CHUNKS = [
    b"\r\nhello\r\n0\r\n\r\n",
    b"x\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5g\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\rhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n",
    b"10000000000000000\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"x" * 70000 + b"\r\nhello\r\n0\r\n\r\n",
    b"0" * 70000 + b"5\r\nhello\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("raw", BAD_CHUNKS, ids=[repr(raw)[2:30] for raw in BAD_CHUNKS])
def test_bad_chunks(stage, client, origin, raw):
    """The head may have gone on by then, but never a request that looks complete."""
    try:
        client.send(head(b"POST /chunks HTTP/1.1", b"Host: test", b"Transfer-Encoding: chunked")
                    + raw
                    + get("/smuggled"))
    except (BrokenPipeError, ConnectionResetError):
        pass
    got = client.read_response()
    assert (got.status, got.reason) == (400, "bad_chunk")
    client.expect_end()
    ended_without_a_request(origin)


def test_bad_chunk_after_good_ones(stage, client, origin):
    client.send(post_chunked("/", b"hello")[:-5])
    upstream = origin.next()
    assert upstream.read_request_head().chunked
    assert upstream.read_chunk() == b"hello"
    client.send(b"junk\r\n")
    got = client.read_response()
    assert (got.status, got.reason) == (400, "bad_chunk")
    client.expect_end()
    upstream.expect_end()
    assert b"junk" not in upstream.received and not upstream.saw_whole_request()


@pytest.mark.parametrize("trailer",
                         [b"X-A : 1", b": 1", b" folded", b"X-A: a\x00", b"no colon",
                          b"X-A: 1\nX-B: 2"])
def test_bad_trailers(stage, client, origin, trailer):
    client.send(post_chunked("/", b"hello")[:-2] + trailer + b"\r\n\r\n")
    got = client.read_response()
    assert got.status == 400
    client.expect_end()
    ended_without_a_request(origin)


def test_trailers_are_limited_like_a_head(stage, client, origin):
    client.send(post_chunked("/", b"hello", trailers=[f"X-{number}: 1" for number in range(30)]))
    got = client.read_response()
    assert (got.status, got.reason) == (431, "too_many_fields")
    client.expect_end()
    ended_without_a_request(origin)


def ended_without_a_request(origin):
    """A connection that carried some of it ends, and that some is no complete request."""
    for upstream in origin.open_connections():
        if upstream.received:
            upstream.expect_end()
    for upstream in origin.connections:
        assert not upstream.received or not upstream.saw_whole_request()
        assert b"smuggled" not in upstream.received


@pytest.mark.parametrize("coding", [
    b"gzip, chunked", b"foo, chunked", b"x-chunked, chunked", b"br,chunked", b"foo", b"xchunked",
    b"chunkedx", b"identity",
])
def test_unknown_coding(stage, coding):
    raw = head(b"POST / HTTP/1.1", b"Host: test", b"Transfer-Encoding: " + coding)
    refused(stage, raw + b"5\r\nhello\r\n0\r\n\r\n", 501, "unknown_coding")


@claims(
    head(b"GET / HTTP/2.0", b"Host: test"),
    head(b"GET / HTTP/1.2", b"Host: test"),
    head(b"GET / HTTP/0.9", b"Host: test"),
    head(b"GET / HTTP/3.0", b"Host: test"),
)
def test_bad_versions(stage, raw):
    refused(stage, raw, 505, "bad_version")


@claims(
    head(b"GET / http/1.1", b"Host: test"),
    head(b"GET / HTTP/1.10", b"Host: test"),
    head(b"GET / HTTP/11", b"Host: test"),
    head(b"GET / HTTP/1.", b"Host: test"),
    head(b"GET / HTTP/1.1x", b"Host: test"),
    head(b"GET / HTTPS/1.1", b"Host: test"),
    head(b"GET / HTTP/1.1 ", b"Host: test"),
    head(b"GET / FTP/1.1", b"Host: test"),
)
def test_what_is_no_version_at_all(stage, raw):
    refused(stage, raw, 400, "bad_request_line")


def test_head_too_large(stage):
    refused(stage, with_line(b"X-Big: " + b"x" * 4096), 431, "head_too_large")


def test_head_too_large_by_many_fields_and_without_an_end(stage):
    refused(stage, b"GET / HTTP/1.1\r\nHost: test\r\n" + b"X-Fill: %s\r\n" % (b"x" * 500) * 9, 431,
            "head_too_large")


def test_head_too_large_in_a_line_without_an_end(stage):
    refused(stage, b"GET / HTTP/1.1\r\nHost: test\r\nX-Endless: " + b"x" * 8000, 431,
            "head_too_large")


def test_head_of_exactly_the_limit_passes(stage, client):
    raw = with_line(b"X-Fill: ")
    raw = raw.replace(b"Fill: ", b"Fill: " + b"x" * (4096 - len(raw)))
    assert len(raw) == 4096
    assert stage.exchange(raw, client=client)[1].status == 200


def test_head_one_byte_over_the_limit_is_refused(stage):
    raw = with_line(b"X-Fill: ")
    refused(stage, raw.replace(b"Fill: ", b"Fill: " + b"x" * (4097 - len(raw))), 431,
            "head_too_large")


def test_too_many_fields(stage):
    refused(stage, with_line(*[b"X-%d: 1" % number for number in range(20)]), 431,
            "too_many_fields")


def test_as_many_fields_as_allowed_pass(stage):
    assert stage.exchange(with_line(*[b"X-%d: 1" % number
                                      for number in range(19)]))[1].status == 200


def test_target_too_long(stage):
    refused(stage, get("/" + "x" * 1024), 414, "target_too_long")


def test_target_too_long_without_an_end(stage):
    client = stage.connect()
    client.send(b"GET /" + b"x" * 8000)
    got = client.read_response()
    assert (got.status, got.reason) == (414, "target_too_long")
    client.expect_end()


def test_target_of_exactly_the_limit_passes(stage):
    assert stage.exchange(get("/" + "x" * 1023))[1].status == 200


def test_body_too_large(stage):
    refused(stage, post("/", b"x" * 10241)[:200], 413, "body_too_large", counted=False)


def test_body_of_exactly_the_limit_passes(stage):
    seen, got = stage.exchange(post("/", b"x" * 10240))
    assert (len(seen.body), got.status) == (10240, 200)
    seen, got = stage.exchange(post_chunked("/", b"x" * 10000, b"y" * 240))
    assert (len(seen.body), got.status) == (10240, 200)


def test_chunked_body_too_large(stage, client, origin):
    client.send(post_chunked("/", b"x" * 10000, b"y" * 241))
    got = client.read_response()
    assert (got.status, got.reason) == (413, "body_too_large")
    client.expect_end()
    ended_without_a_request(origin)


def test_refusal_is_read_by_a_client_that_is_still_sending(stage, client):
    """Closing with unread bytes makes the kernel send RST, which can overtake the answer."""
    client.send(post("/", b"x" * 100000)[:100])
    try:
        for _ in range(100):
            client.send(b"x" * 1000)
    except (BrokenPipeError, ConnectionResetError):
        pytest.fail("weir cut the connection before its answer could be read")
    got = client.read_response()
    assert (got.status, got.reason) == (413, "body_too_large")


HEAD = b"HEAD / HTTP/1.1"


@pytest.mark.parametrize("raw, status, reason", [
    (head(HEAD), 400, "bad_host"),
    (head(HEAD, b"Host: test", b"A B: c"), 400, "bad_field_name"),
    (head(HEAD, b"Host: test", *[b"A: b"] * 20), 431, "too_many_fields"),
    (head(HEAD, b"Host: test", b"A: " + b"x" * 5000), 431, "head_too_large"),
    (head(HEAD, b"Host: test", b"Content-Length: 20000"), 413, "body_too_large"),
    (head(HEAD, b"Host: test", b"Transfer-Encoding: gzip, chunked"), 501, "unknown_coding"),
    (head(b"HEAD / HTTP/1.2", b"Host: test"), 505, "bad_version"),
    (head(b"HEAD /a b HTTP/1.1", b"Host: test"), 400, "bad_target"),
    (head(b"HEAD /" + b"x" * 1024 + b" HTTP/1.1", b"Host: test"), 414, "target_too_long"),
    (b"HEAD /" + b"x" * 3000, 414, "target_too_long"),
    (b"HEAD /a\x00", 400, "bad_target"),
], ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "pieces"])
def test_the_refusal_of_a_head_request_has_no_body(stage, client, raw, status, reason, pieces):
    """RFC 9110 section 9.3.2; as soon as the method could be read."""
    if pieces:
        client.send(raw[:6])
        stage.has_read()
        client.send(raw[6:])
    else:
        client.send(raw)
    got = client.read_response("HEAD")
    assert (got.status, got.reason) == (status, reason)
    assert int(got["Content-Length"]) > 0 and got["Connection"] == "close"
    client.expect_close()


def test_after_a_head_request_the_refusal_of_a_get_has_a_body(stage, client, origin):
    stage.exchange(get(method="HEAD"), answer(200), client, "HEAD")
    client.send(b"\x16 / HTTP/1.1\r\n")
    got = client.read_response()
    assert (got.status, got.reason) == (400, "bad_request_line") and got.body


def test_connect_is_refused(stage, client):
    got = client.ask(b"CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n")
    assert (got.status, got.reason) == (405, "connect_refused")
    assert stage.origin.saw_nothing()


def test_refusal_of_a_pipelined_request_comes_after_the_good_answers(stage, client, origin):
    client.send(get("/good") + with_line(b"X-A : bad") + get("/smuggled"))
    upstream = origin.next()
    assert upstream.read_request().target == "/good"
    upstream.send(answer(200, b"good"))
    assert client.read_response().body == b"good"
    got = client.read_response()
    assert (got.status, got.reason) == (400, "bad_field_name")
    client.expect_end()
    assert b"smuggled" not in upstream.received and len(origin.connections) == 1
