"""Which route takes a request, and what it does with it."""

import pytest

from harness.http1 import get, post

INI = """
[listener web]
bind = @web
upstream = app
[listener second]
bind = @second
upstream = app
[listener bare]
bind = @bare

[route only_second]
listener = second
respond = 200 second
[route exact_host]
host = exact.test other.test
respond = 200 exact host
[route wild_host]
host = *.wild.test
respond = 200 wild host
[route exact_path]
path = = /exact
respond = 200 exact path
[route prefix]
path = /prefix/
respond = 200 prefix
[route regex]
path = ~ ^/v[0-9]+/[a-z]+$
respond = 200 regex
[route method]
path = /method
method = POST PUT
respond = 200 method
[route header_value]
header = X-Canary: 1
respond = 200 header value
[route header_presence]
header = X-Present
respond = 200 header presence
[route type]
path = /type
content_type = application/json image/*
respond = 200 type
[route all]
host = all.test
path = /all
method = GET
header = X-All: yes
respond = 200 all
[route redirect]
path = /redirect
redirect = 301 https://$host$uri
[route redirect_other]
path = /moved
redirect = 308 /new
[route respond]
path = /teapot
respond = 418 short and stout
[route respond_empty]
path = /empty
respond = 204
[route long_answer]
path = /long
respond = 200 $uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri$uri
[route first_wins_one]
path = /first
respond = 200 one
[route first_wins_two]
path = /first/longer
respond = 200 two
[route split]
path = /split
upstream = app 70, canary 30
[route service]
path = /service
service = hello

[upstream app]
server = @origin
[upstream canary]
server = @origin_canary
[service hello]
type = respond
status = 201
header = X-Service: hello
body = hello from the service
"""


def ask(stage, raw, name="web", method="GET"):
    return stage.connect(name).ask(raw, method)


def route(stage, raw, name="web"):
    """The text of the route that answered; "origin" when none did."""
    if stage.origin.handler is None:
        stage.origin.serve()
    got = ask(stage, raw, name)
    assert got.status == 200, got
    return got.body.decode()


@pytest.mark.parametrize("host, taken", [
    ("exact.test", "exact host"), ("EXACT.Test", "exact host"), ("exact.test:8080", "exact host"),
    ("other.test", "exact host"), ("exact.test.", "exact host"), ("sub.exact.test",
                                                                  "origin"), ("xexact.test",
                                                                              "origin"),
    ("a.wild.test", "wild host"), ("a.b.wild.test", "wild host"), ("A.WILD.test:1", "wild host"),
    ("wild.test", "origin"), ("xwild.test", "origin"), (".wild.test", "origin"),
])
def test_routes_by_host(stage, host, taken):
    assert route(stage, get("/", host=host)) == taken


def test_the_host_of_an_absolute_target_counts(stage):
    assert route(stage, get("http://exact.test/", host="elsewhere.test")) == "exact host"
    assert route(stage, get("http://elsewhere.test/", host="exact.test")) == "origin"


@pytest.mark.parametrize("target, taken", [
    ("/exact", "exact path"), ("/exact?q=1", "exact path"), ("/exact/", "origin"), ("/exactly",
                                                                                    "origin"),
    ("/Exact", "origin"), ("/prefix/", "prefix"), ("/prefix/a/b?c", "prefix"),
    ("/prefix", "origin"), ("/x/prefix/", "origin"), ("/v1/users", "regex"), ("/v22/x?y", "regex"),
    ("/v1/Users", "origin"), ("/v/users", "origin"), ("/v1/users/7", "origin"),
    ("/first/longer", "one"), ("/?/exact", "origin"),
])
def test_routes_by_path(stage, target, taken):
    assert route(stage, get(target)) == taken


@pytest.mark.parametrize("method, taken",
                         [("POST", "method"), ("PUT", "method"), ("GET", "origin"),
                          ("post", "origin")])
def test_routes_by_method(stage, method, taken):
    assert route(stage, post("/method", b"", method=method)) == taken


@pytest.mark.parametrize("line, taken", [
    ("X-Canary: 1", "header value"), ("x-canary: 1", "header value"), ("X-Canary: 2",
                                                                       "origin"), ("X-Canary: 11",
                                                                                   "origin"),
    ("X-Present: anything", "header presence"), ("X-Present:", "header presence"), ("X-Presents: 1",
                                                                                    "origin"),
])
def test_routes_by_header(stage, line, taken):
    assert route(stage, get("/", line)) == taken


def test_any_of_repeated_fields_may_match(stage):
    assert route(stage, get("/", "X-Canary: 2", "X-Canary: 1")) == "header value"


@pytest.mark.parametrize("line, taken", [
    ("Content-Type: application/json", "type"), ("Content-Type: application/json; charset=utf-8",
                                                 "type"),
    ("Content-Type: APPLICATION/Json", "type"), ("Content-Type: image/png",
                                                 "type"), ("Content-Type: text/plain", "origin"),
    ("Content-Type: application/jsonp", "origin"), ("Content-Type: images/png",
                                                    "origin"), ("X-None: 1", "origin"),
])
def test_routes_by_content_type(stage, line, taken):
    assert route(stage, post("/type", b"{}", line)) == taken


def test_all_conditions_must_hold(stage):
    def try_(method="GET", host="all.test", target="/all", line="X-All: yes"):
        return route(stage, get(target, line, method=method, host=host))

    assert try_() == "all"
    assert try_(host="some.test") == "origin"
    assert try_(target="/some") == "origin"
    assert try_(method="DELETE") == "origin"
    assert try_(line="X-All: no") == "origin"


def test_routes_by_listener(stage):
    assert route(stage, get(), "second") == "second"
    assert route(stage, get("/exact"), "second") == "second"
    assert route(stage, get()) == "origin"


def test_no_route(stage):
    got = ask(stage, get("/nowhere"), "bare")
    assert (got.status, got.reason) == (404, "no_route")
    assert "destination_not_found" in got["Proxy-Status"]
    assert stage.origin.saw_nothing()


def test_no_route_keeps_the_connection(stage):
    client = stage.connect("bare")
    assert client.ask(get("/nowhere")).status == 404
    assert client.ask(get("/nowhere")).status == 404
    assert client.ask(get("/exact")).body == b"exact path"


def test_no_route_for_a_request_with_a_body(stage):
    """The body is not read as a request."""
    client = stage.connect("bare")
    got = client.ask(post("/nowhere", get("/smuggled") * 100))
    assert (got.status, got.reason, got["Connection"]) == (404, "no_route", "close")
    client.expect_close()


def test_redirect(stage):
    got = ask(stage, get("/redirect/a?b=c", host="Site.test:81"))
    assert (got.status, got["Location"]) == (301, "https://site.test/redirect/a?b=c")
    got = ask(stage, get("/moved"))
    assert (got.status, got["Location"]) == (308, "/new")


def test_redirect_takes_a_body_and_keeps_the_connection(stage):
    client = stage.connect()
    assert client.ask(post("/moved", b"x" * 100000)).status == 308
    assert client.ask(get("/exact")).body == b"exact path"


def test_respond(stage):
    client = stage.connect()
    got = client.ask(get("/teapot"))
    assert (got.status, got.body) == (418, b"short and stout")
    got = client.ask(get("/teapot", method="HEAD"), "HEAD")
    assert (got.status, got.body) == (418, b"")
    got = client.ask(get("/empty"))
    assert (got.status, got.body) == (204, b"")


def test_no_memory_is_503(stage):
    """The memory of one request is bounded; twenty times a long target does not fit."""
    client = stage.connect()
    assert client.ask(get("/long")).body == b"/long" * 20
    got = client.ask(get("/long" + "x" * 8000))
    assert (got.status, got.reason) == (503, "no_memory")
    assert stage.connect().ask(get("/long")).status == 200


def test_service_answers(stage):
    got = ask(stage, get("/service"))
    assert (got.status, got.body, got["X-Service"]) == (201, b"hello from the service", "hello")


def test_service_answers_head_without_a_body(stage):
    client = stage.connect()
    got = client.ask(get("/service", method="HEAD"), "HEAD")
    assert (got.status, got["Content-Length"]) == (201, "22")
    assert client.ask(get("/exact")).body == b"exact path"


def test_weighted_split(stage):
    for origin in stage.origins.values():
        origin.serve()
    client = stage.connect()
    taken = [client.ask(get("/split")).body.decode() for _ in range(400)]
    assert set(taken) == {"origin", "origin_canary"}
    # 30 % of 400 with a standard deviation of 9: far outside five of them is no chance.
    assert 70 <= taken.count("origin_canary") <= 170


def test_requests_are_counted_by_route(stage):
    counted = stage.counter("weir_http_requests_total", route="respond", code="4xx")
    ask(stage, get("/teapot"))
    counted.grows()


def test_pipelined_requests_take_routes_of_their_own(stage, client):
    client.send(get("/exact") + get("/teapot") + get("/service") + get("/moved"))
    assert [client.read_response().status for _ in range(4)] == [200, 418, 201, 308]
