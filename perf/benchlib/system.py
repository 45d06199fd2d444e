"""Processes, cores and their clocks: everything that is read from /proc or set on a process."""

import ctypes
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failure(Exception):
    """Something outside this program is not as it has to be: the text is for people."""


def end_on_signals():
    """SIGINT and SIGTERM unwind through `finally`, also when the starting shell ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def raise_file_limit(needed, wanted):
    """Lets this process and what it starts open files; some roots may go over the hard limit.

    Returns the limit that holds, which is the same for every program.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (wanted, min(hard, wanted)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
        except (ValueError, PermissionError):
            continue
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        raise Failure(f"only {soft} open files are allowed and {needed} are needed: run as root, "
                      f"or after `ulimit -n {needed}`")
    return soft


def free_port():
    """A free loopback port below the ephemeral range: no outgoing connection can take it."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        low = int(file.read().split()[0])
    first, last = (10000, low - 1) if low > 11000 else (low, 60000)
    for _ in range(200):
        port = random.randint(first, last)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failure("no free port found")


class Process:
    """A started program, pinned to one core. stop() ends exactly it and its children."""

    running = []

    def __init__(self, argv, core, log, stdout=None, env=None):
        def prepare():
            os.setsid()
            os.sched_setaffinity(0, {core})
            # When this program is killed, nothing it started may stay.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        self.argv = argv
        self.log = log
        with open(log, "wb") as errors:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout or errors,
                                          stderr=errors, preexec_fn=prepare, env=env)
        self.pid = self.popen.pid
        Process.running.append(self)

    def check_alive(self):
        if self.popen.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                tail = "".join(file.readlines()[-15:])
            raise Failure(f"{self.argv[0]} ended with status {self.popen.returncode}:\n{tail}")

    def pids(self):
        return family(self.pid)

    def stop(self):
        """SIGTERM, then SIGKILL for what is left after three seconds."""
        if self not in Process.running:
            return
        Process.running.remove(self)
        members = self.pids()
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(3)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        for pid in members:
            # A member of our own session only: the number may have been given to a stranger since.
            try:
                if os.getsid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    @classmethod
    def stop_all(cls):
        for process in list(cls.running):
            process.stop()


def family(pid):
    """The process and all its descendants."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(stat_fields(f"/proc/{name}/stat")[1])
            except (OSError, IndexError):
                continue
    members = [pid]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return [member for member in members if member in parents]


def stat_fields(path):
    """The fields after the program's name, which may contain anything: index 0 is `state`."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


class CpuSample:
    """CPU time of some processes: exact per thread, and the tick-based user/system split."""

    def __init__(self, pids):
        self.at = time.monotonic()
        self.threads = {}
        self.user = 0
        self.system = 0
        ticks = os.sysconf("SC_CLK_TCK")
        for pid in pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                try:
                    with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                        self.threads[(pid, task)] = int(file.read().split()[0])
                except FileNotFoundError:
                    continue
            fields = stat_fields(f"/proc/{pid}/stat")
            self.user += int(fields[11]) / ticks
            self.system += int(fields[12]) / ticks

    def since(self, earlier):
        """(total, user, system) in seconds. schedstat has the exact total, the ticks the split."""
        user, system = self.user - earlier.user, self.system - earlier.system
        total = user + system
        if set(earlier.threads) <= set(self.threads):
            total = sum(ns - earlier.threads.get(key, 0) for key, ns in self.threads.items()) / 1e9
        share = user / (user + system) if user + system > 0 else 0
        return total, total * share, total * (1 - share)


class CoreSample:
    """Busy, stolen and total ticks of every core at one moment."""

    def __init__(self):
        self.cores = {}
        with open("/proc/stat", encoding="ascii") as file:
            for line in file:
                name, *fields = line.split()
                if name.startswith("cpu") and name != "cpu":
                    values = [int(field) for field in fields]
                    idle = values[3] + values[4]
                    self.cores[int(name[3:])] = (sum(values[:8]) - idle, values[7], sum(values[:8]))

    def since(self, earlier, core):
        """(busy, stolen) as shares of the time between the samples."""
        busy, stolen, total = (now - then for now, then in
                               zip(self.cores[core], earlier.cores[core]))
        return (busy / total, stolen / total) if total else (0, 0)


def private_bytes(pids):
    """Memory that only these processes have and that is not a clean copy of a file."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Private_Dirty:"):
                    total += int(line.split()[1]) * 1024
    return total


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)


def output_of(argv):
    """The first lines a program prints, wherever it prints them; empty when it is not there."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10,
                              check=False)
        return done.stdout.decode(errors="replace").strip()
    except OSError:
        return ""


def find_program(name):
    """Its path. Daemons live in sbin directories that are not on everyone's PATH."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"
    return shutil.which(name, path=path)


def environment(root):
    """What a reader of the numbers has to know about the machine."""
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    revision = output_of(["git", "-C", root, "rev-parse", "--short=12", "HEAD"])
    changed = output_of(["git", "--no-optional-locks", "-C", root, "status", "--porcelain"])
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": os.uname().release,
        "cpu": model,
        "cpus": os.cpu_count(),
        "revision": revision.splitlines()[0] + ("+changes" if changed else "")
        if revision and " " not in revision.splitlines()[0] else "none",
        "compiler": (output_of(["cc", "--version"]).splitlines() or ["?"])[0],
        "wrk": (output_of(["wrk", "-v"]).splitlines() or ["?"])[0],
    }
