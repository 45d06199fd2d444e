"""The fields that weir adds, and the edits of routes with their variables."""

import re

import pytest

from harness.http1 import answer, answer_head, get

INI = """
[listener web]
bind = @web @port6
upstream = app
[listener plain]
bind = @plain
upstream = app
via = off
forwarded = off
[listener rfc]
bind = @rfc @port6_rfc
upstream = app
forwarded = rfc7239

[route request]
path = /request
upstream = app
set_request_header = X-Set: new
add_request_header = X-Add: added
remove_request_header = X-Gone X-Gone-Too

[route response]
path = /response
upstream = app
set_response_header = X-Set: new
add_response_header = X-Add: added
remove_response_header = Server X-Gone

[route variables]
path = /variables
upstream = app
set_request_header = X-Client: $client_ip
set_request_header = X-Port: $client_port
set_request_header = X-Host: $host
set_request_header = X-Authority: $authority
set_request_header = X-Method: $method
set_request_header = X-Scheme: $scheme
set_request_header = X-Path: $path
set_request_header = X-Query: $query
set_request_header = X-Uri: $uri
set_request_header = X-Listener: $listener
set_request_header = X-Route: $route
set_request_header = X-Upstream: $upstream
set_request_header = X-From-Header: [$header_X_Source]
set_request_header = X-Request-Id: $request_id
set_request_header = X-Text: ${host}s-cost-$$5
set_response_header = X-Status: $status
set_response_header = X-Server: $server
set_response_header = X-Request-Id: $request_id

[route host]
path = /host
upstream = app
set_request_header = Host: rewritten.test:81

[route strip]
path = /strip/
upstream = app
strip_prefix = /strip
set_request_header = X-Path: $path

[upstream app]
server = @origin
"""


def test_via_is_added_both_ways(stage):
    """RFC 9110 section 7.6.3."""
    seen, got = stage.exchange(get())
    assert (seen["Via"], got["Via"]) == ("1.1 weir", "1.1 weir")


def test_via_is_appended_to_what_is_there(stage):
    seen, got = stage.exchange(get("/", "Via: 1.0 fred"), answer(200, b"", "Via: 1.1 origin"))
    assert ", ".join(seen.all("Via")) == "1.0 fred, 1.1 weir"
    assert ", ".join(got.all("Via")) == "1.1 origin, 1.1 weir"


def test_via_names_the_version_that_was_received(stage):
    seen, _ = stage.exchange(get("/", version="1.0"))
    assert seen["Via"] == "1.0 weir"
    _, got = stage.exchange(get(), answer(200, b"x", version="1.0"))
    assert got["Via"] == "1.0 weir"


def test_via_and_forwarded_can_be_switched_off(stage):
    seen, got = stage.exchange(get("/", "X-Forwarded-For: 10.9.8.7"), client=stage.connect("plain"))
    assert "Via" not in seen and "Via" not in got
    assert seen["X-Forwarded-For"] == "10.9.8.7"
    for name in ("X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"):
        assert name not in seen


def test_x_forwarded_fields_are_added(stage):
    seen, _ = stage.exchange(get("/", host="Name.test:8080"))
    assert seen["X-Forwarded-For"] == "127.0.0.1"
    assert seen["X-Forwarded-Proto"] == "http"
    assert seen["X-Forwarded-Host"] == "Name.test:8080"
    assert "Forwarded" not in seen


def test_x_forwarded_for_is_appended_to_and_the_others_are_replaced(stage):
    seen, _ = stage.exchange(get("/", "X-Forwarded-For: 10.9.8.7", "X-Forwarded-For: 10.6.5.4",
                                 "X-Forwarded-Proto: gopher", "X-Forwarded-Host: evil.test"))
    assert ", ".join(seen.all("X-Forwarded-For")) == "10.9.8.7, 10.6.5.4, 127.0.0.1"
    assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-Host"]) == ("http", "test")


def test_x_forwarded_for_has_the_ipv6_address_without_brackets(stage):
    seen, _ = stage.exchange(get(), client=stage.connect("port6"))
    assert seen["X-Forwarded-For"] == "::1"


def parameters(forwarded):
    """The last element of a Forwarded field as a dict."""
    return {name.lower(): value for name, value in
            re.findall(r'([A-Za-z]+)=("[^"]*"|[^;,"]+)', forwarded.split(",")[-1])}


def test_forwarded_of_rfc_7239(stage):
    seen, _ = stage.exchange(get(), client=stage.connect("rfc"))
    assert parameters(seen["Forwarded"]) == {"for": "127.0.0.1", "proto": "http", "host": "test"}
    assert "X-Forwarded-For" not in seen


def test_forwarded_quotes_what_is_no_token(stage):
    """RFC 7239 section 6: IPv6 in brackets and quotes; a host with a port in quotes."""
    seen, _ = stage.exchange(get("/", host="test:81"), client=stage.connect("port6_rfc"))
    assert parameters(seen["Forwarded"]) == {"for": '"[::1]"', "proto": "http", "host": '"test:81"'}


def test_forwarded_is_appended_to(stage):
    seen, _ = stage.exchange(get("/", "Forwarded: for=10.9.8.7"), client=stage.connect("rfc"))
    whole = ", ".join(seen.all("Forwarded"))
    assert whole.startswith("for=10.9.8.7, ") and parameters(whole)["for"] == "127.0.0.1"


def test_request_fields_are_set_added_and_removed(stage):
    lines = ["X-Set: old", "x-set: older", "X-Add: was here", "X-Gone: 1", "x-gone: 2",
             "X-Gone-Too: 3", "X-Stays: 4"]
    seen, _ = stage.exchange(get("/request", *lines))
    assert seen.all("X-Set") == ["new"]
    assert seen.all("X-Add") == ["was here", "added"]
    assert "X-Gone" not in seen and "X-Gone-Too" not in seen
    assert seen["X-Stays"] == "4"


def test_response_fields_are_set_added_and_removed(stage):
    lines = ["X-Set: old", "x-set: older", "X-Add: was here", "Server: secret/1.0", "X-Gone: 1",
             "X-Stays: 2"]
    _, got = stage.exchange(get("/response"), answer(200, b"", *lines))
    assert got.all("X-Set") == ["new"]
    assert got.all("X-Add") == ["was here", "added"]
    assert "Server" not in got and "X-Gone" not in got
    assert got["X-Stays"] == "2"


def test_other_routes_are_not_edited(stage):
    seen, got = stage.exchange(get("/", "X-Gone: 1"), answer(200, b"", "Server: s"))
    assert seen["X-Gone"] == "1" and "X-Set" not in seen
    assert got["Server"] == "s" and "X-Set" not in got


def test_variables_are_expanded(stage, client):
    request = get("/variables/a?b=c&d", "X-Source: from here", host="Name.Test:81")
    seen, got = stage.exchange(request, answer(299, b""), client)
    port = client.sock.getsockname()[1]
    wanted = {
        "X-Client": "127.0.0.1", "X-Port": str(port), "X-Host": "name.test",
        "X-Authority": "Name.Test:81", "X-Method": "GET", "X-Scheme": "http",
        "X-Path": "/variables/a", "X-Query": "b=c&d", "X-Uri": "/variables/a?b=c&d",
        "X-Listener": "web", "X-Route": "variables", "X-Upstream": "app",
        "X-From-Header": "[from here]", "X-Text": "name.tests-cost-$5",
    }
    assert {name: seen[name] for name in wanted} == wanted
    assert got["X-Status"] == "299"
    assert got["X-Server"] == stage.origin.address
    assert re.fullmatch("[0-9a-f]{16}", seen["X-Request-Id"])
    assert got["X-Request-Id"] == seen["X-Request-Id"]


def test_request_ids_differ(stage):
    ids = {stage.exchange(get("/variables"))[0]["X-Request-Id"] for _ in range(10)}
    assert len(ids) == 10


def test_variables_without_a_value_are_empty(stage):
    seen, _ = stage.exchange(get("/variables"))
    assert seen["X-Query"] in (None, "") and seen["X-From-Header"] == "[]"


def test_host_can_be_set(stage):
    seen, _ = stage.exchange(get("/host"))
    assert seen["Host"] == "rewritten.test:81"
    assert seen["X-Forwarded-Host"] == "test"


@pytest.mark.parametrize("target, sent", [
    ("/strip/a/b?c", "/a/b?c"), ("/strip/", "/"), ("/strip/strip/x", "/strip/x"), ("/strip/?q",
                                                                                   "/?q"),
    ("/strip/%2Fa", "/%2Fa"),
])
def test_strip_prefix(stage, target, sent):
    seen, _ = stage.exchange(get(target))
    assert seen.target == sent


def test_interim_answers_are_not_edited(stage, client, origin):
    upstream = origin.asked_by(client, get("/response"))
    upstream.send(answer_head(103, "Link: </a>") + answer(200, b"x"))
    assert "X-Set" not in client.read_response()
    assert client.read_response()["X-Set"] == "new"
