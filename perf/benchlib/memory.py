"""What connections cost in memory: they are opened, and held."""

import socket
import time

from benchlib.system import Failure, private_bytes, wait_for


class Held:
    """Connections that each sent one request; `answered` ones have read the whole answer."""

    def __init__(self, port, path, count, answered):
        self.sockets = []
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), 10)
            self.sockets.append(connection)
            connection.sendall(request)
            if answered:
                read_answer(connection)

    def still_open(self):
        """How many have been neither closed nor sent anything."""
        count = 0
        for connection in self.sockets:
            connection.setblocking(False)
            try:
                connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                count += 1
            except OSError:
                continue
        return count

    def close(self):
        for connection in self.sockets:
            connection.close()
        self.sockets = []


def read_answer(connection):
    received = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            raise Failure("a connection was closed before its answer")
        received += piece
        head, blank, body = received.partition(b"\r\n\r\n")
        if blank and len(body) >= 128:
            if not head.startswith(b"HTTP/1.1 200"):
                raise Failure(f"the answer is {head[:40]!r}")
            return


def measure_memory(row, running, origin):
    """Growth of private memory by held connections, after a warm-up that is not counted."""
    is_active = row.path != "/"
    fresh = private_bytes(running.pids())
    warm = Held(running.port, "/", 100, answered=True)
    warm.close()
    time.sleep(0.3)
    metrics = memory_metrics(running)
    before = private_bytes(running.pids())
    held = Held(running.port, row.path, row.connections, answered=not is_active)
    try:
        errors = {}
        if is_active:
            wait_for(lambda: origin.counters()["waiting"] >= row.connections)
            if origin.counters()["waiting"] != row.connections:
                errors["not_in_flight"] = row.connections - origin.counters()["waiting"]
        time.sleep(0.3)
        after = private_bytes(running.pids())
        metrics_after = memory_metrics(running)
        lost = row.connections - held.still_open()
        if lost:
            errors["closed"] = lost
    finally:
        held.close()
    return {
        "bytes": (after - before) / row.connections,
        "fresh_bytes": fresh,
        "before_bytes": before,
        "after_bytes": after,
        "metrics": {name: [metrics.get(name, 0), value] for name, value in metrics_after.items()},
        "errors": errors,
    }


def memory_metrics(running):
    return {name: value for name, value in running.metrics().items()
            if name.startswith("weir_memory_bytes") or "_slots_used" in name}
