"""Where bodies begin and end, on either side (RFC 9112 sections 6 and 7)."""

import pytest

from harness.http1 import (answer, answer_chunked, answer_head, chunk, chunked, get, post,
                           post_chunked)


def test_request_with_length_keeps_its_length(stage):
    seen, _ = stage.exchange(post("/", b"12345"))
    assert (seen["Content-Length"], seen.body) == ("5", b"12345")


def test_request_with_length_zero(stage):
    seen, got = stage.exchange(post("/", b""))
    assert (seen["Content-Length"], seen.body, got.status) == ("0", b"", 200)


def test_request_without_framing_has_no_body(stage, client):
    seen, _ = stage.exchange(get(method="POST"), client=client)
    assert seen.body == b"" and not seen.chunked
    seen, _ = stage.exchange(get("/next"), client=client)
    assert seen.target == "/next"


def test_chunked_request_stays_chunked(stage):
    seen, _ = stage.exchange(post_chunked("/", b"one ", b"two ", b"three"))
    assert seen.chunked and seen.body == b"one two three"


def test_empty_chunked_request(stage, client):
    seen, _ = stage.exchange(post_chunked("/"), client=client)
    assert seen.body == b""
    seen, _ = stage.exchange(get("/next"), client=client)
    assert seen.target == "/next"


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "CHUNKED", " chunked ", "chunked\t"])
def test_the_name_chunked_has_no_case(stage, coding):
    seen, _ = stage.exchange(post_chunked("/", b"x").replace(b": chunked", b": " + coding.encode()))
    assert seen["Transfer-Encoding"] == "chunked" and seen.body == b"x"


CHUNKED_BODIES = [
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"00005\r\nhello\r\n000\r\n\r\n", b"hello"),
    (b"a\r\n0123456789\r\nA\r\nabcdefghij\r\n0\r\n\r\n", b"0123456789abcdefghij"),
    (b"5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    (b'5;a="quo;ted \\" x"; b = c\r\nhello\r\n0\r\n\r\n', b"hello"),
    (b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", b"\r\n"),
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
]


@pytest.mark.parametrize("raw, body", CHUNKED_BODIES)
def test_chunk_lines_of_every_shape_in_requests(stage, client, raw, body):
    """Extensions are read and not passed on."""
    seen, _ = stage.exchange(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
                             + raw, client=client)
    assert seen.body == body
    seen, _ = stage.exchange(get("/next"), client=client)
    assert seen.target == "/next"


@pytest.mark.parametrize("raw, body", CHUNKED_BODIES)
def test_chunk_lines_of_every_shape_in_answers(stage, client, raw, body):
    _, got = stage.exchange(get(), answer_head(200, "Transfer-Encoding: chunked") + raw, client)
    assert got.chunked and got.body == body
    _, got = stage.exchange(get(), answer(200, b"next"), client)
    assert got.body == b"next"


def test_trailers_pass_both_ways(stage):
    seen, got = stage.exchange(
        post_chunked("/", b"body", trailers=["X-Check: abc", "x-check: d"],
                     lines=["Trailer: X-Check"]),
        answer_chunked(b"answer", trailers=["X-Sum: 1", "X-Empty:"]))
    assert seen.trailers == [("x-check", "abc"), ("x-check", "d")]
    assert got.trailers == [("x-sum", "1"), ("x-empty", "")]


def test_trailers_cannot_hold_what_frames_or_routes(stage, client):
    """RFC 9110 section 6.5.1."""
    forbidden = ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil.test",
                 "Connection: close"]
    seen, got = stage.exchange(post_chunked("/", b"body", trailers=[*forbidden, "X-Fine: 1"]),
                               answer_chunked(b"answer",
                                              trailers=[*forbidden, "X-Fine: 1"]), client)
    for message in (seen, got):
        assert message.trailers == [("x-fine", "1")]
    _, got = stage.exchange(get(), answer(200, b"next"), client)
    assert got.body == b"next"


def test_answer_with_length_keeps_its_length(stage):
    _, got = stage.exchange(get(), answer(200, b"x" * 1000))
    assert (got["Content-Length"], len(got.body)) == ("1000", 1000)


def test_answer_of_length_zero(stage, client):
    _, got = stage.exchange(get(), answer(200, b""), client)
    assert got["Content-Length"] == "0"
    _, got = stage.exchange(get(), answer(200, b"next"), client)
    assert got.body == b"next"


def test_chunked_answer_with_trailers_and_no_data(stage, client):
    _, got = stage.exchange(get(), answer_chunked(trailers=["X-Late: yes"]), client)
    assert got.chunked and got.body == b"" and got.trailers == [("x-late", "yes")]
    _, got = stage.exchange(get(), answer(200, b"next"), client)
    assert got.body == b"next"


def test_close_delimited_answer_ends_where_the_origin_closes(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200, "Connection: close") + b"until ")
    head = client.read_response_head()
    upstream.send(b"the end")
    upstream.close()
    assert client.read_body(head).body == b"until the end"


def test_close_delimited_answer_of_no_bytes(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200))
    upstream.close()
    assert client.read_response().body == b""


def test_close_delimited_answer_becomes_chunks_and_the_client_stays(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(200) + b"body")
    upstream.close()
    got = client.read_response()
    assert got.body == b"body" and got.chunked and got["Connection"] is None
    _, got = stage.exchange(get(), answer(200, b"next"), client)
    assert got.body == b"next"


def test_close_delimited_answer_to_a_1_0_client(stage, client, origin):
    upstream = origin.asked_by(client, b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")
    upstream.send(answer_head(200, version="1.0") + b"old to old")
    upstream.close()
    got = client.read_response()
    assert got.body == b"old to old" and not got.chunked


def test_a_body_that_looks_like_a_message_is_a_body(stage, client):
    inner = get("/smuggled") + answer(200, b"smuggled") + chunked(b"x")
    seen, got = stage.exchange(post("/", inner), answer(200, inner), client)
    assert (seen.body, got.body) == (inner, inner)
    seen, got = stage.exchange(post_chunked("/", inner), answer_chunked(inner), client)
    assert (seen.body, got.body) == (inner, inner)


def test_many_small_chunks(stage):
    parts = [b"%d," % number for number in range(5000)]
    seen, got = stage.exchange(post_chunked("/", *parts), answer_chunked(*parts))
    assert seen.body == b"".join(parts)
    assert got.body == b"".join(parts)


def test_data_is_passed_on_as_it_comes(stage, client, origin):
    """No chunk waits for the next one, in either direction."""
    client.send(post_chunked("/", b"first")[:-5])
    upstream = origin.next()
    assert upstream.read_request_head().chunked
    assert upstream.read_chunk() == b"first"
    client.send(b"6\r\nsecond\r\n")
    assert upstream.read_chunk() == b"second"
    client.send(b"0\r\n\r\n")
    assert upstream.read_chunk() == b""
    assert upstream.read_trailers() == []
    upstream.send(answer_chunked(b"one")[:-5])
    client.read_response_head()
    assert client.read_chunk() == b"one"
    upstream.send(b"3\r\ntwo\r\n")
    assert client.read_chunk() == b"two"
    upstream.send(b"0\r\n\r\n")
    assert client.read_chunk() == b""
    assert client.read_trailers() == []


def test_data_with_length_is_passed_on_as_it_comes(stage, client, origin):
    client.send(post("/", b"0123456789")[:-7])
    upstream = origin.next()
    assert upstream.read_request_head()["Content-Length"] == "10"
    upstream.expect(b"012")
    client.send(b"3456789")
    upstream.expect(b"3456789")
    upstream.send(answer(200, b"0123456789")[:-7])
    client.read_response_head()
    client.expect(b"012")
    upstream.send(b"3456789")
    client.expect(b"3456789")


def answered_early(client, origin, request):
    """Only `request` has come when its server answers; returns the server's end."""
    upstream = origin.asked_by(client, request, whole=False)
    upstream.send(answer(403, b"no need"))
    got = client.read_response()
    assert (got.status, got.body) == (403, b"no need")
    return upstream


@pytest.mark.parametrize("length, sent", [(100, 50), (100, 0), (65536 + 20, 20)])
def test_answer_before_the_request_is_complete(stage, client, origin, length, sent):
    """RFC 9112 section 9.3: it passes at once. What is half done to the server cannot be used
    again; the client's connection can, behind the rest of the body."""
    request = post("/", b"x" * length)
    upstream = answered_early(client, origin, request[:len(request) - length + sent])
    upstream.expect_end()
    client.send(request[len(request) - length + sent:] + get("/next"))
    upstream = origin.next()
    assert upstream.read_request().target == "/next"
    upstream.send(answer(200, b"next"))
    assert client.read_response().body == b"next"


def test_the_rest_of_a_chunked_body_is_read_as_well(stage, client, origin):
    request = get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"abc")
    answered_early(client, origin, request).expect_end()
    client.send(chunk(b"x" * 60000) + b"0\r\n\r\n" + get("/next"))
    upstream = origin.next()
    assert upstream.read_request().target == "/next"
    upstream.send(answer(200, b"next"))
    assert client.read_response().body == b"next"


def test_a_long_rest_is_not_read(stage, client, origin):
    request = post("/", b"x" * 65556)
    answered_early(client, origin, request[:-65537])
    client.expect_end()


@pytest.mark.parametrize("rest, goes_on", [(65537, False), (65536, True)])
def test_who_is_refused_a_long_body_is_told_that_the_connection_ends(stage, client, origin, rest,
                                                                    goes_on):
    """Else its next request would be lost with the connection."""
    client.send(post("/", b"x" * (rest + 10))[:-rest])
    origin.next().send(answer(413, b"too long"))
    head = client.read_response_head()
    assert head.status == 413
    assert (head["Connection"] == "close") is not goes_on


def test_a_chunked_rest_that_grows_long_is_not_read(stage, client, origin):
    answered_early(client, origin, get("/", "Transfer-Encoding: chunked", method="POST"))
    client.send(chunk(b"x" * 65537))
    client.expect_end()


def test_for_the_last_request_of_a_connection_no_rest_is_read(stage, client, origin):
    answered_early(client, origin, post("/", b"x" * 100, "Connection: close")[:-50])
    client.expect_end()


@pytest.mark.parametrize("how", ["close", "half_close", "reset"])
def test_with_its_answer_a_client_may_leave_the_rest_unsent(stage, client, origin, how):
    """It is no abort: nothing that somebody wanted was cut."""
    requests = stage.counter("weir_http_requests_total", code="4xx")
    aborts = stage.counter("weir_http_aborts_total")
    answered_early(client, origin, post("/", b"x" * 100)[:-50])
    getattr(client, how)()
    requests.grows()
    assert aborts.grown() == 0
