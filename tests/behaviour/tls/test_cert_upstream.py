"""Servers behind TLS: who is believed, by which name, and weir's own certificate."""

import os
import shutil
import ssl

import pytest

from harness.certificates import Authority
from harness.http1 import answer, get
from harness.peer import Upstream


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp("certificates"))
    ca.site = ca.issue("site", "inner.example", "127.0.0.1", "::1")
    ca.own = ca.issue("own", subject="weir")
    ca.other = Authority(tmp_path_factory.mktemp("others"), "other")
    ca.strange = ca.other.issue("site", "inner.example", "127.0.0.1")
    return ca


def ini(more):
    return f"""
[listener web]
bind = @web
upstream = app
[upstream app]
server = @origin
tls = on
{more}
"""


def serve(stage, issued, authority=None):
    """The origin speaks TLS with that certificate; returns what it has seen of each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.crt, issued.key)
    if authority:
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    names = []
    context.sni_callback = lambda sock, name, context: names.append(name)
    client = stage.connect()
    client.send(get("/"))
    raw = stage.origin.accept()
    stage.origin.connections.remove(raw)
    try:
        sock = context.wrap_socket(raw.sock, server_side=True)
    except (ssl.SSLError, ConnectionError) as error:
        raw.close()
        return client.read_response(), names, error
    upstream = Upstream(sock)
    stage.origin.connections.append(upstream)
    upstream.read_request()
    upstream.send(answer(200, b"secure"))
    return client.read_response(), names, sock


def test_cert_of_a_server_with_its_name_is_believed(new_stage, ca):
    response, names, _ = serve(
        new_stage(ini(f"ca = {ca.file}\nserver_name = inner.example")), ca.site)
    assert response.body == b"secure"
    assert names == ["inner.example"]


@pytest.mark.parametrize("written, asked", [("inner.example.", "inner.example"), ("[::1]", None)])
def test_cert_of_a_server_is_asked_for_as_certificates_write_names(new_stage, ca, written, asked):
    response, names, _ = serve(
        new_stage(ini(f"ca = {ca.file}\nserver_name = {written}")), ca.site)
    assert response.body == b"secure"
    assert names == [asked]


def test_cert_of_a_server_with_its_address_is_believed(new_stage, ca):
    response, names, _ = serve(new_stage(ini(f"ca = {ca.file}")), ca.site)
    assert response.body == b"secure"
    assert names == [None]  # an address is no name to ask for


def test_cert_of_a_server_with_another_name_is_not(new_stage, ca):
    response, _, error = serve(
        new_stage(ini(f"ca = {ca.file}\nserver_name = outer.example")), ca.site)
    assert response.status == 502
    assert isinstance(error, ssl.SSLError)


def test_cert_of_a_server_by_somebody_else_is_not_believed(new_stage, ca):
    response, _, _ = serve(new_stage(ini(f"ca = {ca.file}")), ca.strange)
    assert response.status == 502
    response, _, _ = serve(new_stage(ini("")), ca.site)  # the system does not know it either
    assert response.status == 502


def why(stage):
    """What the log says of the one server that could not be connected."""
    said = stage.weir.says(": cannot connect: ")
    end, = [line.split(": cannot connect: ")[1] for line in said.splitlines()
            if ": cannot connect: " in line]
    return end


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_cert_of_a_server_that_is_not_believed_is_said_why(new_stage, ca, tmp_path, protocol):
    own = Authority(tmp_path)
    late, gone = own.issue("late", "127.0.0.1", days=-1), own.issue("gone", "127.0.0.1")
    own.revoke(gone)
    crl = own.write_crl()
    for file, more, shown, words in (
            (ca.file, "server_name = outer.example", ca.site, "hostname mismatch"),
            (ca.file, "", ca.strange, "unable to get local issuer certificate"),
            (own.file, "", late, "certificate has expired"),
            (own.file, f"crl = {crl}", gone, "certificate revoked")):
        stage = new_stage(ini(f"protocol = {protocol}\nca = {file}\n{more}"))
        assert serve(stage, shown)[0].status == 502
        assert why(stage) == f"the certificate is not valid, or not of who was asked for: {words}"


def test_cert_of_a_server_whose_alert_ends_the_handshake_is_in_the_log(new_stage, ca):
    stage = new_stage(ini(f"ca = {ca.file}"))
    client = stage.connect()
    client.send(get("/"))
    upstream = stage.origin.accept()
    upstream.send(b"\x15\x03\x03\x00\x02\x02\x28")  # fatal, handshake_failure
    assert client.read_response().status == 502
    assert why(stage) == ("the other side ended the TLS handshake with an alert: "
                          "sslv3 alert handshake failure")


def test_cert_of_a_server_is_not_looked_at_without_verify(new_stage, ca):
    response, names, _ = serve(
        new_stage(ini("verify = off\nserver_name = outer.example")), ca.strange)
    assert response.body == b"secure"
    assert names == ["outer.example"]


def test_cert_of_a_server_that_was_revoked_is_not_believed(new_stage, tmp_path):
    own = Authority(tmp_path)
    site = own.issue("site", "127.0.0.1")
    own.revoke(site)
    response, _, _ = serve(new_stage(ini(f"ca = {own.file}\ncrl = {own.write_crl()}")), site)
    assert response.status == 502


def test_tls_config_of_a_server_that_speaks_h2_asks_for_it(new_stage, ca):
    for more, wanted in (("protocol = h2", "h2"), ("", None)):
        stage = new_stage(ini(f"ca = {ca.file}\n{more}"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca.site.crt, ca.site.key)
        context.set_alpn_protocols(["http/1.1", "h2"])
        client = stage.connect()
        client.send(get("/"))
        raw = stage.origin.accept()
        stage.origin.connections.remove(raw)
        with context.wrap_socket(raw.sock, server_side=True) as sock:
            assert sock.selected_alpn_protocol() == wanted
        assert client.read_response().status in (502, 503)


def test_cert_of_weir_is_shown_to_servers_that_ask(new_stage, ca):
    response, _, sock = serve(
        new_stage(ini(f"ca = {ca.file}\ncertificate = {ca.own.crt}\nkey = {ca.own.key}")), ca.site,
        authority=ca)
    assert response.body == b"secure"
    subject = dict(pair[0] for pair in sock.getpeercert()["subject"])
    assert subject["commonName"] == "weir"


def test_cert_of_who_is_believed_can_change(new_stage, ca, tmp_path):
    file = tmp_path / "believed.crt"
    shutil.copy(ca.other.file, file)
    stage = new_stage(ini(f"ca = {file}\nwatch = 50ms"))
    response, _, _ = serve(stage, ca.site)
    assert response.status == 502
    shutil.copy(ca.file, tmp_path / "next")
    os.replace(tmp_path / "next", file)
    stage.weir.eventually_metric(1, "weir_tls_cert_reloads_total", result="ok")
    response, _, _ = serve(stage, ca.site)
    assert response.body == b"secure"
