"""Real clients of HTTP/2: curl, nghttp, h2load, httpx."""

import hashlib
import re
import subprocess
from collections import Counter

import httpx
import pytest

from harness.bulk import pattern
from harness.http1 import answer, answer_chunked
from harness.stage import HELLO_SERVICE, WEB

INI = WEB + HELLO_SERVICE + """
[defaults]
max_body_size = 0
max_header_size = 64k
"""


def run(*command, **options):
    return subprocess.run(command, capture_output=True, timeout=60, **options)


def curl(*arguments, **options):
    return run("curl", "-sS", "--max-time", "30", "--http2-prior-knowledge", *arguments, **options)


def test_curl_downloads_and_uploads(stage, tmp_path):
    body = pattern(2_000_000)
    (tmp_path / "body").write_bytes(body)
    stage.origin.serve(lambda request: answer(200, request.body or body))
    assert curl(stage.url("/")).stdout == body
    assert curl("--data-binary", f"@{tmp_path}/body", stage.url("/")).stdout == body
    assert curl("-T", "-", stage.url("/"), input=body).stdout == body


def test_curl_shows_trailers(stage):
    stage.origin.serve(lambda request: answer_chunked(b"one", b"two", trailers=["X-Sum: 6"]))
    got = curl("-i", stage.url("/"))
    assert b"onetwo" in got.stdout and b"x-sum: 6" in got.stdout


def test_curl_upgrades(stage):
    got = run("curl", "-sSi", "--http2", "--max-time", "30", stage.url("/hello"))
    assert got.stdout.startswith(b"HTTP/1.1 101") and b"HTTP/2 200" in got.stdout


def test_curl_is_upgraded_once_it_asks_without_a_body(stage):
    """With one it is answered in HTTP/1.1, as the server may (RFC 7540 section 3.2)."""
    stage.origin.serve(lambda request: answer(200, b"%d bytes" % len(request.body)))
    version = ("-sS", "--http2", "--max-time", "30", "-w", " in %{http_version}, ")
    got = run("curl", *version, "-d", "x" * 5000, stage.url("/a"), "--next", *version,
              stage.url("/b"))
    assert got.stdout == b"5000 bytes in 1.1, 0 bytes in 2, "


@pytest.mark.parametrize("arguments", [[], ["--no-dep"], ["-u"], ["-H", "x-long: " + "y" * 3000],
                                       ["--padding=100"], ["--continuation"]])
def test_nghttp(stage, arguments):
    body = pattern(300_000)
    stage.origin.serve(lambda request: answer(200, body))
    got = run("nghttp", *arguments, stage.url("/a"), stage.url("/b"), stage.url("/c"))
    assert got.returncode == 0 and Counter(got.stdout) == Counter(body * 3)  # side by side


def test_h2load(stage):
    stage.origin.serve(lambda request: answer(200, b"x" * 128))
    got = run("h2load", "-n", "3000", "-c", "20", "-m", "50", stage.url("/")).stdout.decode()
    assert re.search(r"3000 succeeded, 0 failed, 0 errored, 0 timeout", got), got
    got = run("h2load", "-n", "8000", "-c", "50", "-m", "100", stage.url("/hello")).stdout.decode()
    assert re.search(r"8000 succeeded, 0 failed, 0 errored, 0 timeout", got), got


def test_h2load_uploads(stage, tmp_path):
    (tmp_path / "body").write_bytes(pattern(100_000))
    sums = set()

    def handler(request):
        sums.add(hashlib.sha256(request.body).hexdigest())
        return answer(200, b"ok")

    stage.origin.serve(handler)
    got = run("h2load", "-n", "300", "-c", "4", "-m", "10", "-d", str(tmp_path / "body"),
              stage.url("/")).stdout.decode()
    assert re.search(r"300 succeeded, 0 failed", got), got
    assert sums == {hashlib.sha256(pattern(100_000)).hexdigest()}


def test_httpx(stage):
    stage.origin.serve(lambda request: answer(200, request.body[::-1], "X-Path: " + request.target))
    with httpx.Client(http1=False, http2=True) as client:
        for n in range(20):
            got = client.post(stage.url(f"/{n}"), content=b"abc%d" % n)
            assert got.http_version == "HTTP/2" and got.headers["x-path"] == f"/{n}"
            assert got.content == (b"abc%d" % n)[::-1]


def test_a_thousand_connections(new_stage):
    stage = new_stage(INI, max_connections=3000)
    got = run("h2load", "-n", "9000", "-c", "1500", "-m", "4", stage.url("/hello")).stdout.decode()
    assert re.search(r"9000 succeeded, 0 failed, 0 errored, 0 timeout", got), got
