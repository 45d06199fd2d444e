"""What `weir check` says of proxy_protocol, trusted_proxies, send_proxy and their neighbours."""

import subprocess

import pytest

from harness.weir import BINARY

LISTENER = """[listener web]
bind = 127.0.0.1:8080
upstream = app
{}
[upstream app]
server = 127.0.0.1:8081
"""
UPSTREAM = """[listener web]
bind = 127.0.0.1:8080
upstream = app
[upstream app]
server = 127.0.0.1:8081
{}
"""


def check(tmp_path, text):
    (tmp_path / "weir.ini").write_text(text)
    return subprocess.run([BINARY, "-c", "weir.ini", "check"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=20, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("lines", [
    "proxy_protocol = any\ntrusted_proxies = 0.0.0.0/0 ::/0",
    "proxy_protocol = v2\ntrusted_proxies = 10.0.0.0/8, 192.0.2.1\ntrusted_proxies = unix:",
    "proxy_protocol = off",
    "trusted_proxies = 2001:db8::/32 ::ffff:10.0.0.0/104",
    "timeout_handshake = 100ms",
])
def test_good_listeners(tmp_path, lines):
    done = check(tmp_path, LISTENER.format(lines))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("lines", [
    "send_proxy = off\nkeepalive = 5", "send_proxy = v1", "send_proxy = v2\nkeepalive = 0"])
def test_good_upstreams(tmp_path, lines):
    done = check(tmp_path, UPSTREAM.format(lines))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("lines, wrong", [
    ("proxy_protocol = v1", "4: listener web.proxy_protocol: needs trusted_proxies, the addresses "
     "of the proxies that send the header (0.0.0.0/0 ::/0 trusts all)"),
    ("proxy_protocol = v3\ntrusted_proxies = ::1",
     '4: listener web.proxy_protocol: "v3" is none of off v1 v2 any (did you mean "v1"?)'),
    ("trusted_proxies = 10.0.0.0/33", '4: listener web.trusted_proxies: "10.0.0.0/33" is no '
     "network: 10.0.0.0/8, 2001:db8::/32, an address, or unix:"),
    ("trusted_proxies = 10.1.0.0/8", '4: listener web.trusted_proxies: "10.1.0.0/8" has bits '
     'behind its prefix (did you mean "10.0.0.0/8"?)'),
    ("trusted_proxies = ::1 localhost", '4: listener web.trusted_proxies: "localhost" is no '
     "network: 10.0.0.0/8, 2001:db8::/32, an address, or unix:"),
    ("timeout_handshake = 5", '4: listener web.timeout_handshake: "5" is not a duration with a '
     "unit (500ms 10s 5m 1h)"),
    ("send_proxy = v1", "4: listener web.send_proxy: does not belong here but in [upstream NAME]"),
])
def test_bad_listeners(tmp_path, lines, wrong):
    done = check(tmp_path, LISTENER.format(lines))
    assert (done.returncode, done.stderr) == (1, f"weir.ini:{wrong}\n")


@pytest.mark.parametrize("lines, wrong", [
    ("send_proxy = v1\nkeepalive = 10", "7: upstream app.keepalive: with send_proxy a connection "
     "is one client's and cannot be kept: it must be 0, or left out"),
    ("send_proxy = on", '6: upstream app.send_proxy: "on" is none of off v1 v2'),
])
def test_bad_upstreams(tmp_path, lines, wrong):
    done = check(tmp_path, UPSTREAM.format(lines))
    assert done.returncode == 1 and done.stderr.startswith(f"weir.ini:{wrong}")
    assert done.stderr.count("\n") == 1


def test_no_listener_of_admin(tmp_path):
    admin = "[admin]\nbind = 127.0.0.1:1\nproxy_protocol = v1\n"
    done = check(tmp_path, LISTENER.format("") + admin)
    assert done.returncode == 1
    assert "admin.proxy_protocol: does not belong here but in [listener NAME]" in done.stderr


def test_explain_rewrites_by_the_clients_address(tmp_path):
    (tmp_path / "weir.ini").write_text(LISTENER.format("trusted_proxies = 192.0.2.0/24"))

    def sends(client):
        done = subprocess.run([BINARY, "-c", "weir.ini", "explain", "GET", "/", "--listener", "web",
                               "-H", "X-Forwarded-For: 198.51.100.7", "--client", client],
                              cwd=tmp_path, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "X-Forwarded-For: 198.51.100.7, 192.0.2.9" in sends("192.0.2.9")
    assert "X-Forwarded-For: 203.0.113.9" in sends("203.0.113.9")
    assert "198.51.100.7" not in sends("203.0.113.9")
