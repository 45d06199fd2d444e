"""Node on both sides: its http2 and undici before weir, its servers of every version behind."""

import os
import subprocess

import pytest

from harness import versions
from harness.tls import make_certificates
from harness.wait import PATIENCE

HERE = os.path.dirname(os.path.abspath(__file__))
# Debian's folder of packages: Node of another make does not look there.
ENVIRONMENT = {**os.environ, "NODE_PATH": "/usr/share/nodejs", "NODE_NO_WARNINGS": "1"}
PORTS = {version: f"node_{version}" for version in versions.VERSIONS}

INI = versions.SITE + versions.upstreams(PORTS) + versions.listeners()


@pytest.fixture
def servers(stage):
    """node_server.js, whose ports are the stage's."""
    make_certificates(stage.directory, "origin.test.pem")
    ports = [f"{version}={stage.things[name].number}" for version, name in PORTS.items()]
    process = subprocess.Popen(
        ["node", f"{HERE}/node_server.js", f"{stage.directory}/origin.test.pem", *ports],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.communicate("", PATIENCE)
    assert process.returncode == 0


@pytest.mark.parametrize("in_tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("kind", ["h2", "undici"])
def test_node_talks_to_node(stage, servers, kind, in_tls):
    """Long bodies both ways, trailers, 100 requests at once, a dialogue; to each server version."""
    running = []
    for server in versions.VERSIONS:
        origin = versions.url(stage, "h2s" if in_tls else "h2", server, "")
        running.append((server, subprocess.Popen(
            ["node", f"{HERE}/node_client.js", kind, f"{stage.directory}/ca.pem", origin],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, env=ENVIRONMENT)))
    faults = []
    for server, process in running:
        try:
            _, told = process.communicate(timeout=6 * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            told = f"no end {process.communicate()[1]}"
        if process.returncode != 0:
            faults.append(f"{server}: {told}")
    assert not faults, "\n".join(faults)
