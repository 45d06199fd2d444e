"""trusted_proxies: whose X-Forwarded fields go on, and whose are thrown away."""

import pytest

from harness import proxy_protocol as pp
from harness.http1 import get

INI = """
[listener unasked]
bind = @unasked
upstream = app
[listener asked]
bind = @asked
upstream = app
trusted_proxies = 127.0.0.1 203.0.113.0/24
[listener rfc]
bind = @rfc
upstream = app
forwarded = rfc7239
trusted_proxies = 127.0.0.1
[listener off]
bind = @off
upstream = app
forwarded = off
trusted_proxies = 127.0.0.1
[listener header]
bind = @header
upstream = app
proxy_protocol = any
trusted_proxies = 127.0.0.1 203.0.113.0/24
[listener unix]
bind = @unix
upstream = app
trusted_proxies = unix:
[upstream app]
server = @origin
"""

CLAIMS = ("X-Forwarded-For: 192.0.2.1", "x-forwarded-for: 192.0.2.2", "X-Forwarded-Proto: https",
          "X-Forwarded-Host: claimed", "X-Forwarded-Port: 444", "X-FORWARDED-Prefix: /x",
          "Forwarded: for=192.0.2.3", "X-Forwarde: kept")


def seen(stage, name, source="127.0.0.1", claims=CLAIMS, header=b""):
    client = stage.connect(name, source=source if name != "unix" else None)
    if header:
        client.send(header)
    return stage.exchange(get("/", *claims), client=client)[0]


def fields(request):
    names = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port",
             "X-Forwarded-Prefix", "Forwarded", "X-Forwarde")
    return {name: request.all(name) for name in names if request.all(name)}


TRUSTED = {"X-Forwarded-For": ["192.0.2.1", "192.0.2.2, {ip}"], "X-Forwarded-Proto": ["https"],
           "X-Forwarded-Host": ["claimed"], "X-Forwarded-Port": ["444"],
           "X-Forwarded-Prefix": ["/x"], "Forwarded": ["for=192.0.2.3"], "X-Forwarde": ["kept"]}
OWN = {"X-Forwarded-For": ["{ip}"], "X-Forwarded-Proto": ["http"], "X-Forwarded-Host": ["test"],
       "X-Forwarde": ["kept"]}


def with_ip(wanted, ip):
    return {name: [value.format(ip=ip) for value in values] for name, values in wanted.items()}


def test_from_a_trusted_proxy_they_go_on(stage):
    assert fields(seen(stage, "asked")) == with_ip(TRUSTED, "127.0.0.1")


def test_from_others_they_are_replaced(stage):
    assert fields(seen(stage, "asked", "127.0.0.2")) == with_ip(OWN, "127.0.0.2")


def test_what_a_trusted_proxy_does_not_say_is_said(stage):
    request = seen(stage, "asked", claims=())
    assert fields(request) == {name: values for name, values in with_ip(OWN, "127.0.0.1").items()
                               if name != "X-Forwarde"}


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_without_the_key_all_are_alike(stage, source):
    wanted = with_ip(TRUSTED, source) | {"X-Forwarded-Proto": ["http"],
                                         "X-Forwarded-Host": ["test"]}
    assert fields(seen(stage, "unasked", source)) == wanted


def test_rfc7239(stage):
    trusted = seen(stage, "rfc")
    assert trusted["Forwarded"] == "for=192.0.2.3, for=127.0.0.1;host=test;proto=http"
    assert trusted["X-Forwarded-Proto"] == "https"
    assert fields(seen(stage, "rfc", "127.0.0.2")) == {
        "Forwarded": ["for=127.0.0.2;host=test;proto=http"], "X-Forwarde": ["kept"]}


def test_forwarded_off(stage):
    assert fields(seen(stage, "off"))["X-Forwarded-For"] == ["192.0.2.1", "192.0.2.2"]
    assert fields(seen(stage, "off", "127.0.0.2")) == {"X-Forwarde": ["kept"]}


@pytest.mark.parametrize("ip, is_trusted", [("203.0.113.9", True), ("198.51.100.9", False)])
def test_behind_a_header_its_address_decides(stage, ip, is_trusted):
    """The proxy is trusted to say who its client is; that does not make the client a proxy."""
    request = seen(stage, "header", header=pp.v2(ip))
    assert fields(request) == with_ip(TRUSTED if is_trusted else OWN, ip)


def test_clients_of_a_unix_socket(stage):
    assert fields(seen(stage, "unix")) == with_ip(TRUSTED, "unknown")
