"""The programs under measurement: how each is configured, started, and checked before that."""

import http.client
import os
import re
import socket
import time

from benchlib.system import Failure, Process, find_program, free_port, output_of

PATTERN = "".join(f"{line:07x}\n" for line in range(131072)).encode()
MIB = 1024 * 1024


class Program:
    """One kind of proxy. `argv` and the version command take the words BINARY and CONFIG."""

    def __init__(self, name, template, argv, version):
        self.name = name
        self.template = template
        self.argv = argv
        self.version_argv = version
        self.binary = None

    def version(self):
        text = output_of([self.binary if word == "BINARY" else word for word in self.version_argv])
        lines = [line for line in text.splitlines() if "version" in line.lower() or "weir" in line]
        return re.sub(r"\s+", " ", (lines or text.splitlines() or ["?"])[0])[:80]


PROGRAMS = {
    program.name: program for program in (
        Program("weir", "weir.ini", ["BINARY", "-c", "CONFIG"], ["BINARY", "version"]),
        Program("nginx", "nginx.conf", ["BINARY", "-e", "stderr", "-c", "CONFIG"],
                ["BINARY", "-v"]),
        Program("haproxy", "haproxy.cfg", ["BINARY", "-db", "-f", "CONFIG"], ["BINARY", "-v"]),
        Program("h2o", "h2o.conf", ["BINARY", "-c", "CONFIG"], ["BINARY", "-v"]),
    )
}


def find_binaries(names, weir_path):
    """The programs of `names` that are there, and the names of those that are not."""
    found, missing = [], []
    for name in names:
        program = PROGRAMS[name]
        program.binary = weir_path if name == "weir" else find_program(name)
        if program.binary and os.access(program.binary, os.X_OK):
            program.binary = os.path.abspath(program.binary)
            found.append(program)
        else:
            missing.append(name)
    return found, missing


class Running:
    """One started program that answered correctly."""

    def __init__(self, program, bench, origin_port):
        self.program = program
        self.port = free_port()
        self.admin_port = free_port()
        config = self._write_config(bench, origin_port)
        argv = [{"BINARY": program.binary, "CONFIG": config}.get(word, word)
                for word in program.argv]
        log = os.path.join(bench.run_dir, f"{program.name}.stderr")
        self.process = Process(argv, bench.proxy_core, log)
        try:
            wait_for_port(self.port, self.process)
            self.forwarded = verify(self.port)
        except BaseException:
            self.process.stop()
            raise

    def _write_config(self, bench, origin_port):
        values = {
            "PORT": self.port, "ORIGIN_PORT": origin_port, "ADMIN_PORT": self.admin_port,
            "DIR": bench.run_dir, "PROXY_CORE": bench.proxy_core,
            # A proxied connection takes two files; some are needed for everything else.
            "FILES_MAX": bench.files_max - 200,
            "CONNECTIONS_MAX": (bench.files_max - 2000) // 3,
            # Lines that only root may have, or else the program changes to another user.
            "ROOT": "" if os.geteuid() == 0 else "# ",
        }
        template = os.path.join(bench.perf_dir, "configs", self.program.template + ".in")
        with open(template, encoding="ascii") as file:
            text = re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), file.read())
        path = os.path.join(bench.run_dir, self.program.template)
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


def verify(port):
    """Asks for each kind of body on one connection. Returns the head that the origin was sent."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for path, size in (("/", 128), ("/bytes/100000", 100000), ("/1m", MIB), ("/delay/5/300", 300)):
        client.request("GET", path)
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200 or body != PATTERN[:size]:
            raise Failure(f"GET {path} through the proxy: status {answer.status}, and the "
                          f"{len(body)} bytes are not the origin's {size}")
    client.request("POST", "/", body=b"x" * 200000)
    answer = client.getresponse()
    if answer.status != 200 or answer.read() != b"received 200000\n":
        raise Failure(f"POST through the proxy: status {answer.status} or not all of the body")
    client.request("GET", "/head")
    head = client.getresponse().read().decode("latin-1")
    client.close()
    if not re.search(r"(?im)^x-forwarded-for: 127\.0\.0\.1", head):
        raise Failure(f"the proxy adds no X-Forwarded-For:\n{head}")
    return head
