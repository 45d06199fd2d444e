"""The plot: one SVG written by hand, light, readable without the table."""

from html import escape

from benchlib.report import amount, at, latency
from benchlib.rows import UNITS

WIDTH = 1060
BAR, STEP = 13, 19
CPU_X, LATENCY_X, RATE_X = 120, 475, 815
CPU_FULL, LATENCY_FULL, RATE_FULL, MEMORY_FULL = 210, 170, 90, 420
INK, FAINT, GRID = "#1f2933", "#66727f", "#e4e8ec"
MET, NOT_MET = "#2b8a3e", "#c92a2a"
# (user, system or whole). weir stands out, its peers are told apart by their names.
SHADES = {"weir": ("#0b5563", "#1c8ca3")}
PEER_SHADES = ("#75818d", "#b4bec8")


class Page:
    """Collects elements from top to bottom; `y` is where the next one goes."""

    def __init__(self):
        self.parts = []
        self.y = 0

    def text(self, x, y, words, size=12, color=INK, anchor="start", weight="normal"):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>')

    def bar(self, x, y, width, color, height=BAR):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" '
                          f'height="{height}" fill="{color}"/>')

    def line(self, x1, y1, x2, y2, color=GRID):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'stroke="{color}"/>')

    def finish(self):
        height = self.y + 20
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
                f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif">\n'
                f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
                + "\n".join(self.parts) + "\n</svg>\n")


def draw(outcome):
    page = Page()
    draw_heading(page, outcome)
    draw_targets(page, [target for target in outcome["targets"] if target["met"] is not None])
    rows = list(outcome["rows"].values())
    draw_legend(page)
    for row in rows:
        if row["kind"] == "load":
            draw_load(page, row)
    for row in rows:
        if row["kind"] == "memory":
            draw_memory(page, row)
    return page.finish()


def draw_heading(page, outcome):
    environment, options = outcome["environment"], outcome["options"]
    names = ", ".join(outcome["versions"])
    page.text(20, 34, f"HTTP, TLS and TCP through one worker on one core: {names}", 19,
              weight="bold")
    page.text(20, 54, f"{environment['cpu']}, Linux {environment['kernel']}, loopback; median of "
                      f"{options['rounds']} round(s) of {options['seconds']} s; weir at "
                      f"{environment['revision']}, {environment['time'][:10]}", 12, FAINT)
    page.y = 76


def draw_targets(page, targets):
    """Every target on one scale: measured as a share of what is allowed."""
    if not targets:
        return
    left, full, most = 330, 400, 1.6
    page.text(20, page.y + 14, "Targets", 14, weight="bold")
    limit_x = left + full / most
    page.text(limit_x, page.y + 14, "limit", 11, FAINT, "middle")
    page.y += 22
    top = page.y
    for target in targets:
        color = MET if target["met"] else NOT_MET
        page.text(left - 10, page.y + 11, target["title"], 12, anchor="end")
        if target["measured"] is not None:
            page.bar(left, page.y, full * min(share_of(target), most) / most, color)
        verdict = "met" if target["met"] else "NOT met"
        words = f"{amount(target['measured'], target['unit'])}, {at(target)} " \
                f"{amount(target['limit'], target['unit'])}: {verdict}"
        page.text(left + full + 14, page.y + 11, words, 12, color)
        page.y += STEP
    page.line(limit_x, top - 4, limit_x, page.y, INK)
    page.y += 16


def share_of(target):
    """What is measured as a share of the limit; of a least limit, the other way round."""
    above, below = target["measured"], target["limit"]
    if target["at_least"]:
        above, below = below, above
    return above / below if below else 2.0 * bool(above)


def draw_legend(page):
    x = 20
    page.text(x, page.y + 11, "CPU:", 12, FAINT)
    for offset, index, word in ((36, 0, "user"), (120, 1, "system")):
        page.bar(x + offset, page.y, 13, SHADES["weir"][index])
        page.bar(x + offset + 14, page.y, 13, PEER_SHADES[index])
        page.text(x + offset + 33, page.y + 11, word, 12, FAINT)
    page.text(x + 220, page.y + 11, "in brackets: ratio to the best peer that the row's "
                                    "targets name; latency: p50 dark, p99 light", 12, FAINT)
    page.y += 26


def shades(name):
    return SHADES.get(name, PEER_SHADES)


def ratio_word(figures, figure):
    found = figures["ratio_target_peers"].get(figure)
    return f"  ({found:.2f})" if found is not None else ""


def begin_block(page, row, columns):
    page.line(20, page.y, WIDTH - 20, page.y)
    page.y += 20
    page.text(20, page.y, row["title"], 13, weight="bold")
    page.y += 16
    for x, title in columns:
        page.text(x, page.y, title, 11, FAINT)
    page.y += 6


def scale(row, figure):
    values = [figures[figure] for figures in row["programs"].values() if figures.get(figure)]
    return max(values, default=1)


def begin_bar(page, name, figures, figure):
    """The label of a program's line. False: there is nothing to draw."""
    weight = "bold" if name == "weir" else "normal"
    page.text(CPU_X - 8, page.y + 11, name, 12, anchor="end", weight=weight)
    if figure not in figures:
        page.text(CPU_X, page.y + 11, "not measured: " + str(figures["errors"])[:110], 12, NOT_MET)
        page.y += STEP
        return False
    return True


def draw_load(page, row):
    rate, unit = UNITS[row["unit"]][2:]
    begin_block(page, row, ((CPU_X, "CPU " + unit), (LATENCY_X, "latency, p50 and p99"),
                            (RATE_X, rate)))
    most = {key: scale(row, key) for key in ("cpu", "p99_us", "rps")}
    for name, figures in row["programs"].items():
        if begin_bar(page, name, figures, "cpu"):
            draw_cpu(page, name, figures, CPU_FULL / most["cpu"], 0 if row["unit"] == "GB" else 1)
            if "p99_us" in figures:
                draw_latency(page, name, figures, LATENCY_FULL / most["p99_us"])
            draw_rate(page, name, figures, RATE_FULL / most["rps"])
            page.y += STEP
    page.y += 8


def draw_cpu(page, name, figures, pixels, digits):
    user, system = shades(name)
    middle, end = (CPU_X + pixels * figures[key] for key in ("cpu_user", "cpu"))
    page.bar(CPU_X, page.y, middle - CPU_X, user)
    page.bar(middle, page.y, end - middle, system)
    page.text(end + 6, page.y + 11,
              f"{figures['cpu']:.{digits}f}{ratio_word(figures, 'cpu')}", 12)


def draw_latency(page, name, figures, pixels):
    dark, light = shades(name)
    end = pixels * figures["p99_us"]
    page.bar(LATENCY_X, page.y, end, light)
    page.bar(LATENCY_X, page.y, pixels * figures["p50_us"], dark)
    page.text(LATENCY_X + end + 6, page.y + 11,
              f"{latency(figures['p50_us'])}, {latency(figures['p99_us'])}", 12)


def draw_rate(page, name, figures, pixels):
    end = pixels * figures["rps"]
    page.bar(RATE_X, page.y, end, shades(name)[1])
    remark = " INVALID: errors" if figures["errors"] else \
        " load-bound" if figures["load_bound"] else ""
    page.text(RATE_X + end + 6, page.y + 11, f"{figures['rps']:.0f}{remark}", 12,
              NOT_MET if figures["errors"] else INK)


def draw_memory(page, row):
    begin_block(page, row, ((CPU_X, "private memory, bytes per connection"),))
    most = scale(row, "bytes")
    for name, figures in row["programs"].items():
        if not begin_bar(page, name, figures, "bytes"):
            continue
        width = MEMORY_FULL * max(figures["bytes"], 0) / most
        page.bar(CPU_X, page.y, width, shades(name)[1])
        remark = "  INVALID: errors" if figures["errors"] else ""
        page.text(CPU_X + width + 6, page.y + 11,
                  f"{figures['bytes']:.0f}{ratio_word(figures, 'bytes')}{remark}", 12,
                  NOT_MET if figures["errors"] else INK)
        page.y += STEP
    page.y += 8
