"""What connections cost in memory: they are opened, and held."""

import time

from benchlib.speak import HeldConnection, tls_context
from benchlib.system import private_bytes, wait_for


# What is held is idle for so long before it is measured: allocators give memory back later than a
# connection stops needing it.
SETTLE_SECONDS = 5


class Held:
    """Connections that each sent one request; `answered` ones have read the whole answer."""

    def __init__(self, row, port, path, count, answered):
        self.connections = []
        context = tls_context(row.client)
        for _ in range(count):
            connection = HeldConnection(row, port, context)
            self.connections.append(connection)
            connection.send_request(path)
            if answered:
                connection.read_answer()

    def still_open(self):
        return sum(connection.is_open() for connection in self.connections)

    def close(self):
        for connection in self.connections:
            connection.close()
        self.connections = []


def measure_memory(row, running, origin):
    """Growth of private memory by held connections, after a warm-up that is not counted."""
    is_active = row.path != "/" and not row.upgrade
    warm_path = row.path if row.upgrade else "/"
    fresh = private_bytes(running.pids())
    warm = Held(row, running.port, warm_path, 100, answered=True)
    warm.close()
    time.sleep(0.3)
    metrics = memory_metrics(running)
    before = private_bytes(running.pids())
    held = Held(row, running.port, row.path, row.connections, answered=not is_active)
    try:
        errors = {}
        if is_active:
            wait_for(lambda: origin.counters()["waiting"] >= row.connections)
            if origin.counters()["waiting"] != row.connections:
                errors["not_in_flight"] = row.connections - origin.counters()["waiting"]
        time.sleep(SETTLE_SECONDS)
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
