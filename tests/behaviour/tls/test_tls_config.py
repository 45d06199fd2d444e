"""What `weir check`, `doctor` and `explain` say about TLS."""

import re
import subprocess

import pytest

from harness.certificates import Authority
from harness.weir import BINARY, ROOT


@pytest.fixture
def ca(tmp_path):
    ca = Authority(tmp_path)
    ca.site = ca.issue("site", "site.example", "*.b.example", days=60)
    ca.other = ca.issue("other", "other.example", days=60)
    (tmp_path / "empty.crl").touch()
    return ca


@pytest.fixture
def run(tmp_path):
    """run(INI, *arguments): (exit status, lines of stdout, lines of stderr)."""

    def run(ini, *arguments):
        (tmp_path / "weir.ini").write_text("\n".join(line.strip() for line in ini.splitlines()))
        done = subprocess.run([BINARY, "-c", "weir.ini", *arguments], cwd=tmp_path, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return run


def ini(certificate="site.crt", key="site.key", more="", route=""):
    return f"""[listener web]
bind = 127.0.0.1:8443
upstream = app
tls = site
[upstream app]
server = localhost:9000
[tls site]
certificate = {certificate}
key = {key}
{more}
{route}
"""


def test_tls_config_files_are_beside_the_configuration(run, ca):
    assert run(ini(), "check")[0] == 0
    assert run(ini("./site.crt", ca.site.key), "check")[0] == 0


@pytest.mark.parametrize("change, wanted", [
    (dict(key="other.key"), [
        "weir.ini:9: tls site.key: other.key: the key is not that of the certificate"]),
    (dict(key="none.key"), [
        "weir.ini:9: tls site.key: none.key: cannot be read: No such file or directory"]),
    (dict(certificate="none.crt site.crt site.key", key="none.key other.key .",
          more="ocsp_staple = none.der off none.der\nclient_auth = require\nca = none.crt\n"
               "crl = none.crl\n"), [
        "weir.ini:8: tls site.certificate: none.crt: cannot be read: No such file or directory",
        "weir.ini:9: tls site.key: none.key: cannot be read: No such file or directory",
        "weir.ini:9: tls site.key: .: cannot be read: not a file",
        "weir.ini:9: tls site.key: other.key: the key is not that of the certificate",
        "weir.ini:10: tls site.ocsp_staple: none.der: cannot be read: No such file or directory",
        "weir.ini:10: tls site.ocsp_staple: none.der: cannot be read: No such file or directory",
        "weir.ini:12: tls site.ca: none.crt: cannot be read: No such file or directory",
        "weir.ini:13: tls site.crl: none.crl: cannot be read: No such file or directory"]),
    (dict(certificate="site.key"), [
        "weir.ini:8: tls site.certificate: site.key: there is no PEM certificate in it"]),
    (dict(more="ciphers = NONE-SUCH"), [
        "weir.ini:10: tls site.ciphers: NONE-SUCH: no cipher match"]),
    (dict(key="other.key", more="ciphersuites = A\ngroups = B\nocsp_staple = site.key"), [
        "weir.ini:9: tls site.key: other.key: the key is not that of the certificate",
        "weir.ini:10: tls site.ciphersuites: A: no cipher match",
        'weir.ini:11: tls site.groups: "B" has a group that OpenSSL does not know, or one twice']),
    (dict(more="ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_128_CMG_SHA256"), [
        "weir.ini:10: tls site.ciphersuites: TLS_AES_128_CMG_SHA256: no cipher match"]),
    (dict(more="ocsp_staple = site.key"), [
        "weir.ini:10: tls site.ocsp_staple: site.key: it is not an OCSP response (DER)"]),
    (dict(more="client_auth = require\nca = site.key"), [
        "weir.ini:11: tls site.ca: site.key: there is no PEM certificate in it"]),
    (dict(more="client_auth = require\nca = ca.crt\ncrl = ca.crt"), [
        "weir.ini:12: tls site.crl: ca.crt: there is no PEM revocation list in it"]),
    (dict(more="client_auth = require\nca = ca.crt\ncrl = empty.crl"), [
        "weir.ini:12: tls site.crl: empty.crl: it is empty"]),
    (dict(more="[upstream u]\nserver = localhost:1\ntls = on\nca = site.key\n"), [
        "weir.ini:13: upstream u.ca: site.key: there is no PEM certificate in it"]),
    (dict(more="[upstream u]\nserver = localhost:1\ntls = on\ncertificate = site.crt\n"
               "key = other.key\n"), [
        "weir.ini:14: upstream u.key: other.key: the key is not that of the certificate"]),
])
def test_tls_config_errors_have_a_line(run, ca, change, wanted):
    status, _, errors = run(ini(**change), "check")
    assert errors == wanted
    assert status == 1
    assert run(ini(**change))[0] == 1  # nor does it serve


@pytest.mark.parametrize("change, wanted", [
    (dict(key="other.key", more="tickets = on"), [
        "weir.ini:10: tls site.tickets: unknown key",
        "weir.ini:9: tls site.key: other.key: the key is not that of the certificate"]),
    (dict(more="[tls other]\nkey = other.key\n[upstream u]\nserver = localhost:1\ntls = on\n"
               "ca = site.key\n"), [
        "weir.ini:10: tls other.certificate: missing (PEM files: the certificate, then its "
        "intermediates)",
        "weir.ini:15: upstream u.ca: site.key: there is no PEM certificate in it"]),
    # What follows from an error is none.
    (dict(certificate="site.crt other.crt", more="client_auth = require\ncrl = none.crl"), [
        "weir.ini:9: tls site.key: 1 files for 2 certificates: it must be one for each, in the "
        "same order",
        "weir.ini:10: tls site.client_auth: needs ca, the file of who may have signed them",
        "weir.ini:11: tls site.crl: none.crl: cannot be read: No such file or directory"]),
    # Nor are there warnings yet: of the section that a misspelt key should have named.
    (dict(more="[tls b]\ncertificate = late.crt\nkey = late.key\n"
               "[listener b]\nbind = unix:/b\nupstream = app\nssl = b"), [
        'weir.ini:16: listener b.ssl: unknown key']),
])
def test_tls_config_files_are_looked_at_beside_other_errors(run, ca, change, wanted):
    ca.issue("late", "late.example", days=-1)
    status, _, errors = run(ini(**change), "check")
    assert (status, errors) == (1, wanted)


def test_tls_config_of_a_curve_that_no_handshake_can_use(run, ca):
    """Bitcoin's is often taken for that of TLS."""
    ca.issue("good", "site.example", kind="secp521r1", days=60)
    assert run(ini("good.crt", "good.key"), "check")[0] == 0
    ca.issue("bad", "site.example", kind="secp256k1", days=60)
    status, _, errors = run(ini("bad.crt", "bad.key"), "check")
    assert status == 1
    assert errors == ["weir.ini:9: tls site.key: bad.key: its curve, secp256k1, is not for TLS"]


def test_tls_config_of_several_certificates_names_the_bad_one(run, ca):
    text = ini("site.crt other.crt", "site.key", "key = site.key")
    assert run(text, "check")[2] == [
        "weir.ini:10: tls site.key: site.key: the key is not that of the certificate"]


def test_tls_config_warns_of_certificates_that_run_out(run, ca):
    ca.issue("late", "late.example", days=-1)
    ca.issue("soon", "soon.example", days=3)
    text = ini("site.crt late.crt soon.crt", "site.key late.key soon.key")
    status, _, lines = run(text, "check")
    assert status == 0
    assert len(lines) == 2
    assert lines[0].startswith("weir.ini:8: warning: tls site.certificate: late.crt has expired: ")
    assert lines[1].startswith("weir.ini:8: warning: tls site.certificate: soon.crt expires soon: ")
    output = run(text, "doctor")[1]
    assert "ok    tls site: site.crt is valid for 60 days" in output
    assert "warn  tls site: late.crt has expired: renew it" in output
    assert "warn  tls site: soon.crt expires in 3 days: renew it" in output
    assert any(line.startswith("ok    TLS: OpenSSL 3") for line in output)


def test_tls_config_warns_of_authorities_without_a_root(run, ca):
    """By an intermediate alone, or the certificate of one end, nobody is believed."""
    both = """client_auth = require
ca = {0}
[upstream u]
server = localhost:1
tls = on
ca = {0}
"""
    status, _, lines = run(ini(more=both.format("site.crt")), "check")
    assert status == 0
    wanted = "site.crt has no root, a certificate signed by itself: nobody is believed by it"
    assert lines == [f"weir.ini:11: warning: tls site.ca: {wanted}",
                     f"weir.ini:15: warning: upstream u.ca: {wanted}"]
    assert run(ini(more=both.format("ca.crt")), "check")[2] == []
    subprocess.run(["openssl", "x509", "-in", "site.crt", "-addtrust", "clientAuth", "-addtrust",
                    "serverAuth", "-out", "trusted.crt"], cwd=ca.directory, check=True)
    assert run(ini(more=both.format("trusted.crt")), "check")[2] == []


def test_tls_config_warns_of_revocations_that_have_run_out(run, ca):
    """Nobody is cleared by them: all are refused."""
    ca.write_crl("good")
    ca.write_crl("late", days=-1)
    text = ini(more="client_auth = require\nca = ca.crt\ncrl = both.crl")
    both = [(ca.directory + name) for name in ("/good.crl", "/late.crl")]

    def write(*files):
        with open(f"{ca.directory}/both.crl", "wb") as whole:
            for name in files:
                with open(name, "rb") as part:
                    whole.write(part.read())

    write(both[0])
    assert run(text, "check")[2] == []
    write(*both)
    status, _, lines = run(text, "check")
    assert (status, len(lines)) == (0, 1)
    assert lines[0].startswith("weir.ini:12: warning: tls site.crl: both.crl has expired, and "
                               "nobody whom it is about is believed: 20")


def recipes():
    """The blocks of etc/README.md's recipes."""
    with open(f"{ROOT}/etc/README.md") as file:
        text = file.read().split("\n## Recipes\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", text, re.M)
    assert len(blocks) == 4
    return blocks


@pytest.mark.parametrize("text", recipes(), ids=range(4))
def test_tls_config_recipes_are_right(run, ca, text):
    for stem in re.findall(r"([\w-]+)\.crt", text):
        if stem.endswith("-ca"):
            Authority(ca.directory, stem)
        else:
            ca.issue(stem, f"{stem}.example", days=60)
    status, output, errors = run(text, "check")
    assert (status, errors) == (0, []) and output[0].startswith("weir.ini: ok: ")


def test_tls_config_warns_of_a_section_that_nobody_uses(run, ca):
    status, _, lines = run(ini().replace("tls = site", "nodelay = on"), "check")
    assert (status, lines) == (0, ["weir.ini:7: warning: tls site: no listener says tls = site"])


@pytest.mark.parametrize("days, what", [
    (-1, "has an authority that has expired, and nobody whom it has signed is believed"),
    (3, "has an authority that expires soon")])
def test_tls_config_warns_of_an_authority_that_is_too_old(run, ca, tmp_path, days, what):
    Authority(tmp_path, "old", days=days)
    both = (tmp_path / "old.crt").read_text() + (tmp_path / "ca.crt").read_text()
    (tmp_path / "both.crt").write_text(both)
    text = ini(more="client_auth = require\nca = both.crt", route="""[upstream secure]
server = localhost:1
tls = on
ca = old.crt
[upstream system]
server = localhost:1
tls = on
""")
    status, _, lines = run(text, "check")
    assert status == 0 and len(lines) == 2
    assert lines[0].startswith(f"weir.ini:11: warning: tls site.ca: both.crt {what}: 20")
    assert lines[1].startswith(f"weir.ini:15: warning: upstream secure.ca: old.crt {what}: 20")


def test_tls_config_explained_by_the_scheme(run, ca):
    """Where no listener has the port of the URL."""
    text = "[listener clear]\nbind = 127.0.0.1:8080\nupstream = app\n" + ini()
    for url, name in (("https://site.example/", "web"), ("http://site.example/", "clear")):
        status, output, _ = run(text, "explain", "GET", url)
        assert status == 0
        assert output[0] == (f"listener  {name} (no listener has the port of the URL; "
                             "--listener NAME takes another)")
    status, output, _ = run(text, "explain", "GET", "/")
    assert output[0] == "listener  clear (the first; --listener NAME takes another)"


def test_tls_config_warns_of_servers_that_are_not_verified(run, ca):
    text = ini(more="[upstream blind]\nserver = 127.0.0.1:1\ntls = on\nverify = off")
    assert run(text, "check")[::2] == (0, [
        "weir.ini:12: warning: upstream blind.verify: off: whoever answers is believed to be the "
        "server"])


def test_tls_config_explained(run, ca):
    text = ini("site.crt other.crt", "site.key other.key", "strict_sni = on", """
[listener pass]
bind = 127.0.0.1:8444
mode = tcp
[route by_name]
listener = pass
sni = *.c.example
upstream = secure
[upstream secure]
server = localhost:1
tls = on
ca = ca.crt
server_name = inner.example
""")

    def explain(url):
        status, output, _ = run(text, "explain", "GET", url)
        return status, output

    status, output = explain("https://x.b.example:8443/a")
    assert status == 0
    assert "tls       site (site.crt)" in output
    assert any("X-Forwarded-Proto: https" in line for line in output)
    assert "tls       site (other.crt)" in explain("https://other.example:8443/")[1]
    status, output = explain("https://unknown.example:8443/")
    assert status == 1 and output[-1].startswith("refused   no certificate of tls site")
    status, output = explain("http://x.b.example:8443/")
    assert status == 1 and output[-1].startswith("refused   400 tls_plain_http")
    status, output = explain("https://x.c.example:8444/")
    assert status == 0
    assert any(line.startswith("route     by_name (weir.ini:") for line in output)
    assert output[-1] == "          over TLS, as inner.example"
    status, output = explain("https://x.d.example:8444/")
    assert status == 1 and output[-1] == "refused   the connection is reset"


@pytest.mark.parametrize("word, must", [("require", "must"), ("optional", "may")])
def test_tls_config_explained_where_clients_are_asked(run, ca, word, must):
    """What only a handshake can say is said to be so."""
    text = ini(more=f"client_auth = {word}\nca = ca.crt", route="""[route partners]
upstream = app
set_request_header = X-Partner: $tls_client_subject
add_request_header = X-Version: "TLS $tls_version"
set_request_header = X-Other: $listener
""")
    status, output, _ = run(text, "explain", "GET", "https://site.example:8443/")
    assert status == 0
    at = output.index("tls       site (site.crt)")
    assert output[at + 1] == f"          the client {must} show a certificate signed by ca.crt"
    assert "          X-Other: web" in output
    assert output[-1] == "          by the client's handshake: X-Partner, X-Version"


def test_tls_config_explained_in_clear_before_tcp(run, ca):
    text = ini().replace("upstream = app\n", "upstream = app\nmode = tcp\n")
    status, output, _ = run(text, "explain", "GET", "http://site.example:8443/")
    assert (status, output[-1]) == (1, "refused   tls_plain_http: the connection is reset")
    status, output, _ = run(text, "explain", "GET", "https://site.example:8443/")
    assert status == 0 and "tls       site (site.crt)" in output


def test_tls_config_doctor_knows_that_h2_needs_few_ports(run, ca):
    text = "[global]\nmax_connections = 70000\n" + ini()
    ports = {}
    for protocol in ("h1", "h2"):
        output = run(text.replace("localhost:9000", f"localhost:9000\nprotocol = {protocol}"),
                     "doctor")[1]
        ports[protocol] = next(line for line in output if "ip_local_port_range" in line)
    assert ports["h1"].startswith("warn  ")
    assert ports["h2"].startswith("ok    ")
