"""What weir says of its memory, and what the kernel says of it."""

import re

from .weir import BINARY

KIB, MIB = 1 << 10, 1 << 20

# AddressSanitizer has an allocator of its own and keeps shadow memory beside each byte: resident
# sets cannot be compared there, only what weir itself counts.
with open(BINARY, "rb") as _file:
    WITH_ASAN = b"__asan_init" in _file.read()


def resident(weir):
    """The exact resident set: statm may lag behind."""
    with open(f"/proc/{weir.pid}/smaps_rollup") as file:
        return int(re.search(r"^Rss: +(\d+) kB", file.read(), re.M)[1]) * KIB


def pools(metrics, name="weir_memory_bytes"):
    return {labels["pool"]: value for labels, value in metrics.series(name)}


def budget(log):
    """The log's two lists, of each worker and of each connection: [{pool: (count, size)}, sum]."""
    lists = []
    for whose in ("worker", "connection"):
        line = re.search(rf"memory of a {whose}: (.+) = (\d+) bytes$", log, re.M)
        terms = {name: (int(count), int(size)) for name, count, size in
                 re.findall(r"(\w+) (\d+) x (\d+)", line[1])}
        lists.append((terms, int(line[2])))
    return lists
