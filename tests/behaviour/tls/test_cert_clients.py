"""Clients that show certificates: off, optional, require, with CA and CRL."""

import os
import shutil
import ssl
import time

import pytest

from harness.certificates import Authority, client, says_hello
from harness.tls_client import ask, refused, shake

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp("certificates"))
    ca.site = ca.issue("site", "site.example")
    ca.good = ca.issue("good")
    ca.bad = ca.issue("bad")
    ca.late = ca.issue("late", days=-1)
    ca.other = Authority(tmp_path_factory.mktemp("others"), "other").issue("stranger")
    ca.revoke(ca.bad)
    ca.crl = ca.write_crl()
    return ca


def assert_taken(port, ca, own=None):
    for version in VERSIONS:
        with shake(port, client(ca, version, own)) as sock:
            assert ask(sock).body == b"hello"


def assert_refused(port, ca, own, alerts):
    assert {refused(port, client(ca, version, own)) for version in VERSIONS} <= set(alerts)


def test_cert_of_clients_is_not_asked_for(new_stage, ca):
    port = new_stage(says_hello(ca.site, "")).things["web"]
    assert_taken(port, ca)
    assert_taken(port, ca, ca.other)


def test_cert_of_clients_is_optional(new_stage, ca):
    port = new_stage(says_hello(ca.site, f"client_auth = optional\nca = {ca.file}")).things["web"]
    assert_taken(port, ca)
    assert_taken(port, ca, ca.good)
    assert_taken(port, ca, ca.bad)  # nobody has asked who was revoked
    assert_refused(port, ca, ca.other, ["UNKNOWN_CA"])


def test_cert_of_an_authority_that_has_expired(new_stage, ca, tmp_path):
    old = Authority(tmp_path, "old", days=-1)
    stage = new_stage(says_hello(ca.site, f"client_auth = require\nca = {old.file}"))
    assert_refused(stage.things["web"], ca, old.issue("own"), ["CERTIFICATE_EXPIRED"])
    assert "tls site.ca: " in stage.weir.log and "authority that has expired" in stage.weir.log


def test_cert_of_clients_is_required(new_stage, ca):
    port = new_stage(says_hello(ca.site, f"client_auth = require\nca = {ca.file}")).things["web"]
    assert_taken(port, ca, ca.good)
    assert_refused(port, ca, None, ["HANDSHAKE_FAILURE", "CERTIFICATE_REQUIRED"])
    assert_refused(port, ca, ca.other, ["UNKNOWN_CA"])
    assert_refused(port, ca, ca.late, ["CERTIFICATE_EXPIRED"])


def test_cert_that_was_revoked_is_refused(new_stage, ca):
    more = f"client_auth = require\nca = {ca.file}\ncrl = {ca.crl}"
    port = new_stage(says_hello(ca.site, more)).things["web"]
    assert_taken(port, ca, ca.good)
    assert_refused(port, ca, ca.bad, ["CERTIFICATE_REVOKED"])


def test_cert_revoked_meanwhile_cannot_come_back_by_a_ticket(new_stage, ca, tmp_path):
    own = Authority(tmp_path)
    site, member = own.issue("site", "site.example"), own.issue("member")
    crl = own.write_crl()
    stage = new_stage(says_hello(site, f"""
client_auth = require
ca = {own.file}
crl = {crl}
watch = 50ms
"""))
    port = stage.things["web"]
    context = client(own, own=member)
    with shake(port, context) as sock:
        assert ask(sock).body == b"hello"
        session = sock.session
    with shake(port, context, session=session) as sock:
        assert sock.session_reused
        assert ask(sock).body == b"hello"
        session = sock.session
    own.revoke(member)
    own.write_crl()
    stage.weir.eventually_metric(1, "weir_tls_cert_reloads_total", result="ok")
    with pytest.raises(ssl.SSLError, match="(?i)certificate.revoked"):
        with shake(port, context, session=session) as sock:
            ask(sock)


def test_cert_revoked_is_refused_when_the_list_has_become_empty(new_stage, ca, tmp_path):
    """A file without a byte is no list that revokes nobody."""
    crl = shutil.copy(ca.crl, tmp_path)
    stage = new_stage(says_hello(ca.site, f"""
client_auth = require
ca = {ca.file}
crl = {crl}
watch = 50ms
"""))
    port = stage.things["web"]
    os.truncate(crl, 0)
    stage.weir.eventually_metric(1, "weir_tls_cert_reloads_total", result="failed")
    stage.weir.says(f"tls site.crl: {crl}: it is empty (the files from before stay in use)")
    assert_refused(port, ca, ca.bad, ["CERTIFICATE_REVOKED"])
    assert_taken(port, ca, ca.good)


@pytest.mark.parametrize("version", VERSIONS)
def test_cert_that_has_expired_meanwhile_cannot_come_back_by_a_ticket(new_stage, ca, version):
    port = new_stage(says_hello(ca.site, f"client_auth = require\nca = {ca.file}")).things["web"]
    brief = ca.issue("brief", days=4 / 86400 - 0.5)
    context = client(ca, version, brief)
    with shake(port, context) as sock:
        assert ask(sock).body == b"hello"
        session = sock.session
    with shake(port, context, session=session) as sock:
        assert sock.session_reused
        assert ask(sock).body == b"hello"
        session = sock.session
    time.sleep(max(0, brief.not_after + 1 - time.time()))
    with pytest.raises(ssl.SSLError, match="(?i)certificate.expired"):
        with shake(port, context, session=session) as sock:
            ask(sock)
