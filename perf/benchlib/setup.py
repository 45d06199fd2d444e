"""What every measuring program needs first: folders, limits, cores, the compiled origins."""

import os
import subprocess
from types import SimpleNamespace

from benchlib.load import CLIENT_CONF
from benchlib.speak import client_environment
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
    for tool in ("wrk", "h2load", "curl", "openssl"):
        if not find_program(tool):
            raise Failure(f"{tool} is not installed: tools/setup bench installs it")
    files_max = raise_file_limit(FILES_NEEDED, FILES_WANTED)
    out_dir = os.path.join(root, "build", "bench")
    run_dir = os.path.join(out_dir, "run")
    os.makedirs(run_dir, exist_ok=True)
    for name in os.listdir(run_dir):
        path = os.path.join(run_dir, name)
        if os.path.isfile(path):
            os.unlink(path)
    origins = {
        "h1": build(perf_dir, out_dir, "origin", ["origin.c", "origin_base.c", "origin_request.c"]),
        "h2": build(perf_dir, out_dir, "origin_h2",
                    ["origin_h2.c", "origin_h2_head.c", "origin_base.c"], ["-lnghttp2"]),
    }
    load = build(perf_dir, out_dir, "load", ["load.c", "load_http.c", "load_echo.c", "load_tls.c"],
                 ["-lssl", "-lcrypto"])
    bare = build(perf_dir, out_dir, "bare", ["bare.c"])
    conf_path = os.path.join(run_dir, "client.conf")
    with open(conf_path, "w", encoding="ascii") as file:
        file.write(CLIENT_CONF)
    os.sched_setaffinity(0, {load_core})
    return SimpleNamespace(root=root, perf_dir=perf_dir, out_dir=out_dir, run_dir=run_dir,
                           origin_binaries=origins, load_binary=load, bare_path=bare,
                           weir_path=os.path.join(root, "build", "weir"), proxy_core=proxy_core,
                           load_core=load_core, files_max=files_max, seconds=seconds,
                           client_environment=client_environment(conf_path),
                           **make_certificate(run_dir))


def make_certificate(run_dir):
    """One for all programs: ECDSA P-256, signed by itself. Also both in one file, for HAProxy."""
    paths = {name: os.path.join(run_dir, file) for name, file in (
        ("certificate", "site.pem"), ("key", "site.key"), ("certificate_and_key", "both.pem"))}
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-noenc", "-days", "30", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", paths["key"], "-out", paths["certificate"]],
                   stderr=subprocess.DEVNULL, check=True)
    with open(paths["certificate_and_key"], "wb") as both:
        for name in ("certificate", "key"):
            with open(paths[name], "rb") as file:
                both.write(file.read())
    return paths


def build(perf_dir, out_dir, name, sources, libraries=()):
    """A program of this folder. Returns its path."""
    binary = os.path.join(out_dir, name)
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-g", "-Wall",
                    "-Wextra", "-o", binary]
                   + [os.path.join(perf_dir, source) for source in sources] + list(libraries),
                   check=True)
    return binary
