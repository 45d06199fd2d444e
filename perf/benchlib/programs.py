"""The programs under measurement: how each is configured, started, and checked before that."""

import http.client
import os
import re
import socket
import threading
import time

from benchlib.speak import Asker, Unserved
from benchlib.system import Failure, Process, find_program, free_port, output_of

PATTERN = "".join(f"{line:07x}\n" for line in range(131072)).encode()
MIB = 1024 * 1024


class Program:
    """One kind of proxy. `argv` and the version command take the words BINARY and CONFIG."""

    def __init__(self, name, templates, argv, version, **others):
        self.name = name
        self.templates = templates  # by Row.mode
        self.argv = argv
        self.version_argv = version
        self.command = others.pop("command", name)
        self.words = others  # for the templates
        self.binary = None

    def version(self):
        text = output_of([self.binary if word == "BINARY" else word for word in self.version_argv])
        lines = [line for line in text.splitlines() if "version" in line.lower() or "weir" in line]
        return re.sub(r"\s+", " ", (lines or text.splitlines() or ["?"])[0])[:80]


PROGRAMS = {
    program.name: program for program in (
        Program("weir", {"http": "weir.ini", "tcp": "weir-tcp.ini", "echo": "weir-echo.ini"},
                ["BINARY", "-c", "CONFIG"], ["BINARY", "version"]),
        Program("nginx", {"http": "nginx.conf", "tcp": "nginx-tcp.conf"},
                ["BINARY", "-e", "stderr", "-c", "CONFIG"], ["BINARY", "-v"]),
        Program("haproxy", {"http": "haproxy.cfg", "tcp": "haproxy-tcp.cfg"},
                ["BINARY", "-db", "-f", "CONFIG"], ["BINARY", "-v"], SPLICE="# no splice"),
        Program("haproxy-splice", {"http": "haproxy.cfg", "tcp": "haproxy-tcp.cfg"},
                ["BINARY", "-db", "-f", "CONFIG"], ["BINARY", "-v"], command="haproxy",
                SPLICE="option splice-auto"),
        Program("h2o", {"http": "h2o.conf"}, ["BINARY", "-c", "CONFIG"], ["BINARY", "-v"]),
        # No peer: perf/bare.c, what the kernel alone takes.
        Program("bare", {"tcp": "bare.conf"}, ["BINARY", "CONFIG"], ["BINARY", "version"]),
    )
}


def find_binaries(names, bench, weir_path=None):
    """The programs of `names` that are there, and the names of those that are not."""
    ours = {"weir": weir_path or bench.weir_path, "bare": bench.bare_path}
    found, missing = [], []
    for name in names:
        program = PROGRAMS[name]
        program.binary = ours[name] if name in ours else find_program(program.command)
        if program.binary and os.access(program.binary, os.X_OK):
            program.binary = os.path.abspath(program.binary)
            found.append(program)
        else:
            missing.append(name)
    return found, missing


class Running:
    """One started program that answered correctly."""

    def __init__(self, program, bench, origin_port, row):
        self.program = program
        self.port = free_port()
        self.admin_port = free_port()
        config = self._write_config(bench, origin_port, row)
        argv = [{"BINARY": program.binary, "CONFIG": config}.get(word, word)
                for word in program.argv]
        log = os.path.join(bench.run_dir, f"{program.name}.stderr")
        self.process = Process(argv, bench.proxy_core, log)
        try:
            self._wait_for_port(row)
            self.forwarded = verify_echo(self.port) if row.mode == "echo" else \
                verify(bench, row, self.port)
        except Unserved as error:
            self.process.stop()
            yet = " yet" if program.name == "weir" else ""
            raise Failure(f"{program.name} does not serve this{yet}: {error}") from error
        except BaseException:
            self.process.stop()
            raise

    def _wait_for_port(self, row):
        """A configuration with HTTP/2 or TLS that is refused: the program is not as far."""
        try:
            wait_for_port(self.port, self.process)
        except Failure as error:
            if row.is_plain():
                raise
            raise Unserved(" | ".join(str(error).splitlines())) from error

    def _write_config(self, bench, origin_port, row):
        template = self.program.templates[row.mode]
        values = self.program.words | {
            "PORT": self.port, "ORIGIN_PORT": origin_port, "ADMIN_PORT": self.admin_port,
            "DIR": bench.run_dir, "PROXY_CORE": bench.proxy_core,
            # A proxied connection takes two files, an echo one; some are for everything else.
            "FILES_MAX": bench.files_max - 200,
            "CONNECTIONS_MAX": (bench.files_max - 2000) // 3,
            "ECHO_CONNECTIONS_MAX": (bench.files_max - 2000) * 3 // 4,
            # For 1 MB bodies it is cheaper with large buffers, for small ones it is not.
            "HAPROXY_BUFFER": 65536 if row.unit == "GB" else 32768,
            "CERTIFICATE": bench.certificate, "KEY": bench.key, "BOTH": bench.certificate_and_key,
            "SCHEME": "https" if row.tls else "http",
            "TICKETS": "on" if row.tickets else "off",
            # Lines of some rows are comments in the others.
            "CLEAR_H1": line_of(not row.tls and row.client == "h1"),
            "CLEAR_H2": line_of(not row.tls and row.client == "h2"),
            "TLS": line_of(row.tls), "NO_TICKETS": line_of(not row.tickets),
            "UPSTREAM_H1": line_of(row.upstream == "h1"),
            "UPSTREAM_H2": line_of(row.upstream == "h2"),
            # Lines that only root may have, or else the program changes to another user.
            "ROOT": line_of(os.geteuid() == 0),
        }
        if self.program.name == "nginx" and row.mode == "tcp":
            values["LOAD_STREAM"] = nginx_stream_line(self.program.binary)
        with open(os.path.join(bench.perf_dir, "configs", template + ".in"),
                  encoding="ascii") as file:
            text = re.sub(r"@([A-Z0-9_]+)@", lambda match: str(values[match[1]]), file.read())
        path = os.path.join(bench.run_dir, f"{self.program.name}.{template}")
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def pids(self):
        return self.process.pids()

    def metrics(self):
        """weir's counters by their full Prometheus name with labels; {} for the others."""
        if self.program.name != "weir":
            return {}
        client = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        client.request("GET", "/metrics", headers={"Connection": "close"})
        answer = client.getresponse()
        text = answer.read().decode()
        client.close()
        if answer.status != 200:
            raise Failure(f"weir's /metrics answers {answer.status}")
        values = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#"):
                values[name] = float(value)
        return values

    def stop(self):
        self.process.stop()


def line_of(holds):
    return "" if holds else "# "


def nginx_stream_line(binary):
    """nginx can do TCP by a module, which Debian keeps in a package of its own."""
    said = output_of([binary, "-V"])
    if "--with-stream " in said + " ":
        return "# the stream module is built in"
    modules = re.search(r"--modules-path=(\S+)", said)
    path = os.path.join(modules[1] if modules else "", "ngx_stream_module.so")
    if not os.path.exists(path):
        raise Failure("nginx has no stream module: tools/setup bench installs it")
    return f"load_module {path};"


def wait_for_port(port, process, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        process.check_alive()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Failure(f"{process.argv[0]} does not listen on port {port} after {seconds} s")


def verify(bench, row, port):
    """Asks for each kind of body, in the row's protocols. Returns the head that the origin got."""
    asker = Asker(bench, row, port)
    for path, size in (("/", 128), ("/bytes/100000", 100000), ("/1m", MIB), ("/delay/5/300", 300)):
        status, body = asker.ask("GET", path)
        if status != 200 or body != PATTERN[:size]:
            raise Failure(f"GET {path} through the proxy: status {status}, and the "
                          f"{len(body)} bytes are not the origin's {size}")
    for path, size in (("/", 200000), ("/check", 5), ("/check", MIB)):
        status, said = asker.ask("POST", path, PATTERN[:size])
        if status != 200 or said != f"received {size}\n".encode():
            raise Failure(f"POST {path} of {size} bytes through the proxy: status "
                          f"{status}, {said[:40]!r}")
    head = asker.ask("GET", "/head")[1].decode("latin-1")
    asker.close()
    if (row.mode == "http") != bool(re.search(r"(?im)^x-forwarded-for: 127\.0\.0\.1", head)):
        raise Failure(f"X-Forwarded-For is missing in HTTP mode, or added in TCP mode:\n{head}")
    scheme = "https" if row.tls else "http"
    if row.mode == "http" and not re.search(rf"(?im)^x-forwarded-proto: {scheme}\r?$", head):
        raise Failure(f"X-Forwarded-Proto is not {scheme}:\n{head}")
    return head if row.mode == "http" else None


def verify_echo(port):
    """Bytes of several sizes come back as they were sent. There is no head to return."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        for size in (1, 128, MIB):
            sender = threading.Thread(target=client.sendall, args=(PATTERN[:size],), daemon=True)
            sender.start()
            received = b""
            while len(received) < size:
                piece = client.recv(65536)
                if not piece:
                    raise Failure(f"the echo ends after {len(received)} bytes of {size}")
                received += piece
            sender.join()
            if received != PATTERN[:size]:
                raise Failure(f"the echo of {size} bytes is not what was sent")
