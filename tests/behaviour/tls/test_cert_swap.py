"""Certificates that change while weir runs."""

import itertools
import os
import subprocess
import tempfile
import threading

import pytest

from harness.certificates import Authority, client, says_hello
from harness.peer import Client
from harness.http1 import get
from harness.tls_client import ask, s_client, shake, shown
from harness.wait import PATIENCE, eventually
from harness.weir import BINARY, Port

RELOADS = "weir_tls_cert_reloads_total"


@pytest.fixture
def ca(tmp_path):
    ca = Authority(tmp_path)
    ca.site = ca.issue("site", "site.example")
    return ca


def swap(ca):
    """In one file: that there is no moment at which certificate and key do not fit each other."""
    ca.site = ca.issue("site", "site.example", in_one=True)
    return ca.site


# Handshakes are slow when every core is busy; that is not what these tests are about.
UNHURRIED = "[defaults]\ntimeout_handshake = 60s\n"


def in_use(port, new):
    """A change is counted just before the workers are told of it."""
    eventually(lambda: shown(port) == new.der, "the new one is shown")


def ini(ca, more="", watch="50ms"):
    return says_hello(ca.site, f"watch = {watch}\n{more}")


def test_cert_swap_under_load_fails_no_handshake(new_stage, ca):
    swap(ca)
    stage = new_stage(ini(ca) + UNHURRIED, workers=2)
    port = stage.things["web"]
    errors, count, stop = [], [0], threading.Event()

    def load():
        context = client(ca)
        while not stop.is_set():
            try:
                with shake(port, context) as sock:
                    assert ask(sock).body == b"hello"
                count[0] += 1
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, 6):
            new = swap(ca)
            stage.weir.eventually_metric(turn, RELOADS, result="ok")
            eventually(lambda: shown(port) == new.der, lambda: f"certificate {turn} is in use")
            before = count[0]
            eventually(lambda: count[0] > before + 10 or errors, lambda: "handshakes went on")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors
    assert stage.count(RELOADS, result="failed") == 0


def test_cert_swap_leaves_connections_alone(new_stage, ca):
    stage = new_stage(ini(ca))
    port = stage.things["web"]
    sock = shake(port, client(ca))
    client_of_before = Client(sock)
    stage.clients.append(client_of_before)
    assert client_of_before.ask(get("/")).body == b"hello"
    begun = stage.connect("web")  # has not said a word yet
    new = ca.issue("site", "site.example")
    stage.weir.eventually_metric(1, RELOADS, result="ok")
    assert client_of_before.ask(get("/")).body == b"hello"
    assert begun.has_nothing()
    in_use(port, new)


def test_cert_that_is_broken_keeps_the_old_and_says_so(new_stage, ca):
    stage = new_stage(ini(ca))
    port, old = stage.things["web"], ca.site.der
    with open(ca.site.crt, "w") as file:
        file.write("-----BEGIN CERTIFICATE-----\nnonsense\n")
    stage.weir.eventually_metric(1, RELOADS, result="failed")
    assert shown(port) == old
    lines = [line for line in stage.weir.says(" error ").splitlines() if " error " in line]
    assert len(lines) == 1, lines
    assert "tls site.certificate:" in lines[0] and ca.site.crt in lines[0]
    assert "stay in use" in lines[0]
    # It is not tried again as it is; once it is whole it is taken.
    new = ca.issue("site", "site.example")
    stage.weir.eventually_metric(1, RELOADS, result="ok")
    in_use(port, new)
    assert stage.count(RELOADS, result="failed") == 1


def test_cert_whose_key_is_another_or_gone_keeps_the_old(new_stage, ca):
    stage = new_stage(ini(ca))
    port, old = stage.things["web"], ca.site.der
    other = ca.issue("other", "site.example")
    os.replace(other.key, ca.site.key)
    stage.weir.eventually_metric(1, RELOADS, result="failed")
    stage.weir.says("the key is not that of the certificate")
    assert shown(port) == old
    os.unlink(ca.site.key)
    stage.weir.eventually_metric(2, RELOADS, result="failed")
    stage.weir.says("No such file or directory")
    assert shown(port) == old
    ca.site.write()
    stage.weir.eventually_metric(1, RELOADS, result="ok")
    assert shown(port) == old


def test_cert_expiry_is_a_metric_and_a_warning(new_stage, ca):
    soon = ca.issue("site", "site.example", days=3)
    stage = new_stage(ini(ca))
    labels = {"tls": "site", "certificate": soon.crt}
    assert stage.count("weir_tls_cert_not_after_seconds", **labels) == soon.not_after
    assert f"tls site.certificate: {soon.crt} expires soon" in stage.weir.log
    later = ca.issue("site", "site.example", days=60)
    stage.weir.eventually_metric(later.not_after, "weir_tls_cert_not_after_seconds", **labels)


def test_cert_that_has_run_out_is_taken_and_said_so(new_stage, ca):
    """As at start: what the section says is used, and never silently."""
    revoked = ca.write_crl()
    stage = new_stage(ini(ca, f"client_auth = optional\nca = {ca.file}\ncrl = {revoked}"))
    port, says = stage.things["web"], "weir never warned that {} has expired"
    new = ca.issue("site", "site.example", days=-1)
    eventually(lambda: f" warn tls site.certificate: {new.crt} has expired: 20" in stage.weir.log,
               lambda: says.format(new.crt))
    eventually(lambda: shown(port) == new.der, lambda: "the new certificate is in use")
    assert f"{revoked} has expired" not in stage.weir.log
    ca.write_crl(days=-1)
    eventually(lambda: f" warn tls site.crl: {revoked} has expired, " in stage.weir.log,
               lambda: says.format(revoked))


def test_cert_staple_is_read_again(new_stage, ca):
    staple = ca.write_staple(ca.site)
    stage = new_stage(ini(ca, f"ocsp_staple = {staple}"))
    port = stage.things["web"]
    assert "Cert Status: good" in s_client(port, "-status")
    ca.write_staple(ca.site, days=-1)
    stage.weir.eventually_metric(1, RELOADS, result="ok")
    assert "OCSP response: no response sent" in s_client(port, "-status")


def test_cert_is_taken_without_a_staple_of_its_own(new_stage, ca):
    """Who renews it may not get a response any more: the certificate must not run out for that."""
    staple = ca.write_staple(ca.site)
    stage = new_stage(ini(ca, f"ocsp_staple = {staple}"))
    port = stage.things["web"]
    ca.site = ca.issue("site", "site.example")
    says = f" warn tls site.ocsp_staple: {staple} is not about {ca.site.crt} and is not sent"
    eventually(lambda: says in stage.weir.log, lambda: "weir never said so")
    eventually(lambda: shown(port) == ca.site.der, lambda: "the new certificate is in use")
    assert "OCSP response: no response sent" in s_client(port, "-status")
    ca.write_staple(ca.site)
    eventually(lambda: "Cert Status: good" in s_client(port, "-status"), lambda: "it is sent")


def test_cert_staple_that_has_become_empty_is_kept(new_stage, ca):
    staple = ca.write_staple(ca.site)
    stage = new_stage(ini(ca, f"ocsp_staple = {staple}"))
    os.truncate(staple, 0)
    stage.weir.eventually_metric(1, RELOADS, result="failed")
    stage.weir.says(f"tls site.ocsp_staple: {staple}: it is empty")
    assert "Cert Status: good" in s_client(stage.things["web"], "-status")


def test_cert_behind_a_link_is_watched(new_stage, ca, tmp_path):
    """As certbot and Kubernetes replace them."""
    for number in ("1", "2"):
        os.mkdir(tmp_path / number)
        Authority(tmp_path / number).issue("live", "site.example")
    os.symlink("1", tmp_path / "now")
    ca.site = type("Linked", (), {"crt": f"{tmp_path}/now/live.crt",
                                  "key": f"{tmp_path}/now/live.key"})
    stage = new_stage(ini(ca))
    port, old = stage.things["web"], shown(stage.things["web"])
    os.symlink("2", tmp_path / "next")
    os.replace(tmp_path / "next", tmp_path / "now")
    stage.weir.eventually_metric(1, RELOADS, result="ok")
    assert shown(port) != old


def test_cert_is_not_watched_when_told_so(new_stage, ca):
    watched = ca.issue("watched", "other.example")
    stage = new_stage(f"""
[listener second]
bind = @second
service = hello
tls = second
[tls second]
certificate = {watched.crt}
key = {watched.key}
watch = 50ms
""" + ini(ca, watch="0s"))
    old = ca.site.der
    ca.issue("site", "site.example")
    new = ca.issue("watched", "other.example")
    stage.weir.eventually_metric(1, RELOADS, result="ok")
    in_use(stage.things["second"], new)
    assert shown(stage.things["web"]) == old


def test_cert_swap_fails_no_connection_of_h2load(new_stage, ca):
    """600 connections, 200 a second, while the certificate changes again and again."""
    swap(ca)
    stage = new_stage(ini(ca) + UNHURRIED, workers=2)
    load = subprocess.Popen(
        ["h2load", "-n", "600", "-c", "600", "-r", "200", stage.url("/", scheme="https")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    swaps = 0
    try:
        while load.poll() is None:
            swap(ca)
            swaps += 1
            stage.weir.eventually_metric(swaps, RELOADS, result="ok")
        told = load.communicate()[0]
    finally:
        load.kill()
        load.wait()
    assert swaps > 2
    assert "600 succeeded, 0 failed, 0 errored" in told, told
    assert stage.count(RELOADS, result="failed") == 0


HIDDEN = """
[listener web]
bind = @web
tls = hidden
[listener other]
bind = @other
tls = shared
[route hello]
respond = 200 hello
[tls hidden]
certificate = {hidden.crt}
key = {hidden.key}
watch = 20ms
[tls shared]
certificate = {shared.crt}
watch = 20ms
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
def test_cert_that_the_user_may_not_read_again_is_told_at_the_start(new_stage, ca, tmp_path):
    """As those in folders that only root may enter: that is no change, and no failure yet."""
    os.chmod(tmp_path, 0o700)
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        authority = Authority(directory)
        shared = authority.issue("shared", "site.example", in_one=True)
        stage = new_stage(HIDDEN.format(hidden=ca.site, shared=shared), user="nobody")
        for path in (ca.site.crt, ca.site.key):
            assert f"warn {path}: Permission denied: when it changes, it will not be read again " \
                "(global.user has no right to)" in stage.weir.log
        assert shared.crt not in stage.weir.log
        for turn in range(1, 4):  # several looks at all of them
            new = authority.issue("shared", "site.example", in_one=True)
            stage.weir.eventually_metric(turn, RELOADS, result="ok")
        in_use(stage.things["other"], new)
        assert stage.count(RELOADS, result="failed") == 0
        os.chmod(new.crt, 0o600)
        stage.weir.eventually_metric(1, RELOADS, result="failed")
        stage.weir.says("cannot be read: Permission denied (the files from before stay in use)")
        assert shown(stage.things["other"]) == new.der
        assert shown(stage.things["web"]) == ca.site.der


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives others rights")
def test_cert_that_a_capability_lets_read_again_is_no_warning(ca, tmp_path):
    """As with AmbientCapabilities= of systemd: access(2) does not count them, open(2) does."""
    web = Port()
    os.chmod(ca.site.key, 0o600)
    (tmp_path / "weir.ini").write_text(
        f"[global]\nworkers = 1\nmax_connections = 50\n[listener web]\nbind = {web.address}\n"
        "tls = site\n[route hello]\nrespond = 200 hello\n"
        f"[tls site]\ncertificate = {ca.site.crt}\nkey = {ca.site.key}\n")
    weir = subprocess.Popen(
        ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
         "--inh-caps=+dac_override", "--ambient-caps=+dac_override",
         BINARY, "-c", "weir.ini"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        lines = list(itertools.takewhile(lambda line: " ready: " not in line, weir.stderr))
        weir.terminate()
        weir.communicate(timeout=PATIENCE)
    finally:
        weir.kill()
        weir.wait()
        web.close()
    assert lines and not [line for line in lines if "will not be read again" in line]
