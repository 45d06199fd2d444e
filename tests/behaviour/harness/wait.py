"""Waiting for conditions. Nothing in the tests sleeps and hopes."""

import os
import select
import socket
import time

# How long anything may take before it counts as "never". Nobody waits for it in a good run.
PATIENCE = float(os.environ.get("WEIR_TEST_PATIENCE", "10"))


def eventually(condition, what, within=None):
    """Returns the first true value of condition(); `what` (text or function) tells of a failure."""
    deadline = time.monotonic() + (PATIENCE if within is None else within)
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


class Bell:
    """Wakes a thread that waits in readable() for something else."""

    def __init__(self):
        self.hears, self.rings = socket.socketpair()

    def fileno(self):
        return self.hears.fileno()

    def ring(self):
        self.rings.send(b"!")

    def close(self):
        self.hears.close()
        self.rings.close()


def readable(things, within=PATIENCE):
    """Those of `things` (sockets, peers) that have bytes or an end to read; None: for as long as it
    takes."""
    return _polled(things, select.POLLIN, within)


def writable(thing, within):
    """Whether `thing` takes bytes, now or soon."""
    return bool(_polled([thing], select.POLLOUT, within))


def _polled(things, event, within):
    poll = select.poll()
    by_fd = {thing.fileno(): thing for thing in things}
    for fd in by_fd:
        poll.register(fd, event)
    return [by_fd[fd] for fd, _ in poll.poll(None if within is None else within * 1000)]
