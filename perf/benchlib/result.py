"""From samples to medians, ratios and targets."""

from statistics import median

from benchlib.load import is_load_bound

FIGURES = ("rps", "per_core", "gigabytes", "p50_us", "p99_us", "cpu", "cpu_user", "cpu_system",
           "core", "proxy_busy", "proxy_core_busy", "load_core_busy", "load_busy", "origin_busy",
           "stolen", "foreign", "upstream_connects", "requests", "bytes", "fresh_bytes",
           "before_bytes", "after_bytes", "tickets")

# (row, figure, limit, what it is). The limit is a ratio to the best peer of Row.compared.
RATIO_TARGETS = (
    ("keepalive-64", "cpu", 0.95, "CPU per request, 64 connections"),
    ("keepalive-1000", "cpu", 0.65, "CPU per request, 1000 connections"),
    ("keepalive-4000", "cpu", 0.65, "CPU per request, 4000 connections"),
    ("keepalive-64", "p50_us", 0.75, "p50, 64 connections"),
    ("keepalive-1000", "p50_us", 0.75, "p50, 1000 connections"),
    ("keepalive-1000", "p99_us", 0.75, "p99, 1000 connections"),
    ("close-64", "cpu", 0.90, "CPU per request, Connection: close"),
    ("bulk-16", "cpu", 0.75, "CPU per GB, 1 MB bodies"),
    ("bulk-16", "cpu", 0.5, "CPU per GB, 1 MB bodies, spliced download"),
    ("upload-16", "cpu", 0.5, "CPU per GB, 1 MB bodies, spliced upload"),
    ("tcp-bulk-16", "cpu", 0.5, "CPU per GB, TCP mode, 16 connections"),
    ("tcp-bulk-256", "cpu", 0.5, "CPU per GB, TCP mode, 256 connections"),
    ("tcp-64", "cpu", 0.9, "CPU per request, TCP mode, 64 connections"),
    ("tcp-1000", "cpu", 0.65, "CPU per request, TCP mode, 1000 connections"),
    ("tcp-connect", "per_core", 1.1, "new TCP connections per second per core"),
    ("h2c-512", "cpu", 0.85, "CPU per request, h2c clients"),
    ("h2-tls", "cpu", 0.90, "CPU per request, h2 clients over TLS"),
    ("h2c-h2c", "cpu", 1.0, "CPU per request, h2c to h2c"),
    ("h1-h2c-64", "cpu", 0.85, "CPU per request, h1 to h2c, 64 connections"),
    ("h1-h2c-256", "cpu", 0.85, "CPU per request, h1 to h2c, 256 connections"),
    ("h1-h2c-1000", "cpu", 0.85, "CPU per request, h1 to h2c, 1000 connections"),
    ("tls-64", "cpu", 0.95, "CPU per request, TLS, 64 connections"),
    ("tls-handshake", "cpu", 1.0, "CPU per full handshake"),
    ("tls-resume", "cpu", 1.0, "CPU per resumed handshake"),
    ("tls-bulk-16", "cpu", 0.9, "CPU per GB, TLS, 1 MB bodies"),
)
# (row, the row of the peers, figure, limit, what it is). A ratio to the best of all peers there.
CROSS_TARGETS = (
    ("h1-h2c-64", "keepalive-64", "cpu", 0.55, "h1 to h2c to the best h1 to h1, 64"),
    ("h1-h2c-256", "keepalive-256", "cpu", 0.55, "h1 to h2c to the best h1 to h1, 256"),
    ("h1-h2c-1000", "keepalive-1000", "cpu", 0.55, "h1 to h2c to the best h1 to h1, 1000"),
)
# (row, figure, factor, limit, unit, what it is). The limit is a number of weir's own.
OWN_TARGETS = (
    ("memory-idle", "bytes", 1, 1024, "B", "user memory per idle connection"),
    ("memory-active", "bytes", 1, 16384, "B", "user memory per request in flight"),
    ("memory-tcp", "bytes", 1, 1536, "B", "user memory per idle TCP pair"),
    ("memory-websocket", "bytes", 1, 1536, "B", "user memory per idle WebSocket"),
    ("memory-h2c", "bytes", 1, 12288, "B", "memory per idle h2c connection"),
    ("memory-tls", "bytes", 1, 16384, "B", "memory per idle h1 connection over TLS"),
    ("memory-tls-h2", "bytes", 1, 24576, "B", "memory per idle h2 connection over TLS"),
    ("keepalive-64", "cpu_user", 1, 1.5, "us", "user CPU per request, 64 connections"),
    ("echo", "p99_us", 1e-3, 10, "ms", "echo p99, 1000 of 10000 active, closed loop"),
    ("echo-rate", "p99_us", 1e-3, 10, "ms", "echo p99, 1000 of 10000 active, 50000/s"),
)
# More of it is better: the limit is the least.
RISING = ("rps", "per_core")


def summarise(rows, samples):
    return {row.key: {
        "title": row.title,
        "kind": row.kind,
        "unit": row.unit,
        "connections": row.connections,
        "compared": row.compared_words(),
        "programs": with_ratios({name: summarise_one(row, taken)
                                 for name, taken in samples[row.key].items()}, row.compared),
    } for row in rows}


def summarise_one(row, taken):
    """The median of each figure by itself. One failed request in any round spoils the row."""
    errors = {}
    for sample in taken:
        for name, value in sample["errors"].items():
            errors[name] = errors.get(name, 0) + value if isinstance(value, int) else value
    whole = [sample for sample in taken if "failed" not in sample["errors"]]
    summary = {name: median(sample[name] for sample in whole)
               for name in FIGURES if whole and whole[0].get(name) is not None}
    summary["errors"] = errors
    summary["valid"] = not errors and bool(whole)
    summary["load_bound"] = row.kind == "load" and \
        sum(is_load_bound(sample) for sample in whole) * 2 > len(whole)
    # A proxy that opens a connection for every request is not measured with keep-alive.
    summary["upstream_reconnects"] = row.mode == "http" and \
        summary.get("upstream_connects", 0) > 0.01 * summary.get("requests", 0)
    summary["samples"] = taken
    return summary


def with_ratios(summaries, compared):
    peers = [name for name in summaries if name not in ("weir", "bare")]
    for summary in summaries.values():
        summary["ratio"] = ratios(summary, [summaries[peer] for peer in peers])
        summary["ratio_target_peers"] = ratios(
            summary, [summaries[peer] for peer in peers if peer in compared])
    return summaries


def ratios(summary, peers):
    """To the best of the peers whose row is valid, figure by figure."""
    valid = [peer for peer in peers if peer["valid"]]
    found = {}
    for figure in ("rps", "per_core", "p50_us", "p99_us", "cpu", "bytes"):
        values = [peer[figure] for peer in valid if peer.get(figure)]
        if values and summary["valid"] and summary.get(figure) is not None:
            best = max(values) if figure in RISING else min(values)
            found[figure] = summary[figure] / best
    return found


def targets(outcome):
    """Each target with what was measured. met is None when it was not measured."""
    judged = []
    for key, figure, limit, title in RATIO_TARGETS:
        weir = weir_row(outcome, key)
        measured = weir.get("ratio_target_peers", {}).get(figure)
        judged.append(judge(title, limit, measured, "", weir) if figure not in RISING else
                      judge_least(title, limit, measured, "", weir))
    for key, peers_key, figure, limit, title in CROSS_TARGETS:
        weir = weir_row(outcome, key)
        peers = outcome["rows"].get(peers_key, {}).get("programs", {})
        found = ratios(weir, [peers[name] for name in peers if name != "weir"]) if weir else {}
        judged.append(judge(title, limit, found.get(figure), "", weir))
    for key, figure, factor, limit, unit, title in OWN_TARGETS:
        weir = weir_row(outcome, key)
        measured = weir[figure] * factor if weir.get("valid") and figure in weir else None
        judged.append(judge(title, limit, measured, unit, weir))
    steady = outcome.get("steady", {})
    judged.append(judge("bytes allocated on the heap in the steady state", 0,
                        steady.get("heap_bytes"), "", steady))
    judged.append(judge("io_uring_enter per turn in the steady state", 1,
                        steady.get("enters_per_turn"), "", steady))
    judged.append(judge("other system calls in the steady state", 0,
                        steady.get("other_calls_count"), "", steady))
    return judged


def weir_row(outcome, key):
    return outcome["rows"].get(key, {}).get("programs", {}).get("weir", {})


def judge(title, limit, measured, unit, source):
    errors = source.get("errors") or {}
    met = None if measured is None and not errors else \
        measured is not None and not errors and measured <= limit
    return {"title": title, "limit": limit, "measured": measured, "unit": unit, "met": met,
            "at_least": False, "errors": errors}


def judge_least(title, limit, measured, unit, source):
    target = judge(title, limit, measured, unit, source)
    if measured is not None and not target["errors"]:
        target["met"] = measured >= limit
    return target | {"at_least": True}
