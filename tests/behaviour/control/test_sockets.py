"""The sockets themselves, seen by taking copies of weir's descriptors (pidfd_getfd(2))."""

import ctypes
import os
import signal
import socket

import pytest

from harness.http1 import answer, get
from harness.peer import Client
from harness.wait import eventually
from harness.weir import Port

SYS_PIDFD_GETFD = 438  # the same number on every architecture
IP_TTL = socket.IP_TTL

INI = """
[listener web]
bind = @web
upstream = app
[listener plain]
bind = @plain
upstream = app
nodelay = off
[listener tuned]
bind = @tuned @port6
upstream = app
ttl = 7
recv_buffer = 20k
send_buffer = 30k
backlog = 77
[upstream app]
server = @origin
"""


def sockets_of(pid):
    """A copy of every socket the process has; the caller closes them."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    found = []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue
            fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
            if fd < 0 and ctypes.get_errno() == 1:
                pytest.skip("pidfd_getfd(2) is not allowed here (ptrace_scope)")
            if fd >= 0:
                found.append(socket.socket(fileno=fd))
    finally:
        os.close(pidfd)
    return found


def option(sock, level, name):
    return sock.getsockopt(level, name)


def listens(sock):
    return option(sock, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


@pytest.fixture
def sockets(stage):
    """sockets(): what weir has now."""
    taken = []

    def sockets():
        found = sockets_of(stage.weir.pid)
        taken.extend(found)
        return found

    yield sockets
    for sock in taken:
        sock.close()


def accepted(stage, sockets, client):
    """weir's end of a client's connection."""
    return next(sock for sock in sockets()
                if not listens(sock) and sock.getpeername() == client.sock.getsockname())


def test_nodelay_is_set_on_both_sides(stage, origin, sockets):
    client = stage.connect()
    upstream = origin.asked_by(client, get())
    ours = accepted(stage, sockets, client)
    assert option(ours, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    dialled = next(sock for sock in sockets() if not listens(sock)
                   and sock.getsockname() == upstream.sock.getpeername())
    assert option(dialled, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    upstream.send(answer())
    client.read_response()


def test_nodelay_can_be_switched_off(stage, sockets):
    client = stage.connect("plain")
    stage.exchange(get(), client=client)
    assert option(accepted(stage, sockets, client), socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0


def test_what_a_listener_sets_its_connections_have(stage, sockets):
    client, client6 = stage.connect("tuned"), stage.connect("port6")
    for one in (client, client6):
        stage.exchange(get(), client=one)
    ours = accepted(stage, sockets, client)
    assert option(ours, socket.IPPROTO_IP, IP_TTL) == 7
    ours6 = accepted(stage, sockets, client6)
    assert option(ours6, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 7
    for one in (ours, ours6):
        # The kernel doubles what is asked for (socket(7)).
        assert option(one, socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 20 * 1024
        assert option(one, socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 30 * 1024
        assert option(one, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_the_backlog_is_as_configured(stage, sockets):
    tuned = [sock for sock in sockets() if listens(sock)
             and sock.getsockname()[:2] == stage.things["tuned"].target[:2]]
    assert len(tuned) == 1
    # struct tcp_info: for a listening socket tcpi_sacked, the 32-bit number at 28, is the backlog.
    info = tuned[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert int.from_bytes(info[28:32], "little") == 77


def test_nothing_is_inherited_by_a_child(stage, sockets, client):
    stage.exchange(get(), client=client)
    for name in os.listdir(f"/proc/{stage.weir.pid}/fd"):
        if int(name) <= 2:
            continue
        with open(f"/proc/{stage.weir.pid}/fdinfo/{name}") as file:
            flags = next(line for line in file if line.startswith("flags:"))
        assert int(flags.split()[1], 8) & os.O_CLOEXEC, f"descriptor {name} is not close-on-exec"


def test_one_socket_a_worker_and_address(new_stage):
    stage = new_stage("""
        [listener web]
        bind = @web @port6 @unix
        upstream = app
        [upstream app]
        server = @origin
        """, workers=3)
    found = sockets_of(stage.weir.pid)
    try:
        names = [sock.getsockname() for sock in found if listens(sock)]
        assert names.count(stage.things["web"].target) == 3
        assert names.count(stage.things["port6"].target) == 3
        assert names.count(stage.things["unix"].target) == 3  # copies of one
        assert names.count(stage.things["admin"].target) == 1
    finally:
        for sock in found:
            sock.close()


def test_two_workers_both_serve_every_listener(new_stage):
    stage = new_stage("""
        [listener web]
        bind = @web @port6 @unix
        upstream = app
        [route hello]
        path = /hello
        respond = 200 hello
        [upstream app]
        server = @origin
        """, workers=2)
    for name in ("web", "port6"):
        before = [stage.count("weir_worker_connections", worker=worker) for worker in (0, 1)]
        clients = [stage.connect(name) for _ in range(40)]
        for client in clients:
            assert client.ask(get("/hello")).body == b"hello"
        now = [stage.count("weir_worker_connections", worker=worker) for worker in (0, 1)]
        # Forty connections all on one side of the kernel's hash: one in 2^39.
        assert all(after > earlier for earlier, after in zip(before, now)), (before, now)
    for client in [stage.connect("unix") for _ in range(10)]:
        assert client.ask(get("/hello")).body == b"hello"


@pytest.mark.parametrize("every, one, family", [("0.0.0.0", "127.0.0.1", socket.AF_INET),
                                                ("[::]", "[::1]", socket.AF_INET6)])
def test_what_it_says_to_try_works(new_stage, every, one, family):
    """[::] leaves IPv4 alone, so that 0.0.0.0 may stand beside it."""
    port = Port(family)
    try:
        stage = new_stage(f"""
            [listener web]
            bind = {every}:{port.number}
            [route hello]
            respond = 200 hello
            """)
        stage.weir.says(f"try: curl -i http://{one}:{port.number}/")
        sock = socket.socket(family)
        sock.connect((one.strip("[]"), port.number))
        client = Client(sock)
        assert client.ask(get()).body == b"hello"
        client.close()
    finally:
        port.close()


def test_a_successor_keeps_its_unix_socket(new_stage):
    """It comes while the one before it drains, which then ends."""
    first = new_stage("""
        [listener web]
        bind = @unix
        upstream = app
        [upstream app]
        server = @origin
        """, drain_timeout="60s")
    client = first.connect("unix")
    upstream = first.origin.asked_by(client, get("/slow"))
    first.weir.signal(signal.SIGTERM)
    path = first.things["unix"].target
    eventually(lambda: not os.path.exists(path), "its socket is gone")
    second = new_stage(f"""
        [listener web]
        bind = unix:{path}
        service = hi
        [service hi]
        type = respond
        body = from the second
        """)
    upstream.send(answer())
    assert client.read_response().status == 200
    client.close()
    assert first.weir.wait_exit() == 0
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    late = Client(sock)
    assert late.ask(get()).body == b"from the second"
    late.close()
    second.weir.signal(signal.SIGTERM)
    assert second.weir.wait_exit() == 0
    assert not os.path.exists(path)
