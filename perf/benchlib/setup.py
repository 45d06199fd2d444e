"""What every measuring program needs first: folders, limits, cores and the compiled origin."""

import os
import subprocess
from types import SimpleNamespace

from benchlib.system import Failure, find_program, raise_file_limit

# 4000 connections on both sides of a proxy, or 10000 to an echo, and something to spare.
FILES_NEEDED = 15500
FILES_WANTED = 20000


def prepare(perf_dir, cores, seconds):
    """The world of one run, as plain fields."""
    root = os.path.dirname(perf_dir)
    proxy_core, load_core = (int(core) for core in cores.split(","))
    available = os.sched_getaffinity(0)
    if proxy_core == load_core or not {proxy_core, load_core} <= available:
        raise Failure(f"two different cores of {sorted(available)} are needed, not {cores}")
    if not find_program("wrk"):
        raise Failure("wrk is not installed: tools/setup bench installs it")
    files_max = raise_file_limit(FILES_NEEDED, FILES_WANTED)
    out_dir = os.path.join(root, "build", "bench")
    run_dir = os.path.join(out_dir, "run")
    os.makedirs(run_dir, exist_ok=True)
    for name in os.listdir(run_dir):
        path = os.path.join(run_dir, name)
        if os.path.isfile(path):
            os.unlink(path)
    origin = build(perf_dir, out_dir, "origin", ["origin.c", "origin_request.c"])
    load = build(perf_dir, out_dir, "load", ["load.c", "load_http.c", "load_echo.c"])
    os.sched_setaffinity(0, {load_core})
    return SimpleNamespace(root=root, perf_dir=perf_dir, out_dir=out_dir, run_dir=run_dir,
                           origin_binary=origin, load_binary=load,
                           weir_path=os.path.join(root, "build", "weir"), proxy_core=proxy_core,
                           load_core=load_core, files_max=files_max, seconds=seconds)


def build(perf_dir, out_dir, name, sources):
    """A program of this folder. Returns its path."""
    binary = os.path.join(out_dir, name)
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-g", "-Wall",
                    "-Wextra", "-o", binary]
                   + [os.path.join(perf_dir, source) for source in sources], check=True)
    return binary
