"""HAProxy, nginx and nghttpd in TLS: as weir's servers, over h1 and h2, and before weir."""

import contextlib
import ssl
import subprocess

import httpx
import pytest

from harness.bulk import MB, pattern
from harness.http1 import answer
from harness.programs import haproxy, nghttpd, running
from harness.tls import TO_ORIGIN, make_certificates
from harness.versions import SITE
from harness.wait import PATIENCE

BIG = pattern(5 * MB)
SERVERS = {"haproxy_h1": "h1", "haproxy_h2": "h2", "nginx_h1": "h1", "nginx_h2": "h2"}

INI = SITE + f"""
[listener secure]
bind = @secure
upstream = app
tls = site
[listener nghttpd]
bind = @to_nghttpd
upstream = nghttpd
tls = site
[upstream app]
server = @origin
[upstream nghttpd]
protocol = h2
server = @nghttpd
{TO_ORIGIN}
""" + "".join(f"""
[listener {name}]
bind = @to_{name}
upstream = {name}
tls = site
[upstream {name}]
protocol = {version}
server = @{name}
{TO_ORIGIN}
""" for name, version in SERVERS.items())


@contextlib.contextmanager
def real_haproxy(stage, directory):
    """TLS on two ports before stage.origin; and @front_h1, @front_h2 before weir's `secure`."""
    pem, ca = f"{stage.directory}/origin.test.pem", f"{stage.directory}/ca.pem"
    ports = stage.things
    for name in ("front_h1", "front_h2"):
        stage.port(name)
    sections = f"""
frontend h1
    mode http
    bind {ports['haproxy_h1'].address} ssl crt {pem} alpn http/1.1
    default_backend origin
frontend h2
    mode http
    bind {ports['haproxy_h2'].address} ssl crt {pem} alpn h2
    default_backend origin
backend origin
    mode http
    server one {stage.origin.address}
""" + "".join(f"""
frontend {name}
    mode http
    bind {ports[name].address}
    default_backend {name}_weir
backend {name}_weir
    mode http
    server weir {stage.address('secure')} ssl verify required ca-file {ca} sni str(weir.test) \
verifyhost weir.test alpn {alpn}
""" for name, alpn in (("front_h1", "http/1.1"), ("front_h2", "h2")))
    with haproxy(directory, sections, ports["front_h2"]):
        yield


NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    proxy_http_version 1.1;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    server {{ listen {h1} ssl; location / {{ proxy_pass http://{origin}; }} }}
    server {{ listen {h2} ssl http2; location / {{ proxy_pass http://{origin}; }} }}
}}
"""


@contextlib.contextmanager
def real_nginx(stage, directory):
    file = directory / "nginx.conf"
    file.write_text(NGINX.format(directory=directory, pem=f"{stage.directory}/origin.test.pem",
                                 h1=stage.address("nginx_h1"), h2=stage.address("nginx_h2"),
                                 origin=stage.origin.address))
    with running(["/usr/sbin/nginx", "-e", "stderr", "-c", str(file)],
                 stage.things["nginx_h2"]):
        yield


RUN = {"haproxy": real_haproxy, "nginx": real_nginx}


def echo(request):
    if request.method == "POST":
        return answer(200, request.body)
    return answer(200, b"hello from " + request.target.encode())


def user_of(stage, http2):
    believed = ssl.create_default_context(cafile=f"{stage.directory}/ca.pem")
    return httpx.Client(http1=not http2, http2=http2, verify=believed, timeout=3 * PATIENCE)


@pytest.mark.parametrize("program", sorted(RUN))
def test_a_server_in_tls(stage, tmp_path, program):
    """Each HTTP version of it, for clients of both."""
    make_certificates(stage.directory, "origin.test.pem")
    stage.origin.serve(echo)
    with RUN[program](stage, tmp_path):
        for name in (f"{program}_h1", f"{program}_h2"):
            for http2 in (False, True):
                with user_of(stage, http2) as user:
                    url = stage.url("/some", f"to_{name}", scheme="https")
                    for _ in range(5):
                        assert user.get(url).content == b"hello from /some"
                    assert user.post(url, content=BIG).content == BIG
                    assert user.head(url).status_code == 200


def test_nghttpd_in_tls(stage, tmp_path):
    make_certificates(stage.directory, "origin.test.pem")
    (tmp_path / "big").write_bytes(BIG)
    with nghttpd(tmp_path, stage.things["nghttpd"], "-m", "4", "--trailer", "x-end: yes",
                 certificate=f"{stage.directory}/origin.test.pem"):
        done = subprocess.run(["h2load", "-n", "200", "-c", "1", "-m", "100",
                               stage.url("/none", "to_nghttpd", scheme="https")],
                              capture_output=True, text=True, timeout=3 * PATIENCE)
        assert "200 done, 0 succeeded, 200 failed, 0 errored" in done.stdout  # 404
        with user_of(stage, True) as user:
            assert user.get(stage.url("/big", "to_nghttpd", scheme="https")).content == BIG
        done = subprocess.run(["nghttp", "-v", "-n", "-H", "te: trailers",
                               stage.url("/big", "to_nghttpd", scheme="https")],
                              capture_output=True, text=True, timeout=3 * PATIENCE)
        assert "x-end: yes" in done.stdout


@pytest.mark.parametrize("version", ["h1", "h2"])
def test_a_haproxy_before_weir(stage, tmp_path, version):
    make_certificates(stage.directory, "origin.test.pem")
    stage.origin.serve(echo)
    counted = stage.counter("weir_http_requests_total", listener="secure", proto=version)
    with real_haproxy(stage, tmp_path):
        url = stage.url("/some", f"front_{version}")
        with httpx.Client(timeout=3 * PATIENCE) as user:
            assert user.get(url).content == b"hello from /some"
            assert user.post(url, content=BIG).content == BIG
    counted.grows(2)
