"""The Prometheus text format, as far as weir speaks it."""

import re

_NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
_LABEL = re.compile(rf'({_NAME})="((?:[^"\\]|\\.)*)",?')
_LABELS = rf'\{{((?:{_NAME}="(?:[^"\\]|\\.)*",?)*)\}}'
_VALUE = r"([-+.\deE]+|NaN|[-+]Inf)"
# Every line is a comment, or a sample: its name, the text of its labels, its value.
_LINE = re.compile(rf"^(?:#.*|([a-zA-Z_:][a-zA-Z0-9_:]*)(?:{_LABELS})? {_VALUE})?$", re.M)


class Metrics:
    """One scrape. sum() adds all series of a name that carry the given labels. Each test takes
    several, and looks at few lines of each: labels and values are read when they are asked for."""

    def __init__(self, text):
        self.text = text
        self.lines = {}
        lines = _LINE.findall(text)
        if len(lines) != text.count("\n") + 1:
            bad = next(line for line in text.split("\n") if not _LINE.fullmatch(line))
            raise AssertionError(f"not a metrics line: {bad!r}")
        for name, labels, value in lines:
            if name:
                self.lines.setdefault(name, []).append((labels, value))

    def has(self, name):
        return name in self.lines

    def series(self, name, **labels):
        """All (labels, value) of `name` whose labels include the given ones."""
        all_of_it = ((dict(_LABEL.findall(have)), float(value))
                     for have, value in self.lines.get(name, []))
        return [
            (have, value)
            for have, value in all_of_it
            if all(have.get(key) == str(wanted) for key, wanted in labels.items())
        ]

    def sum(self, name, **labels):
        return sum(value for _, value in self.series(name, **labels))

    def need(self, name, **labels):
        """Like sum, for metrics that must be there."""
        assert self.series(name, **labels), f"/metrics has no {name} {labels or ''}"
        return self.sum(name, **labels)
