"""A system that forbids io_uring: weir says why, what to do about it, and exits with EX_CONFIG.

A seccomp filter (seccomp(2)) in front of weir alone plays the sandbox: the sysctl
kernel.io_uring_disabled would be everybody's, and gives the same EPERM.
"""

import errno
import re
import subprocess

import pytest

from harness.seccomp import RING_CALLS, forbid_calls
from harness.weir import BINARY, Port

EXIT_NO_RING = 78
RUN_S = 20


@pytest.fixture
def run(tmp_path):
    port = Port()
    (tmp_path / "weir.ini").write_text(
        f"[global]\nmax_connections = 100\nworkers = 1\n"
        f"[listener web]\nbind = {port.address}\nservice = hi\n[service hi]\ntype = respond\n")

    def run(names, error, *words):
        return subprocess.run([BINARY, "-c", "weir.ini", *words], cwd=tmp_path, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_S,
                              preexec_fn=forbid_calls(names, error))

    yield run
    port.close()


# What the message must name for each error: the cause and the fix.
MESSAGES = {
    errno.EPERM: ["io_uring is forbidden", "kernel.io_uring_disabled=0", "seccomp"],
    errno.ENOSYS: ["no io_uring", "6.1", "seccomp"],
    errno.EINVAL: ["too old", "6.1"],
}
ERRORS = pytest.mark.parametrize("error", MESSAGES, ids=errno.errorcode.get)


def check_message(text, error):
    for word in MESSAGES[error]:
        assert word in text, text


@ERRORS
def test_serving_without_io_uring(run, error):
    done = run(["io_uring_setup"], error)
    assert done.returncode == EXIT_NO_RING, done.stderr
    check_message(done.stderr, error)
    assert "ready" not in done.stderr
    assert "cannot listen" not in done.stderr


@ERRORS
def test_doctor_without_io_uring(run, error):
    done = run(["io_uring_setup"], error, "doctor")
    assert done.returncode == 1
    line = re.search(r"^fail +io_uring: .*$", done.stdout, re.M)
    assert line, done.stdout
    check_message(line.group(), error)
    assert re.search(r"^ok +configuration: ", done.stdout, re.M), "the rest is looked at as well"
    assert re.search(r"^(ok|warn) +RLIMIT_NOFILE: ", done.stdout, re.M)


@pytest.mark.parametrize("name", ["io_uring_enter", "io_uring_register"])
def test_a_sandbox_that_forbids_a_part(run, name):
    """A ring can be made, but not be used."""
    done = run([name], errno.EPERM)
    assert done.returncode == EXIT_NO_RING, done.stderr
    check_message(done.stderr, errno.EPERM)
    assert "ready" not in done.stderr


@pytest.mark.parametrize("name", ["io_uring_enter", "io_uring_register"])
def test_doctor_finds_a_part_that_is_forbidden(run, name):
    done = run([name], errno.EPERM, "doctor")
    assert done.returncode == 1
    assert re.search(r"^fail +io_uring: io_uring is forbidden", done.stdout, re.M), done.stdout


@pytest.mark.parametrize("words, said", [(["check"], "ok:"), (["version"], "weir "),
                                         (["explain", "GET", "/"], "service   hi")])
def test_what_needs_no_ring_works_without(run, words, said):
    done = run(list(RING_CALLS), errno.EPERM, *words)
    assert done.returncode == 0 and said in done.stdout


def test_the_filter_alone_changes_nothing(run):
    """The tests above fail for the right reason."""
    done = run([], errno.EPERM, "doctor")
    assert done.returncode == 0, done.stdout
