"""The steady state of weir's worker: what it allocates and what it asks of the kernel.

Two views that must agree: weir's own counters over a window, and strace on the worker's thread over
another one (strace makes it slow, so the counters are not read then).
"""

import os
import re
import signal
import subprocess
import time

from benchlib.load import Load, Origin, load_errors
from benchlib.programs import Running
from benchlib.rows import Row
from benchlib.system import CpuSample, Failure, Process, find_program, wait_for

ROW = Row("steady", "steady state, 64 connections", 64)
WINDOW_SECONDS = 2
# What the checks before the load used, and the load does not, has gone back to the kernel by then.
SETTLE_SECONDS = 5


def busiest_thread(running):
    """The worker: the thread that used the most CPU."""
    return int(max(CpuSample(running.pids()).threads.items(), key=lambda item: item[1])[0][1])


def check(bench, program, row=ROW):
    """Counts per window. other_calls_count is None when strace is not there."""
    origin = Origin(bench, row.upstream)
    running = Running(program, bench, origin.port, row)
    try:
        load = Load(bench, row, running.port, SETTLE_SECONDS + 3 * WINDOW_SECONDS)
        time.sleep(SETTLE_SECONDS)
        outcome = count_by_metrics(running, origin)
        outcome.update(count_by_strace(bench, busiest_thread(running), origin))
        answer = load.result()
        outcome["errors"] = load_errors(answer)
        return outcome
    finally:
        running.stop()
        origin.stop()


def count_by_metrics(running, origin):
    before, requests = running.metrics(), origin.counters()["requests"]
    time.sleep(WINDOW_SECONDS)
    after, requests = running.metrics(), origin.counters()["requests"] - requests

    def grown(name):
        if name not in after:
            raise Failure(f"weir's /metrics has no {name}")
        return int(after[name] - before.get(name, 0))

    enters = grown("weir_uring_enter_total")
    turns = grown("weir_uring_cqe_per_wake_count")
    return {
        "requests": requests,
        "enters": enters,
        "turns": turns,
        "completions": grown("weir_uring_cqe_total"),
        "heap_bytes": grown("weir_heap_allocated_bytes_total"),
        # A scrape lies between a turn's enter and its end: one more of either is not a finding.
        "enters_per_turn": 1.0 if abs(enters - turns) <= 1 else round(enters / max(turns, 1), 4),
    }


def count_by_strace(bench, thread, origin):
    if not find_program("strace"):
        return {"calls": None, "other_calls_count": None}
    calls, requests = trace(bench, [thread], origin, follow=False)
    # A wait that the tracer interrupts is begun again by the kernel under this name.
    calls.pop("restart_syscall", None)
    return {
        "calls": calls,
        "traced_requests": requests,
        "other_calls_count": sum(count for name, count in calls.items()
                                 if name != "io_uring_enter"),
    }


def trace(bench, tasks, origin, follow):
    """({system call: count}, requests meanwhile): of threads, or with `follow` of processes."""
    path = os.path.join(bench.run_dir, "strace.out")
    argv = ["strace", "-c", "-q", "-o", path] + (["-f"] if follow else [])
    for task in tasks:
        argv += ["-p", str(task)]
    tracer = Process(argv, bench.load_core, os.path.join(bench.run_dir, "strace.stderr"))
    # What the program did before the tracer took hold is not in the counts.
    wait_for(lambda: is_traced(tasks[-1]) or tracer.popen.poll() is not None)
    tracer.check_alive()
    requests = origin.counters()["requests"]
    time.sleep(WINDOW_SECONDS)
    requests = origin.counters()["requests"] - requests
    tracer.popen.send_signal(signal.SIGINT)
    try:
        tracer.popen.wait(5)
    except subprocess.TimeoutExpired:
        pass
    tracer.stop()
    with open(path, encoding="ascii", errors="replace") as file:
        return read_counts(file.read()), requests


def is_traced(task):
    with open(f"/proc/{task}/status", encoding="utf-8") as file:
        return "TracerPid:\t0\n" not in file.read()


def read_counts(text):
    """The table of strace -c: % time, seconds, usecs/call, calls, [errors], syscall."""
    calls = {}
    for line in text.splitlines():
        match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z_]\w*)$", line)
        if match and match[2] != "total":
            calls[match[2]] = int(match[1])
    return calls
