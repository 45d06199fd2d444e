"""What servers can be told of a client's TLS."""

import ssl

import pytest

from harness.certificates import Authority, client
from harness.http1 import answer, get
from harness.peer import Client
from harness.tls_client import shake

NAMES = ("version", "cipher", "sni", "client_subject", "client_verify")


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp("certificates"))
    ca.site = ca.issue("site", "site.example")
    ca.member = ca.issue("member", subject="A member, the first")
    return ca


@pytest.fixture
def tell(new_stage, ca):
    """tell(context, name): the values of X-Tls-* that the server sees."""
    stage = new_stage(f"""
[listener web]
bind = @web
upstream = app
tls = site
[listener clear]
bind = @clear
upstream = app
[route all]
upstream = app
{"".join(f'set_request_header = X-Tls-{name}: $tls_{name}' + chr(10) for name in NAMES)}
set_response_header = X-Seen: $tls_version $tls_client_verify
[tls site]
certificate = {ca.site.crt}
key = {ca.site.key}
client_auth = optional
ca = {ca.file}
[upstream app]
server = @origin
""")

    def tell(context=None, name=None):
        if context:
            sock = shake(stage.things["web"], context, name)
            asking = Client(sock)
            stage.clients.append(asking)
        else:
            asking = stage.connect("clear")
        # Who claims something of the kind is not believed.
        seen, response = stage.exchange(get("/", "X-Tls-sni: forged"), answer(200, b"x"),
                                        asking)
        return [seen[f"X-Tls-{name}"] for name in NAMES], response["X-Seen"]

    return tell


def test_tls_config_variables_tell_of_the_connection(tell, ca):
    values, seen = tell(client(ca, ssl.TLSVersion.TLSv1_3), "site.example")
    assert values == ["TLSv1.3", "TLS_AES_128_GCM_SHA256", "site.example", None, "NONE"]
    assert seen == "TLSv1.3 NONE"
    values, _ = tell(client(ca, ssl.TLSVersion.TLSv1_2))
    assert values == ["TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", None, None, "NONE"]


def test_tls_config_variables_tell_of_the_clients_certificate(tell, ca):
    values, seen = tell(client(ca, own=ca.member))
    assert values[3] == r"CN=A member\, the first,O=Tests"
    assert values[4] == "SUCCESS"
    assert seen == "TLSv1.3 SUCCESS"


def test_tls_config_variables_are_empty_in_clear(tell):
    values, seen = tell()
    assert values == [None] * 5
    assert seen.strip() == ""
