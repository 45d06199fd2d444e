"""Every HTTP version of a client with every one of a server: h1 and h2, and h1s and h2s in TLS.

INI has an upstream for each version of a server, named by it; `listeners()` the ways to it, for
clients in clear and in TLS, whose version ALPN decides.
"""

import pytest

from .tls import TO_ORIGIN

ORIGINS = {"h1": "origin", "h2": "origin_h2", "h1s": "origintls", "h2s": "originh2tls"}
VERSIONS = tuple(ORIGINS)
PAIRS = [(client, server) for client in VERSIONS for server in VERSIONS]

every_pair = pytest.mark.parametrize("client, server", PAIRS)


def is_h2(version):
    return version.startswith("h2")


def in_tls(version):
    return version.endswith("s")


def upstreams(servers=ORIGINS):
    """`servers`: where each version of a server listens."""
    return "".join(f"""
[upstream {version}]
protocol = {version[:2]}
server = @{name}
{TO_ORIGIN if in_tls(version) else ""}
""" for version, name in servers.items())


def listeners(way="to", lines=""):
    """Two for each version of a server: way_VERSION, and tls_way_VERSION for clients in TLS."""
    return "".join(f"""
[listener {way}_{version}]
bind = @{way}_{version}
upstream = {version}
{lines}
[listener tls_{way}_{version}]
bind = @tls_{way}_{version}
upstream = {version}
tls = site
{lines}
""" for version in VERSIONS)


# Whoever is slow, as on a busy machine, is not late.
SITE = """
[defaults]
max_body_size = 0
min_read_rate = 0
timeout_handshake = 60s
timeout_connect = 60s
timeout_server = 60s
[tls site]
certificate = weir.test+127.0.0.1.pem
"""
INI = SITE + upstreams() + listeners()


def listener(client, server, way="to"):
    """The one by which this version of a client reaches that of a server."""
    return f"{'tls_' if in_tls(client) else ''}{way}_{server}"


def connect(stage, client, server, way="to"):
    """A client of that version, as bytes: with ALPN its version is agreed on."""
    name = listener(client, server, way)
    if not in_tls(client):
        return stage.connect(name)
    return stage.connect_tls(name, alpn=["h2" if is_h2(client) else "http/1.1"])


def url(stage, client, server, path):
    return stage.url(path, listener(client, server), "https" if in_tls(client) else "http")


def origin_of(stage, server):
    return stage.origins[ORIGINS[server]]
