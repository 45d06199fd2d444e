"""The process and its system: standard files, signals, rights, what doctor says of them."""

import ctypes
import os
import signal
import socket
import subprocess

import pytest

from harness.http1 import get
from harness.stage import HELLO, WEB
from harness.wait import eventually
from harness.weir import BINARY, Port

INI = WEB + HELLO
RUN_S = 20
NOBODY = 65534

HI = """[global]
workers = 1
max_connections = 100
cpu_affinity = off
{}
[listener web]
bind = {}
service = hi
[service hi]
type = respond
body = hi
"""


@pytest.fixture
def port():
    port = Port()
    yield port
    port.close()


def answers(target):
    with socket.create_connection(target, timeout=RUN_S) as sock:
        sock.sendall(get("/", "Connection: close"))
        answer = b""
        while piece := sock.recv(1000):
            answer += piece
    return answer


def serves(process, target):
    assert process.poll() is None, "it has ended"
    try:
        return answers(target).startswith(b"HTTP/1.1 200 ")
    except ConnectionRefusedError:
        return False


def test_closed_standard_files_are_not_given_to_sockets(tmp_path, port):
    """A line of the log would go to whom the number belongs to: a client, or the ring."""
    (tmp_path / "weir.ini").write_text(HI.format("", port.address))
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$0" -c weir.ini <&- >&- 2>&-', BINARY], cwd=tmp_path)
    try:
        eventually(lambda: serves(process, port.target), "it serves")
        for number in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
        process.send_signal(signal.SIGHUP)  # makes it log a line
        assert answers(port.target).endswith(b"\r\n\r\nhi")
        process.send_signal(signal.SIGTERM)
        assert process.wait(RUN_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_signals_without_a_meaning_end_nothing(new_stage, name):
    """Scripts send them to nginx (reopen the logs, upgrade) and HAProxy (stop, reload)."""
    stage = new_stage(INI)
    client = stage.connect()
    upstream = stage.origin.asked_by(client, get("/slow"))
    stage.weir.signal(getattr(signal, name))
    eventually(lambda: f"warn {name}: " in stage.weir.log, "the log speaks of it")
    upstream.close()
    assert client.read_response().reason == "server_closed"


@pytest.fixture
def as_nobody(tmp_path, port):
    """as_nobody(INI): the started program, as a user who may read nothing but this file."""
    if os.geteuid() != 0:
        pytest.skip("only root changes its user")
    started = []

    def as_nobody(ini, *word):
        (tmp_path / "weir.ini").write_text(ini)
        files = [os.open(path, os.O_RDONLY) for path in (BINARY, tmp_path / "weir.ini")]
        program, config = (f"/proc/self/fd/{file}" for file in files)
        process = subprocess.Popen([program, "-c", config, *word], cwd="/", pass_fds=files,
                                   text=True, user=NOBODY, group=NOBODY, extra_groups=[],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        for file in files:
            os.close(file)
        started.append(process)
        return process

    yield as_nobody
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def log_until(process, word):
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            break
    return "".join(lines)


def test_a_user_that_cannot_be_changed_to_is_told(as_nobody, port):
    log = log_until(as_nobody(HI.format("user = daemon", port.address)), "ready: ")
    assert "warn global.user: not started by root, so it stays nobody, not daemon" in log


def test_a_user_that_it_is_already_is_nothing_to_tell(as_nobody, port):
    log = log_until(as_nobody(HI.format("user = nobody", port.address)), "ready: ")
    assert "ready: " in log and "global.user" not in log


CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
PR_CAPBSET_DROP, CAP_SETUID = 24, 7


def call(name, *arguments):
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}(2)")


def with_group_file(path):
    """For preexec: a system of its own, with that file as /etc/group."""
    def mount():
        call("unshare", CLONE_NEWNS)
        call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
        call("mount", str(path).encode(), b"/etc/group", None, MS_BIND, None)

    return mount


@pytest.fixture
def as_root(tmp_path):
    """as_root(INI, preexec): the started program, as root in that folder."""
    if os.geteuid() != 0:
        pytest.skip("only root changes its user")
    started = []

    def as_root(ini, preexec=None):
        (tmp_path / "weir.ini").write_text(ini)
        try:
            started.append(subprocess.Popen(
                [BINARY, "-c", "weir.ini"], cwd=tmp_path, text=True, preexec_fn=preexec,
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE))
        except subprocess.SubprocessError:
            pytest.skip("this root may not unshare(2)")
        return started[-1]

    yield as_root
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def status(process, key):
    with open(f"/proc/{process.pid}/status") as file:
        return next(line for line in file if line.startswith(f"{key}:")).split()[1:]


def test_the_user_has_its_groups_and_nothing_of_root(as_root, port, tmp_path):
    """Keys that a group may read can be read again: ssl-cert of Debian, say."""
    with open("/etc/group") as file:
        (tmp_path / "group").write_text(file.read() + "\nweirkeys:x:54321:daemon,nobody\n")
    process = as_root(HI.format("user = nobody", port.address), with_group_file(tmp_path / "group"))
    assert "ready: " in log_until(process, "ready: ")
    assert status(process, "Uid") == [str(NOBODY)] * 4
    assert len(set(status(process, "Gid"))) == 1 and status(process, "Gid") != ["0"] * 4
    assert set(status(process, "Groups")) == {"54321", status(process, "Gid")[0]}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status(process, kind)[0], 16) == 0, kind


def test_a_root_that_may_not_change_its_user_is_told(as_root, port):
    process = as_root(HI.format("user = nobody", port.address),
                      lambda: call("prctl", PR_CAPBSET_DROP, CAP_SETUID, 0, 0, 0))
    log = log_until(process, "cannot become")
    assert ("error global.user: cannot become nobody: Operation not permitted (it takes CAP_SETUID "
            "and CAP_SETGID)" in log)
    assert process.wait(RUN_S) == 1


def first_free_port():
    """The least port that everybody may have."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        return int(file.read())


@pytest.mark.skipif(first_free_port() < 2, reason="every port is free for all")
def test_a_port_that_needs_root(as_nobody):
    process = as_nobody(HI.format("", "127.0.0.1:1"))
    log = log_until(process, "cannot listen")
    assert (f"cannot listen on 127.0.0.1:1: Permission denied (ports below {first_free_port()} are "
            "for root and CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start)"
            in log)
    assert process.wait(RUN_S) == 1


@pytest.mark.skipif(first_free_port() < 2, reason="every port is free for all")
def test_doctor_knows_what_cannot_be_listened_on(as_nobody):
    process = as_nobody(HI.format("", "127.0.0.1:1 203.0.113.1:8080 127.0.0.1:8080"), "doctor")
    said = process.communicate(timeout=RUN_S)[0]
    assert f"fail  127.0.0.1:1: Permission denied (ports below {first_free_port()} are for " in said
    assert "fail  203.0.113.1:8080: Cannot assign requested address (no interface of this " in said
    assert "ok    addresses: 1 can be listened on\n" in said and process.returncode == 1


def test_a_unix_socket_where_it_may_not_write(as_nobody, tmp_path):
    process = as_nobody(HI.format("", f"unix:{tmp_path}/socket"))
    log = log_until(process, "cannot listen")
    assert (f"cannot listen on unix:{tmp_path}/socket: Permission denied (its folder must be "
            "writable for who starts weir)" in log)
    assert process.wait(RUN_S) == 1
    process = as_nobody(HI.format("", f"unix:{tmp_path}/socket"), "doctor")
    said = process.communicate(timeout=RUN_S)[0]
    assert f"fail  unix:{tmp_path}/socket: Permission denied (its folder must be writable" in said


def doctor(tmp_path, user, binds="127.0.0.1:8080"):
    (tmp_path / "weir.ini").write_text(
        HI.format(user, binds).replace("workers = 1", "workers = 256"))
    done = subprocess.run([BINARY, "-c", "weir.ini", "doctor"], cwd=tmp_path, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_S)
    return done.stdout


def test_doctor_knows_where_no_unix_socket_can_be_made(tmp_path):
    binds = [f"unix:{tmp_path}/{name}" for name in ("none/socket", "weir.ini", "socket")]
    said = doctor(tmp_path, "", " ".join(binds))
    assert f"fail  {binds[0]}: No such file or directory (its folder must be made first)\n" in said
    assert f"fail  {binds[1]}: Address already in use (a file that is no socket is there)\n" in said
    assert "ok    addresses: 1 can be listened on\n" in said
    assert not (tmp_path / "socket").exists()


def pipe_pages():
    with open("/proc/sys/fs/pipe-user-pages-soft") as file:
        return int(file.read())


@pytest.mark.skipif(not 0 < pipe_pages() < 256 * 128 * 64, reason="there is no such limit here")
def test_doctor_reckons_up_the_pipes_of_who_is_not_root(tmp_path):
    said = doctor(tmp_path, "user = nobody")
    assert f"warn  fs.pipe-user-pages-soft: {pipe_pages()} is below {256 * 128 * 64}, " in said
    assert f": sysctl -w fs.pipe-user-pages-soft={256 * 128 * 64}\n" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="who runs this is not root")
def test_doctor_knows_that_root_has_as_many_pipes_as_it_wants(tmp_path):
    said = doctor(tmp_path, "")
    assert "ok    fs.pipe-user-pages-soft: 2097152 pages needed, root has no limit\n" in said
