"""The command: what it prints, and with which status it exits."""

import errno
import os
import re
import signal
import socket
import subprocess

import pytest

from harness.http1 import answer, get
from harness.tls import make_certificates
from harness.wait import eventually
from harness.weir import BINARY, ROOT, Port, expand, few_files

RUN_S = 20


@pytest.fixture
def run(tmp_path):
    """run(*arguments, ini=TEXT): the ended program; the text is in weir.ini, which -c names."""

    def run(*arguments, ini=None, **more):
        if ini is not None:
            (tmp_path / "weir.ini").write_text(expand(ini, lambda name: pytest.fail(name)))
            arguments = ("-c", "weir.ini", *arguments)
        return subprocess.run([BINARY, *arguments], cwd=tmp_path, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=RUN_S, **more)

    return run


@pytest.fixture
def port():
    port = Port()
    yield port
    port.close()


GOOD = """
[listener web]
bind = 127.0.0.1:8080
upstream = app
[upstream app]
server = 127.0.0.1:8081
"""

BAD = """
[global]
workers = many
drain_timeout = 5
[listner web]
bind = 127.0.0.1:1
[listener web]
bind = 127.0.0.1:99999
upstream = ap
backlogg = 4
backlog = 4
backlog = 5
[upstream app]
server = 127.0.0.1:1
balance = roundrobin
sticky = on
[route r]
path = ~ (
respond = 99
"""
# line, section.key, a word of what is wrong, what is suggested
FAULTS = [
    (2, "global.workers", "many", None),
    (3, "global.drain_timeout", "unit", None),
    (4, "listner web", "unknown section", "listener"),
    (7, "listener web.bind", "99999", None),
    (8, "listener web.upstream", "no [upstream ap]", "app"),
    (9, "listener web.backlogg", "unknown key", "backlog"),
    (11, "listener web.backlog", "duplicate", None),
    (14, "upstream app.balance", "roundrobin", "round_robin"),
    (15, "upstream app.sticky", "not supported", None),
    (17, "route r.path", "", None),
    (18, "route r.respond", "", None),
]


def check_faults(stderr):
    lines = stderr.splitlines()
    assert len(lines) == len(FAULTS), stderr
    for line, (number, where, wrong, suggestion) in zip(lines, FAULTS):
        assert line.startswith(f"weir.ini:{number}: {where}: "), line
        assert wrong in line, line
        if suggestion:
            assert line.endswith(f'(did you mean "{suggestion}"?)'), line


def test_check_says_that_a_good_file_is_good(run):
    done = run("check", ini=GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "weir.ini: ok: 1 listener," in done.stdout


def test_check_prints_every_error_at_once(run):
    done = run("check", ini=BAD)
    assert (done.returncode, done.stdout) == (1, "")
    check_faults(done.stderr)


def test_serving_prints_the_same_errors(run):
    done = run(ini=BAD)
    assert done.returncode == 1
    check_faults(done.stderr)


def test_explain_prints_the_same_errors(run):
    done = run("explain", "GET", "/", ini=BAD)
    assert done.returncode == 1
    check_faults(done.stderr)


def test_doctor_points_at_a_bad_file(run):
    done = run("doctor", ini=BAD)
    assert done.returncode == 1
    check_faults(done.stderr)
    assert re.search(r"^fail +configuration: weir.ini", done.stdout, re.M)
    assert re.search(r"^ok +io_uring: ", done.stdout, re.M), "the rest is looked at all the same"


@pytest.mark.parametrize("word", [[], ["check"], ["explain", "GET", "/"], ["doctor"]],
                         ids=["serve", "check", "explain", "doctor"])
@pytest.mark.parametrize("file, wrong", [("missing.ini", "No such file"), (".", "directory")])
def test_a_file_that_cannot_be_read(run, word, file, wrong):
    done = run("-c", file, *word)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{file}: ") and wrong in done.stderr


@pytest.mark.parametrize("ini", ["", "[global]\n", "; nothing\n"])
def test_a_file_without_a_listener(run, ini):
    done = run("check", ini=ini)
    assert done.returncode == 1 and "listener" in done.stderr


def test_a_file_of_rubbish(run, tmp_path):
    (tmp_path / "rubbish").write_bytes(bytes(range(256)) * 300)
    done = run("-c", "rubbish", "check")
    assert done.returncode == 1 and done.stderr.count("\n") >= 1
    assert all(31 < ord(char) < 127 or char == "\n" for char in done.stderr)


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(run, word):
    done = run(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"weir \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(run, word):
    done = run(word)
    assert done.returncode == 0 and done.stdout.startswith("usage: weir") and not done.stderr


@pytest.mark.parametrize("arguments", [
    ["-c"], ["-x"], ["--config", "weir.ini"], ["frob"], ["check", "more"], ["version", "more"],
    ["doctor", "more"], ["check", "-c"], ["-c", "weir.ini", "frob"], ["weir.ini"],
], ids=" ".join)
def test_usage_errors(run, arguments):
    done = run(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    wrong, usage = done.stderr.split("\n")[:2]
    assert wrong.startswith("weir: ") and usage.startswith("usage: weir")


@pytest.mark.parametrize("arguments", [
    [], ["GET"], ["GET", "nonsense"], ["GET", "ftp://x/"], ["GET", "/", "more"],
    ["GET", "/", "-H"], ["GET", "/", "--frob"], ["GET", "/", "--client", "me"],
    ["GET", "/", "--listener", "nowhere"],
], ids=" ".join)
def test_usage_errors_of_explain(run, arguments):
    done = run("explain", *arguments, ini=GOOD)
    assert done.returncode == 2
    assert re.search("^weir explain: ", done.stderr, re.M)


EXPLAIN = """
[listener web]
bind = 127.0.0.1:8080
upstream = app
[listener other]
bind = 127.0.0.1:8090
service = hi
[route api]
listener = web
host = api.example.com *.api.example.com
path = /v1/
method = GET
upstream = canary
strip_prefix = /v1
set_request_header = X-From: $client_ip
[route secure]
listener = web
path = = /login
redirect = 301 https://$host$uri
[route gone]
path = ~ ^/old[0-9]+$
respond = 410 $path is gone
[upstream app]
balance = first
server = 127.0.0.1:9001
server = 127.0.0.1:9002
[upstream canary]
protocol = h2
server = 127.0.0.1:9003
[service hi]
type = respond
status = 203
"""


@pytest.mark.parametrize("question, said", [
    (["GET", "/"], ["listener  web", "route     none", "upstream  app", "127.0.0.1:9001"]),
    (["GET", "http://api.example.com:8080/v1/x?y=1"],
     ["route     api (weir.ini:7)", "upstream  canary", "127.0.0.1:9003", "protocol  h2",
      "GET /x?y=1 HTTP/1.1", "X-From: 127.0.0.1"]),
    (["GET", "http://a.b.api.example.com:8080/v1/", "--client", "2001:db8::7"],
     ["route     api", "X-From: 2001:db8::7"]),
    (["POST", "http://api.example.com:8080/v1/x"], ["route     none", "upstream  app"]),
    (["GET", "http://api.example.com:8080/v2/x"], ["route     none", "upstream  app"]),
    (["GET", "/", "-H", "Host: api.example.com"], ["route     none"]),
    (["GET", "/v1/", "-H", "Host: api.example.com"], ["route     api"]),
    (["GET", "http://x:8080/login?a=b"],
     ["route     secure", "301", "location  https://x/login?a=b"]),
    (["GET", "/old42"], ["route     gone", "410 Gone", "body      /old42 is gone"]),
    (["GET", "/old"], ["route     none"]),
    (["GET", "http://x:8090/"], ["listener  other", "service   hi", "203"]),
    (["GET", "/", "--listener", "other"], ["listener  other", "service   hi"]),
    (["OPTIONS", "*"], ["route     none", "OPTIONS * HTTP/1.1"]),
], ids=lambda value: " ".join(value) if value and "/" in " ".join(value) else "")
def test_explain(run, question, said):
    done = run("explain", *question, ini=EXPLAIN)
    assert (done.returncode, done.stderr) == (0, "")
    for text in said:
        assert text in done.stdout, done.stdout


RAW = """
[listener web]
bind = 127.0.0.1:8080
upstream = app
[listener raw]
bind = 127.0.0.1:5432
mode = tcp
upstream = app
[listener back]
bind = 127.0.0.1:7
mode = tcp
service = back
[route all]
respond = 200 not for them
[upstream app]
balance = source_ip
server = 127.0.0.1:9001
server = 127.0.0.1:9002
[service back]
type = echo
"""


def test_explain_of_tcp_listeners(run):
    done = run("explain", "GET", "http://127.0.0.1:5432/x", "--client", "10.1.2.3", ini=RAW)
    assert (done.returncode, done.stderr) == (0, "")
    assert "listener  raw" in done.stdout and "mode      tcp" in done.stdout
    assert "upstream  app" in done.stdout and "of 2 by source_ip)" in done.stdout
    assert "not for them" not in done.stdout and "sends" not in done.stdout
    assert "server    127.0.0.1:900" in done.stdout
    done = run("explain", "GET", "/", "--listener", "back", ini=RAW)
    assert (done.returncode, done.stderr) == (0, "")
    assert "service   back (echo)" in done.stdout


@pytest.mark.parametrize("question, status", [
    (["GET", "/", "-H", "Bad Name: x"], 400),
    (["GET", "/", "-H", "Content-Length: x"], 400),
    (["GET", "/", "-H", "Transfer-Encoding: gzip"], 501),
    (["GET", "/" + "x" * 9000], 414),
    (["GET", "/", "-H", "X: " + "y" * 20000], 431),
])
def test_explain_of_what_would_be_refused(run, question, status):
    done = run("explain", *question, ini=EXPLAIN)
    assert done.returncode == 1
    assert f"refused   {status} " in done.stdout


def test_what_explain_says_is_what_happens(new_stage):
    """Byte for byte what the origin gets."""
    stage = new_stage("""
        [listener web]
        bind = @web
        upstream = app
        [route api]
        path = /v1/
        upstream = app
        strip_prefix = /v1
        set_request_header = X-From: $client_ip-$method-$path
        remove_request_header = Cookie
        [upstream app]
        server = @origin
        """)
    for path in ("/", "/v1/users?id=7"):
        done = subprocess.run(
            [BINARY, "-c", stage.weir.file, "explain", "GET", stage.url(path), "-H", "Cookie: a=b"],
            capture_output=True, text=True, timeout=RUN_S)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        at = next(at for at, line in enumerate(lines) if line.startswith("sends "))
        promised = [line[10:] for line in lines[at:]]
        host = stage.address()
        seen, _ = stage.exchange(get(path, "Cookie: a=b", host=host))
        assert seen.head.decode().split("\r\n")[:-2] == promised


def test_doctor_on_a_sound_system(run):
    done = run("doctor", ini="[global]\nmax_connections = 100\nworkers = 1\n" + GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    verdicts = [line.split()[0] for line in done.stdout.splitlines()]
    assert set(verdicts) <= {"ok", "warn"}
    for word in ("kernel", "io_uring", "RLIMIT_NOFILE", "net.core.somaxconn"):
        assert re.search(rf"^(ok|warn) +{re.escape(word)}: ", done.stdout, re.M), done.stdout


def test_doctor_warns_of_what_is_too_small(run):
    done = run("doctor", ini="[global]\nworkers = 200\nmax_connections = 200000\n"
               + GOOD.replace("upstream = app", "upstream = app\nbacklog = 1000000"))
    for word in ("net.core.somaxconn", "net.ipv4.ip_local_port_range", "CPUs"):
        assert re.search(rf"^warn +{re.escape(word)}: ", done.stdout, re.M), done.stdout


def test_doctor_tries_whether_the_limit_can_be_raised(run):
    """Also root may be forbidden to: then start would serve fewer clients."""
    done = run("doctor", ini="[global]\nmax_connections = 1000\nworkers = 1\n" + GOOD,
               preexec_fn=few_files(100))
    assert done.returncode == 1
    found = re.search(r"^fail +RLIMIT_NOFILE: (\d+) needed, 100 allowed, enough for (\d+) clients: "
                      r"ulimit -Hn (\d+)", done.stdout, re.M)
    assert found and int(found[1]) > 2000 and found[3] == found[1], done.stdout
    assert 10 <= int(found[2]) < 50


def in_checkout():
    return os.path.realpath(BINARY).startswith(os.path.join(os.path.realpath(ROOT), ""))


@pytest.mark.skipif(not in_checkout(), reason="the program is not in its checkout")
def test_the_default_file_is_that_of_the_checkout(run):
    done = run("check")
    assert done.returncode == 0
    assert done.stdout.startswith(os.path.join(ROOT, "etc", "weir.ini: ok"))


# Starting.

def listener(bind, more=""):
    return f"[listener web]\nbind = {bind}\nservice = hi\n[service hi]\ntype = respond\n{more}"


def serves_until_told(process, target, family=socket.AF_INET, status=200):
    """Asks once, in clear, ends it, returns what it wrote."""
    def answers():
        assert process.poll() is None, process.stderr.read()
        with socket.socket(family) as sock:
            sock.settimeout(10)
            try:
                sock.connect(target)
            except OSError:
                return False
            sock.sendall(get("/", "Connection: close"))
            return sock.recv(100).startswith(b"HTTP/1.1 %d " % status)

    try:
        eventually(answers, "an answer")
        process.send_signal(signal.SIGTERM)
        assert process.wait(RUN_S) == 0
        return process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def serve(tmp_path):
    def serve(ini):
        workers = "" if "workers" in ini else "workers = 1\n"
        (tmp_path / "weir.ini").write_text(f"[global]\nmax_connections = 100\n{workers}"
                                           f"cpu_affinity = off\n{ini}")
        return subprocess.Popen([BINARY, "-c", "weir.ini"], cwd=tmp_path, text=True,
                                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    return serve


def test_it_says_what_listens_where_and_what_to_try(serve, port):
    said = serves_until_told(serve(listener(port.address)), port.target)
    assert f"listener web on {port.address} -> hi" in said
    assert f"try: curl -i http://{port.address}/" in said
    assert re.search(r"kernel \S+: io_uring ", said)
    assert "ready: 1 worker\n" in said


def test_what_to_try_over_tls(serve, port, tmp_path):
    make_certificates(tmp_path, "weir.test.pem")
    text = listener(port.address).replace("service = hi\n", "service = hi\ntls = site\n")
    said = serves_until_told(serve(text +
                                   "[tls site]\ncertificate = weir.test.pem\n"), port.target,
                             status=400)
    assert f"listener web on {port.address} -> hi (tls)" in said
    assert f"try: curl -ik https://{port.address}/" in said


def test_the_file_may_be_named_behind_the_word(run, tmp_path):
    (tmp_path / "weir.ini").write_text(GOOD)
    for word, *more in (["check"], ["explain", "GET", "/"], ["doctor"]):
        before = run("-c", "weir.ini", word, *more)
        behind = run(word, "-c", "weir.ini", *more)
        assert (behind.returncode, behind.stdout, behind.stderr) == (
            before.returncode, before.stdout, before.stderr)
        assert "weir.ini" in before.stdout or "listener  web" in before.stdout


def test_a_port_in_use(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run(ini=listener(address))
    assert done.returncode == 1
    assert f"cannot listen on {address}: Address already in use" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_weir_does_not_join_the_first(serve, port, run, workers):
    """SO_REUSEPORT is for the workers of one process: two would share the clients unnoticed."""
    ini = listener(port.address).replace("[listener", f"workers = {workers}\n[listener", 1)
    first = serve(ini)
    try:
        eventually(lambda: "ready: " in first.stderr.readline(), "the first is ready")
        second = run(ini=f"[global]\n{ini}")
        assert second.returncode == 1
        assert (f"cannot listen on {port.address}: Address already in use "
                "(does another weir, or somebody else, serve it?)") in second.stderr
    except BaseException:
        first.kill()
        raise
    serves_until_told(first, port.target)


def test_a_weir_starts_while_the_one_before_has_connections_left(serve, port):
    """It drains and listens no more: connections that are left, or in TIME-WAIT, bar nobody."""
    first = serve(listener(port.address))
    try:
        eventually(lambda: "ready: " in first.stderr.readline(), "the first is ready")
        with socket.create_connection(port.target, timeout=RUN_S) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: te")
            first.send_signal(signal.SIGTERM)
            eventually(lambda: refuses(port.target), "it listens no more")
            serves_until_told(serve(listener(port.address)), port.target)
            assert first.poll() is None
    finally:
        first.kill()
        first.wait()
        first.stderr.close()


def refuses(target):
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex(target) == errno.ECONNREFUSED


def test_the_second_of_two_addresses_is_in_use(run, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run(ini=listener(f"{port.address} {address}"))
    assert done.returncode == 1
    assert f"cannot listen on {address}: Address already in use" in done.stderr


def test_an_address_that_is_not_ours(run):
    done = run(ini=listener("203.0.113.1:8080"))
    assert done.returncode == 1
    assert "cannot listen on 203.0.113.1:8080: Cannot assign requested address" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
def test_a_user_that_does_not_exist(run, port):
    done = run(ini=f"[global]\nuser = nobody_of_that_name\n{listener(port.address)}")
    assert done.returncode == 1 and "nobody_of_that_name" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
def test_root_becomes_the_user(serve, port):
    process = serve(f"user = nobody\n{listener(port.address)}")

    def owner():
        assert process.poll() is None, process.stderr.read()
        with open(f"/proc/{process.pid}/status") as file:
            return re.search(r"^Uid:\s+(\d+)", file.read(), re.M).group(1) != "0"

    eventually(owner, "it is root no more")
    serves_until_told(process, port.target)


def test_a_stale_unix_socket_is_replaced(serve, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(path)
    serves_until_told(serve(listener(f"unix:{path}")), path, socket.AF_UNIX)
    assert not os.path.exists(path), "removed at exit"


def connect_is_refused(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def test_a_unix_socket_left_by_a_killed_weir_is_replaced(serve, tmp_path):
    path = str(tmp_path / "socket")
    first = serve(listener(f"unix:{path}"))
    eventually(lambda: "ready" in first.stderr.readline(), "the first serves")
    first.kill()
    first.wait()
    first.stderr.close()
    assert os.path.exists(path)
    # The kernel ends a killed process's ring a moment after the process.
    eventually(lambda: connect_is_refused(path), "nobody listens any more")
    serves_until_told(serve(listener(f"unix:{path}")), path, socket.AF_UNIX)


def test_a_unix_socket_in_use_is_left_alone(run, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        done = run(ini=listener(f"unix:{path}"))
        assert done.returncode == 1
        assert f"cannot listen on unix:{path}: Address already in use" in done.stderr
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)


def test_a_file_that_is_no_socket_is_left_alone(run, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    done = run(ini=listener(f"unix:{path}"))
    assert done.returncode == 1
    assert "Address already in use (a file that is no socket is there)" in done.stderr
    assert path.read_text() == "data"


def test_a_unix_socket_in_a_folder_that_is_not_there(run, tmp_path):
    path = tmp_path / "none" / "socket"
    done = run(ini=listener(f"unix:{path}"))
    assert done.returncode == 1
    assert f"cannot listen on unix:{path}: No such file or directory" in done.stderr


def test_several_listeners_and_addresses_serve_side_by_side(new_stage):
    stage = new_stage("""
        [listener web]
        bind = @web @web_b @port6
        bind = @unix
        upstream = app
        [listener other]
        bind = @other @port6_b @unix_b
        upstream = app
        [upstream app]
        server = @origin
        """, workers=2)
    stage.origin.serve(lambda request: answer(200, request["X-Forwarded-For"].encode()))
    for name in ("web", "web_b", "other"):
        assert stage.connect(name).ask(get()).body == b"127.0.0.1"
    for name in ("port6", "port6_b"):
        assert stage.connect(name).ask(get()).body == b"::1"
    for name in ("unix", "unix_b"):
        assert stage.connect(name).ask(get()).status == 200
    assert stage.count("weir_http_requests_total", listener="web") == 4
    assert stage.count("weir_http_requests_total", listener="other") == 3


def test_explain_says_when_variables_grow_too_large(run):
    ini = ("[listener web]\nbind = 127.0.0.1:8080\n[route big]\npath = /big\n"
           "respond = 200 " + "$header_x" * 300 + "\n")
    done = run("explain", "GET", "http://127.0.0.1:8080/big", "-H", "X: " + "a" * 15000, ini=ini)
    assert done.returncode == 0
    assert "answer    503 no_memory" in done.stdout and done.stderr == ""
