"""Which certificate a client is shown, and who is refused."""

import ssl
import subprocess

import pytest

from harness.certificates import Authority, client, says_hello
from harness.tls_client import ask, refused, s_client, shake, shown

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp("certificates"))
    ca.first = ca.issue("first", "first.example")
    ca.wild = ca.issue("wild", "*.b.example")
    ca.exact = ca.issue("exact", "x.b.example")
    ca.rsa = ca.issue("rsa", "two.example", kind="rsa")
    ca.both = ca.issue("both", "two.example")
    return ca


def ini(ca, more="", listener=""):
    others = "".join(f"certificate = {one.crt}\nkey = {one.key}\n"
                     for one in (ca.wild, ca.exact, ca.rsa, ca.both))
    return says_hello(ca.first, others + more).replace("tls = site", f"tls = site\n{listener}")


def test_cert_by_exact_name_then_wildcard_then_the_first(new_stage, ca):
    port = new_stage(ini(ca)).things["web"]
    for version in (V12, V13):
        context = client(ca, version)
        assert shown(port, context, "first.example") == ca.first.der
        assert shown(port, context, "x.b.example") == ca.exact.der
        assert shown(port, context, "y.b.example") == ca.wild.der
        assert shown(port, context, "y.y.b.example") == ca.first.der
        assert shown(port, context, "unknown.example") == ca.first.der
        assert shown(port, context) == ca.first.der


def test_cert_of_a_name_with_a_dot_at_its_end(new_stage, ca):
    port = new_stage(ini(ca, "strict_sni = on")).things["web"]
    for version in ("-tls1_2", "-tls1_3"):
        for name, subject in (("first.example.", "first"), ("x.b.example.", "exact"),
                              ("y.b.example.", "wild")):
            assert f"CN = {subject}" in s_client(port, version, "-servername", name)
    assert "no peer certificate" in s_client(port, "-servername", ".")


def test_cert_by_kind_of_key(new_stage, ca):
    port = new_stage(ini(ca)).things["web"]
    assert shown(port, client(ca, V12, algorithms="ECDHE+aRSA"), "two.example") == ca.rsa.der
    assert shown(port, client(ca, V12, algorithms="ECDHE+aECDSA"), "two.example") == ca.both.der
    assert "Peer signature type: RSA-PSS" in s_client(port, "-servername", "two.example",
                                                      "-sigalgs", "RSA-PSS+SHA256")
    assert "Peer signature type: ECDSA" in s_client(port, "-servername", "two.example")


def test_cert_strict_sni_refuses_names_without_a_certificate(new_stage, ca):
    port = new_stage(ini(ca, "strict_sni = on")).things["web"]
    assert shown(port, client(ca), "y.b.example") == ca.wild.der
    assert refused(port, client(ca), "unknown.example") == "UNRECOGNIZED_NAME"
    assert refused(port, client(ca)) == "UNRECOGNIZED_NAME"


def test_tls_config_min_version(new_stage, ca):
    port = new_stage(ini(ca, "min_version = 1.3")).things["web"]
    with shake(port, client(ca, V13)) as sock:
        assert sock.version() == "TLSv1.3"
    assert refused(port, client(ca, V12)) == "PROTOCOL_VERSION"


def test_tls_config_alpn(new_stage, ca):
    port = new_stage(ini(ca, listener="alpn = http/1.1")).things["web"]
    with shake(port, client(ca, alpn=["h9", "http/1.1"])) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert ask(sock).body == b"hello"
    with shake(port, client(ca)) as sock:
        assert sock.selected_alpn_protocol() is None
        assert ask(sock).body == b"hello"
    assert refused(port, client(ca, alpn=["h9"])) == "NO_APPLICATION_PROTOCOL"


def test_tls_config_offers_h2_unless_told_otherwise(new_stage, ca):
    stage = new_stage(ini(ca))
    port = stage.things["web"]
    with shake(port, client(ca, alpn=["http/1.1", "h2"])) as sock:
        assert sock.selected_alpn_protocol() == "h2"
    url = f"https://first.example:{port.number}/"
    for wanted, option in (("2", "--http2"), ("1.1", "--http1.1")):
        done = subprocess.run(
            ["curl", "-s", option, "--cacert", ca.file, "--resolve",
             f"first.example:{port.number}:127.0.0.1", "-w", " over %{http_version}", url],
            capture_output=True, text=True, timeout=20)
        assert done.stdout == f"hello over {wanted}", done


def test_tls_config_ciphers_and_groups_are_as_said(new_stage, ca):
    port = new_stage(ini(ca, """
ciphers = ECDHE-ECDSA-AES256-GCM-SHA384
ciphersuites = TLS_CHACHA20_POLY1305_SHA256
groups = P-384
""")).things["web"]
    with shake(port, client(ca, V12)) as sock:
        assert sock.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    with shake(port, client(ca, V13)) as sock:
        assert sock.cipher()[0] == "TLS_CHACHA20_POLY1305_SHA256"
    assert "Server Temp Key: ECDH, secp384r1" in s_client(port)


def test_tls_config_server_prefers_but_honours_chacha_clients(new_stage, ca):
    port = new_stage(ini(ca)).things["web"]
    gcm, chacha = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"
    weaker_first = client(ca, V12, algorithms=f"ECDHE-ECDSA-AES256-GCM-SHA384:{gcm}")
    with shake(port, weaker_first, "first.example") as sock:
        assert sock.cipher()[0] == gcm
    with shake(port, client(ca, V12, algorithms=f"{chacha}:{gcm}"), "first.example") as sock:
        assert sock.cipher()[0] == chacha


def test_cert_staple_is_sent_with_its_certificate(new_stage, ca):
    staple = ca.write_staple(ca.first)
    port = new_stage(ini(ca, f"ocsp_staple = {staple} off off off off")).things["web"]
    for version in ("-tls1_2", "-tls1_3"):
        output = s_client(port, "-status", version, "-servername", "first.example")
        assert "OCSP Response Status: successful" in output
        assert "Cert Status: good" in output
        output = s_client(port, "-status", version, "-servername", "x.b.example")
        assert "OCSP response: no response sent" in output


def test_cert_staple_that_has_expired_is_not_sent(new_stage, ca):
    stage = new_stage(ini(ca, f"ocsp_staple = {ca.write_staple(ca.first, 'old', days=-1)} "
                              "off off off off"))
    assert "OCSP response: no response sent" in s_client(stage.things["web"], "-status")
    assert "has expired and is not sent" in stage.weir.log
