"""A request goes to the origin and its answer comes back; only hop-by-hop parts are lost."""

import httpx
import pytest

from harness.http1 import answer, answer_chunked, answer_head, get, post
from harness.wait import eventually

INI = """
[listener web]
bind = @web @port6 @unix
upstream = app
[listener web6]
bind = @web6
upstream = app6
[listener webunix]
bind = @webunix
upstream = appunix
[upstream app]
server = @origin
[upstream app6]
server = @origin6
[upstream appunix]
server = @originunix
"""


def test_get_is_forwarded(stage):
    ends = stage.ended("none")
    seen, got = stage.exchange(get("/hello?x=1"), answer(200, b"hello", "X-Origin: yes"))
    assert (seen.method, seen.target, seen["Host"], seen.body) == ("GET", "/hello?x=1", "test", b"")
    assert not seen.chunked and "Content-Length" not in seen
    assert (got.status, got.body, got["X-Origin"]) == (200, b"hello", "yes")
    eventually(lambda: ends.grown() >= 1, "the exchange has ended well")  # and those that ask


def test_httpx_speaks_through_weir(stage, origin):
    origin.serve(lambda request: answer(200, request.method.encode() + b" " + request.body))
    with httpx.Client() as http:
        assert http.get(stage.url("/a")).text == "GET "
        assert http.post(stage.url("/a"), content=b"x" * 10000).text == "POST " + "x" * 10000
        assert http.put(stage.url("/a"), content=iter([b"in ", b"chunks"])).text == "PUT in chunks"


@pytest.mark.parametrize("method",
                         ["GET", "DELETE", "OPTIONS", "TRACE", "PUT", "POST", "PATCH", "BREW",
                          "get", "M-SEARCH"])
def test_methods_pass(stage, method):
    seen, got = stage.exchange(get("/", method=method), answer(200, b"done"))
    assert seen.method == method
    assert (got.status, got.body) == (200, b"done")


@pytest.mark.parametrize("target", [
    "/", "/?", "/a?b=c&d=%20%2F", "//double//slash", "/a/../b/./c", "/%2e%2e/%00",
    "/;p=1,2/!$&'()*+:@=~",
    "/?q=/?:@!$&'()*+,;=-._~", "/" + "long" * 1000,
])
def test_origin_form_targets_pass_as_sent(stage, target):
    seen, _ = stage.exchange(get(target))
    assert seen.target == target


@pytest.mark.parametrize("target, host, path", [
    ("http://other.test/x?y=1", "other.test", "/x?y=1"),
    ("http://other.test:8080/", "other.test:8080", "/"),
    ("http://other.test", "other.test", "/"),
    ("http://other.test?q", "other.test", "/?q"),
    ("HTTP://other.test/up", "other.test", "/up"),
    ("http://[::1]:99/six", "[::1]:99", "/six"),
])
def test_absolute_form_becomes_origin_form_and_its_host_wins(stage, target, host, path):
    """RFC 9112 section 3.2.2: the received Host is ignored and replaced."""
    seen, got = stage.exchange(get(target, host="ignored.test"))
    assert (seen.target, seen["Host"], got.status) == (path, host, 200)


def test_asterisk_form_passes(stage):
    seen, _ = stage.exchange(get("*", method="OPTIONS"))
    assert (seen.method, seen.target) == ("OPTIONS", "*")


def test_absolute_form_options_without_path_becomes_asterisk_form(stage):
    """RFC 9112 section 3.2.4."""
    seen, _ = stage.exchange(get("http://other.test", method="OPTIONS"))
    assert (seen.target, seen["Host"]) == ("*", "other.test")


def test_http_1_0_request_is_sent_on_as_1_1(stage):
    seen, got = stage.exchange(b"GET /old HTTP/1.0\r\nHost: test\r\n\r\n")
    assert (seen.target, seen["Host"], got.status) == ("/old", "test", 200)


def test_http_1_0_request_needs_no_host(stage):
    seen, got = stage.exchange(b"GET /old HTTP/1.0\r\n\r\n")
    assert (seen.target, len(seen.all("Host")), got.status) == ("/old", 1, 200)


def test_empty_lines_before_a_request_are_skipped(stage):
    """RFC 9112 section 2.2."""
    seen, got = stage.exchange(b"\r\n\r\n" + get("/x"))
    assert (seen.target, got.status) == ("/x", 200)


def test_head_answer_has_its_length_and_no_body(stage, client):
    seen, got = stage.exchange(get(method="HEAD"), answer_head(200, "Content-Length: 1234"), client,
                               "HEAD")
    assert (seen.method, got.status, got["Content-Length"]) == ("HEAD", 200, "1234")
    _, after = stage.exchange(get(), answer(200, b"next"), client)
    assert after.body == b"next"


def test_head_answer_that_says_chunked_has_no_body(stage, client):
    _, got = stage.exchange(get(method="HEAD"), answer_head(200, "Transfer-Encoding: chunked"),
                            client, "HEAD")
    assert got.status == 200
    _, after = stage.exchange(get(), answer(200, b"next"), client)
    assert after.body == b"next"


@pytest.mark.parametrize("response", [
    answer_head(204),
    answer_head(304),
    answer_head(304, "ETag: \"a\"", "Content-Length: 77"),
    answer_head(304, "Transfer-Encoding: chunked"),
], ids=["204", "304", "304-with-length", "304-with-coding"])
def test_answers_without_a_body_leave_the_connection_usable(stage, client, response):
    _, got = stage.exchange(get(), response, client)
    assert got.status == int(response[9:12]) and got.body == b""
    _, after = stage.exchange(get(), answer(200, b"next"), client)
    assert after.body == b"next"


@pytest.mark.parametrize("status, phrase", [
    (200, "OK"), (200, ""), (299, "Odd but legal"), (404, "Not Found"), (418, "Teapot"),
    (599, "Far out"), (200, "\xe9t\xe9"),
])
def test_status_and_phrase_pass(stage, status, phrase):
    _, got = stage.exchange(get(), answer(status, b"x", phrase=phrase))
    assert (got.status, got.phrase) == (status, phrase)


def test_end_to_end_fields_pass_in_order(stage):
    lines = ["X-A: 1", "x-a: 2", "Cookie: a=b; c=d", "X-Empty:", "X-Tab: a\tb", "X-A: 3",
             "X-Bytes: \xff\x80", "Authorization: Basic eDp5", "X_under: _"]
    seen, got = stage.exchange(get("/", *lines),
                               answer(200, b"", *lines, "Set-Cookie: a=1", "Set-Cookie: b=2"))
    for message in (seen, got):
        assert message.all("X-A") == ["1", "2", "3"]
        assert message["X-Empty"] == ""
        assert message["X-Tab"] == "a\tb"
        assert message["X-Bytes"] == "\xff\x80"
        assert message["Cookie"] == "a=b; c=d"
        assert message["Authorization"] == "Basic eDp5"
        assert message["X_under"] == "_"
    assert got.all("Set-Cookie") == ["a=1", "b=2"]


def test_blanks_around_values_are_not_part_of_them(stage):
    seen, _ = stage.exchange(b"GET / HTTP/1.1\r\nHost:test\r\nX-A: \t  one two \t \r\n\r\n")
    assert (seen["Host"], seen["X-A"]) == ("test", "one two")


def test_hop_by_hop_fields_go_no_further(stage):
    """RFC 9110 section 7.6.1."""
    lines = ["Connection: keep-alive, X-Private", "Connection: x-other", "X-Private: 1",
             "X-Other: 2", "X-Public: 3", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive"]
    seen, got = stage.exchange(get("/", *lines, "TE: gzip"), answer(200, b"x", *lines))
    for message in (seen, got):
        assert message["X-Public"] == "3"
        for name in ("X-Private", "X-Other", "Keep-Alive", "Proxy-Connection", "TE"):
            assert name not in message, name
        assert "private" not in ",".join(message.all("Connection")).lower()


def test_connection_cannot_take_away_what_frames_the_message(stage, client):
    seen, _ = stage.exchange(post("/", b"body", "Connection: content-length, host"), client=client)
    assert (seen.body, seen["Host"]) == (b"body", "test")
    _, got = stage.exchange(get(), answer(200, b"body", "Connection: Content-Length"), client)
    assert got.body == b"body"


@pytest.mark.parametrize("value, passed", [("trailers", "trailers"), ("gzip", None),
                                           ("trailers, deflate;q=0.5", None)])
def test_te_passes_where_it_says_trailers_and_nothing_else(stage, value, passed):
    seen, _ = stage.exchange(get("/", f"TE: {value}", "Connection: TE"))
    assert seen["TE"] == passed


def test_upgrade_without_connection_upgrade_is_dropped(stage):
    seen, _ = stage.exchange(get("/", "Upgrade: websocket"))
    assert "Upgrade" not in seen


def test_100_continue_goes_end_to_end(stage, client, origin):
    head, body = post("/", b"x" * 100, "Expect: 100-continue").split(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    upstream = origin.next()
    seen = upstream.read_request_head()
    assert seen["Expect"].lower() == "100-continue"
    assert client.has_nothing(), "the 100 must be the origin's"
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.read_response().status == 100
    client.send(body)
    upstream.expect(body)
    upstream.send(answer(201, b"kept"))
    got = client.read_response()
    assert (got.status, got.body) == (201, b"kept")


def test_origin_may_refuse_instead_of_100(stage, client, origin):
    client.send(post("/", b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 100"))
    upstream = origin.asked(whole=False)
    upstream.send(answer(417, b"no"))
    assert client.read_response().status == 417
    client.expect_end()
    upstream.expect_end()  # a connection with half a request on it cannot be kept


def test_expect_with_the_body_right_behind_needs_no_100(stage):
    seen, got = stage.exchange(post("/", b"body", "Expect: 100-continue"))
    assert (seen.body, got.status) == (b"body", 200)


def test_early_hints_are_forwarded(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer_head(103, "Link: </a.css>; rel=preload"))
    hint = client.read_response()
    assert (hint.status, hint["Link"]) == (103, "</a.css>; rel=preload")
    upstream.send(answer_head(103, "Link: </b.js>") + answer_head(102) + answer(200, b"end"))
    assert [client.read_response().status for _ in range(3)] == [103, 102, 200]


def test_http_1_0_client_gets_no_interim_answers(stage):
    """RFC 9110 section 15.2."""
    _, got = stage.exchange(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n",
                            answer_head(103) + answer_head(100) + answer(200, b"only"))
    assert (got.status, got.body) == (200, b"only")


def test_http_1_0_client_gets_no_chunks(stage, client):
    """RFC 9112 section 6.1: the end of the connection ends the body instead."""
    _, got = stage.exchange(b"GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n",
                            answer_chunked(b"one ", b"two", trailers=["X-T: 1"]), client)
    assert got.body == b"one two"
    assert not got.chunked and "Content-Length" not in got
    client.expect_close()


def test_answers_of_http_1_0_origins_pass(stage, client, origin):
    upstream = origin.asked_by(client, get())
    upstream.send(answer(200, b"old", version="1.0"))
    got = client.read_response()
    assert (got.status, got.body) == (200, b"old")


def test_ipv6_and_unix_addresses_carry_requests(stage):
    for listener in ("port6", "unix", "web"):
        _, got = stage.exchange(get(), answer(200, listener.encode()), stage.connect(listener))
        assert got.body == listener.encode()
    for listener, name in (("web6", "origin6"), ("webunix", "originunix")):
        client = stage.connect(listener)
        client.send(get("/" + name))
        upstream = stage.origins[name].next()
        assert upstream.read_request().target == "/" + name
        upstream.send(answer(200, name.encode()))
        assert client.read_response().body == name.encode()


def test_requests_are_counted_with_their_labels(stage):
    labels = {"listener": "web", "method": "GET", "code": "2xx", "proto": "h1"}
    requests = stage.counter("weir_http_requests_total", **labels)
    answered = stage.counter("weir_upstream_requests_total", upstream="app",
                             server=stage.origin.address, code="2xx")
    stage.exchange(get())
    requests.grows()
    answered.grows()


def test_unknown_methods_share_one_label(stage):
    counted = stage.counter("weir_http_requests_total", method="_OTHER")
    stage.exchange(get(method="BREW"))
    counted.grows()
    assert not stage.metrics().series("weir_http_requests_total", method="BREW")
