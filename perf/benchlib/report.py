"""The table for the terminal."""

from benchlib.rows import UNITS

# Shares of a core from which on a row is marked as disturbed.
FOREIGN_MAX = 0.05
STOLEN_MAX = 0.02

ERROR_WORDS = {
    "connect": "failed connects", "read": "read errors", "write": "write errors",
    "status": "error statuses", "timeout": "timeouts", "closed": "connections closed early",
    "not_in_flight": "requests missing at the origin", "no_requests": "no requests",
    "not_closed": "requests on kept connections", "handshake": "failed or not resumed handshakes",
}


def table(outcome):
    lines = heading(outcome)
    for row in outcome["rows"].values():
        lines += ["", row["title"]]
        lines += memory_lines(row) if row["kind"] == "memory" else load_lines(row)
    if outcome.get("steady"):
        lines += ["", "weir's worker in the steady state"] + steady_lines(outcome["steady"])
    if any("weir" in row["programs"] for row in outcome["rows"].values()) or outcome.get("steady"):
        lines += ["", "targets (ratios are to the best of nginx and HAProxy, with and without "
                  "splice; in rows of HTTP/2 and TLS also of h2o)"]
        lines += [target_line(target) for target in outcome["targets"]]
    return "\n".join(lines) + "\n"


def heading(outcome):
    environment, options = outcome["environment"], outcome["options"]
    lines = [
        f"{environment['cpu']}, {environment['cpus']} CPUs, Linux {environment['kernel']}, "
        f"weir at {environment['revision']}, {environment['time']}",
        "; ".join(f"{name}: {version}" for name, version in outcome["versions"].items()),
        f"median of {options['rounds']} round(s) of {options['seconds']} s; one worker on one "
        "core, load and origin on another; all over loopback",
    ]
    if outcome["missing"]:
        lines.append("NOT measured, not installed or not built: " + " ".join(outcome["missing"]))
    if options["rounds"] < 3:
        lines.append("fewer than three rounds: a first look, not a result")
    return lines


def latency(microseconds):
    if microseconds is None:
        return "-"
    if microseconds < 1000:
        return f"{microseconds:.0f} us"
    return f"{microseconds / 1000:.{2 if microseconds < 10000 else 1}f} ms"


def load_lines(row):
    rate, unit = UNITS[row["unit"]][:2]
    lines = [f"  {'':15}{rate:>9}{'p50':>10}{'p99':>10}{'CPU ' + unit:>12}{'user':>7}"
             f"{'system':>8}{'busy':>6}{'load':>6}  {'CPU: best peer':>14}{row['compared']:>15}"]
    for name, figures in row["programs"].items():
        if "cpu" not in figures:
            lines.append(f"  {name:15}{notes(figures)}")
            continue
        lines.append(
            f"  {name:15}{figures['rps']:9.0f}{latency(figures.get('p50_us')):>10}"
            f"{latency(figures.get('p99_us')):>10}{figures['cpu']:12.2f}{figures['cpu_user']:7.2f}"
            f"{figures['cpu_system']:8.2f}{figures['proxy_busy']:6.0%}"
            f"{figures['load_core_busy']:6.0%}  {ratio(figures['ratio'], 'cpu'):>14}"
            f"{ratio(figures['ratio_target_peers'], 'cpu'):>15}{notes(figures)}")
    words = [("rps", rate), ("p50_us", "p50"), ("p99_us", "p99"), ("cpu", "CPU")]
    if row["unit"] in ("connection", "handshake"):
        words.append(("per_core", f"{row['unit']}s per CPU second"))
        lines.append(f"  {row['unit']}s per second of the proxy's CPU: " + each(row, "per_core", 0))
    if row["unit"] == "handshake":
        lines.append("  tickets given per handshake: " + each(row, "tickets", 2))
    found = row["programs"].get("weir", {}).get("ratio_target_peers")
    if found:
        lines.append(f"  weir to the best ({row['compared']}): " + ", ".join(
            f"{word} {ratio(found, key)}" for key, word in words))
    return lines


def each(row, figure, digits):
    return ", ".join(f"{name} {figures[figure]:.{digits}f}"
                     for name, figures in row["programs"].items() if figure in figures)


def memory_lines(row):
    lines = [f"  {'':15}{'B/conn':>9}{'process before':>16}{'after':>10}  {'best peer':>10}"
             f"{row['compared']:>15}"]
    for name, figures in row["programs"].items():
        if "bytes" not in figures:
            lines.append(f"  {name:15}{notes(figures)}")
            continue
        lines.append(
            f"  {name:15}{figures['bytes']:9.0f}{figures['before_bytes'] / 1024:13.0f} kB"
            f"{figures['after_bytes'] / 1024:7.0f} kB  {ratio(figures['ratio'], 'bytes'):>10}"
            f"{ratio(figures['ratio_target_peers'], 'bytes'):>15}{notes(figures)}")
        for metric, (before, after) in last_metrics(figures).items():
            lines.append(f"    {metric}: {before:.0f} -> {after:.0f}")
    return lines


def last_metrics(figures):
    metrics = figures["samples"][-1].get("metrics", {})
    return {name: values for name, values in metrics.items() if values[0] != values[1]}


def ratio(found, figure):
    return f"{found[figure]:.2f}" if figure in found else "-"


def notes(figures):
    words = []
    if figures["errors"]:
        words.append("INVALID: " + ", ".join(
            f"{count} {ERROR_WORDS.get(name, name)}" if name != "failed"
            else str(count).splitlines()[0]
            for name, count in figures["errors"].items()))
    if figures["load_bound"]:
        words.append("the load generator was the bottleneck")
    if figures.get("stolen", 0) > STOLEN_MAX:
        words.append(f"{figures['stolen']:.0%} of a core was stolen")
    if figures.get("foreign", 0) > FOREIGN_MAX:
        words.append(f"others used {figures['foreign']:.0%} of a core")
    if figures["upstream_reconnects"]:
        words.append("upstream connections were not kept")
    return ("  " if words else "") + "; ".join(words)


def steady_lines(steady):
    requests = max(steady["requests"], 1)
    lines = [f"  {steady['requests']} requests, {steady['turns']:.0f} turns, "
             f"{steady['enters'] / requests:.3f} io_uring_enter and "
             f"{steady['completions'] / requests:.2f} completions per request, "
             f"{steady['heap_bytes']:.0f} bytes of heap allocated"]
    if steady.get("calls") is None:
        lines.append("  strace is not installed: system calls were not counted")
    else:
        lines.append("  strace: " + ", ".join(f"{name} {count}" for name, count in
                                               steady["calls"].items()))
    return lines


def amount(value, unit):
    if value is None:
        return "invalid"
    digits = 0 if unit == "B" or isinstance(value, int) else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def target_line(target):
    measured = "-" if target["met"] is None else amount(target["measured"], target["unit"])
    verdict = {True: "met", False: "NOT met", None: "not measured"}[target["met"]]
    return (f"  {target['title']:46}{measured:>10}"
            f"  {at(target):8} {amount(target['limit'], target['unit']):>8}  {verdict}")


def at(target):
    return "at least" if target["at_least"] else "at most"
