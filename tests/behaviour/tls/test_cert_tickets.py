"""Sessions that are resumed: on any worker, until the key of their ticket is gone."""

import ssl

import pytest

from harness.certificates import Authority, client, says_hello
from harness.tls_client import ask, shake
from harness.wait import eventually

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp("certificates"))
    ca.site = ca.issue("site", "site.example")
    return ca


def ini(ca, more=""):
    return says_hello(ca.site, more) + f"""
[listener other]
bind = @other
service = hello
tls = other
[tls other]
certificate = {ca.site.crt}
key = {ca.site.key}
"""


def visit(port, context, session=None):
    """(resumed, the session for the next time)."""
    with shake(port, context, session=session) as sock:
        assert ask(sock).body == b"hello"
        return sock.session_reused, sock.session


@pytest.mark.parametrize("version", VERSIONS)
def test_cert_tickets_are_good_on_every_worker(new_stage, ca, version):
    stage = new_stage(ini(ca), workers=2)
    port, context = stage.things["web"], client(ca, version)
    resumed, session = visit(port, context)
    assert not resumed
    # The kernel picks the worker of each connection anew.
    for _ in range(20):
        resumed, session = visit(port, context, session)
        assert resumed


@pytest.mark.parametrize("version", VERSIONS)
def test_cert_tickets_end_with_their_key(new_stage, ca, version):
    stage = new_stage(ini(ca, "ticket_rotation = 1s"))
    port, context = stage.things["web"], client(ca, version)
    _, first = visit(port, context)
    resumed, _ = visit(port, context, first)
    assert resumed
    kept = [first]

    def first_is_gone():
        resumed, kept[0] = visit(port, context, kept[0])
        # With TLS 1.3 every ticket is a new session: a client that comes often goes on for ever.
        assert resumed or version == ssl.TLSVersion.TLSv1_2
        return not visit(port, context, first)[0]

    eventually(first_is_gone, lambda: "the first ticket is good no more")


@pytest.mark.parametrize("version", VERSIONS)
def test_cert_tickets_of_one_section_are_nothing_to_another(new_stage, ca, version):
    stage = new_stage(ini(ca))
    context = client(ca, version)
    _, session = visit(stage.things["web"], context)
    assert not visit(stage.things["other"], context, session)[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_cert_without_tickets_nothing_is_resumed(new_stage, ca, version):
    stage = new_stage(ini(ca, "session_tickets = off"))
    port, context = stage.things["web"], client(ca, version)
    _, session = visit(port, context)
    assert not (session and session.has_ticket)
    if session:
        assert not visit(port, context, session)[0]


def test_cert_who_takes_no_ticket_is_told_no_session_number(new_stage, ca):
    stage = new_stage(ini(ca))
    context = client(ca, ssl.TLSVersion.TLSv1_2)
    context.options |= ssl.OP_NO_TICKET
    resumed, session = visit(stage.things["web"], context)
    assert (resumed, session.id) == (False, b"")
    resumed, session = visit(stage.things["web"], context, session)
    assert (resumed, session.id) == (False, b"")


def test_cert_tickets_survive_a_new_certificate(new_stage, ca, tmp_path):
    own = Authority(tmp_path)
    site = own.issue("site", "site.example")
    both = type("Both", (), {"site": site})
    stage = new_stage(ini(both, "watch = 50ms"))
    port, context = stage.things["web"], client()
    _, session = visit(port, context)
    own.issue("site", "site.example")
    stage.weir.eventually_metric(1, "weir_tls_cert_reloads_total", result="ok")
    assert visit(port, context, session)[0]
