"""The Prometheus text format, as far as weir speaks it."""

import re

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


class Metrics:
    """One scrape. sum() adds all series of a name that carry the given labels."""

    def __init__(self, text):
        self.text = text
        self.samples = {}
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            match = _SAMPLE.match(line)
            assert match, f"not a metrics line: {line!r}"
            name, label_text, value = match.groups()
            labels = dict(_LABEL.findall(label_text or ""))
            left = _LABEL.sub("", label_text or "")
            assert not left, f"bad labels in {line!r}: {left!r}"
            self.samples.setdefault(name, []).append((labels, float(value)))

    def has(self, name):
        return name in self.samples

    def series(self, name, **labels):
        """All (labels, value) of `name` whose labels include the given ones."""
        return [
            (have, value)
            for have, value in self.samples.get(name, [])
            if all(have.get(key) == str(wanted) for key, wanted in labels.items())
        ]

    def sum(self, name, **labels):
        return sum(value for _, value in self.series(name, **labels))

    def need(self, name, **labels):
        """Like sum, for metrics that must be there."""
        assert self.series(name, **labels), f"/metrics has no {name} {labels or ''}"
        return self.sum(name, **labels)
