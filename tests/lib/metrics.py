"""Prometheus's text format, version 0.0.4, read strictly: what a node answers at /metrics."""

import dataclasses
import http.client
import math
import re

from tests.lib.cluster import HANG, expect, expect_equal

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


@dataclasses.dataclass
class Family:
    name: str
    help: str
    type: str
    samples: list  # (name, {label: value}, number)

    def labels(self):
        """The names of the labels of its samples, but `le`."""
        return {k for _, labels, _ in self.samples for k in labels} - {"le"}


def parse_labels(text):
    at, labels = 0, {}
    while at < len(text or ""):
        m = LABEL.match(text, at)
        expect(m, f"labels {text!r}")
        expect(m.group(1) not in labels, f"a label twice: {text!r}")
        labels[m.group(1)] = m.group(2)
        at = m.end()
    return labels


def check_histogram(family):
    groups = {}
    for name, labels, value in family.samples:
        key = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        groups.setdefault(key, {}).setdefault(name[len(family.name):], []).append((labels, value))
    for key, parts in groups.items():
        where = f"{family.name}{dict(key)}"
        expect_equal(set(parts), set(SUFFIXES["histogram"]), f"parts of {where}")
        bounds = [float(labels["le"]) for labels, _ in parts["_bucket"]]
        counts = [value for _, value in parts["_bucket"]]
        expect(bounds == sorted(set(bounds)) and bounds[-1] == math.inf, f"bounds of {where}")
        expect(counts == sorted(counts), f"{where}: buckets that fall: {counts}")
        expect_equal(parts["_count"][0][1], counts[-1], f"count of {where}")


def check_sample(family, name, labels, value):
    suffixes = SUFFIXES.get(family.type, ("",))
    expect(name in [family.name + s for s in suffixes], f"{name} within {family.name}")
    expect(("le" in labels) == name.endswith("_bucket"), f"le of {name}{labels}")
    expect(value >= 0 or family.type == "gauge", f"{name}{labels} is {value}")


def parse(text):
    """{name: Family}; raises Failure for whatever Prometheus would not take, or should not."""
    expect(text.endswith("\n"), "the last line has its end")
    families, family, seen = {}, None, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            expect(NAME.fullmatch(name) and name not in families, f"a family twice: {name}")
            family = families[name] = Family(name, words, "", [])
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            expect_equal(name, family.name, "TYPE behind its HELP")
            expect(kind in ("gauge", "counter", "histogram"), line)
            family.type = kind
        else:
            m = SAMPLE.fullmatch(line)
            expect(m and family and family.type, f"no sample: {line!r}")
            labels = parse_labels(m.group(2))
            key = (m.group(1), tuple(sorted(labels.items())))
            expect(key not in seen, f"a sample twice: {line}")
            seen.add(key)
            check_sample(family, m.group(1), labels, float(m.group(3)))
            family.samples.append((m.group(1), labels, float(m.group(3))))
    for f in families.values():
        expect(f.samples, f"{f.name} has no sample")
        expect(f.type != "counter" or f.name.endswith("_total"), f"a counter: {f.name}")
        expect(f.type == "counter" or not f.name.endswith("_total"), f"no counter: {f.name}")
        if f.type == "histogram":
            check_histogram(f)
    return families


def get(node, path, method="GET", body=None):
    """(status, headers in lower case, text) of a node's HTTP port."""
    c = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20 * HANG)
    try:
        c.request(method, path, body)
        r = c.getresponse()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read().decode()
    finally:
        c.close()


def scrape(node):
    status, headers, text = get(node, "/metrics")
    expect_equal(status, 200, f"/metrics of {node}")
    expect_equal(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8", "its type")
    return parse(text)


def value(families, name, **labels):
    """The one sample of NAME (with _count, _sum, _bucket) that has these labels, and no others."""
    family = families.get(name) or families[re.sub(r"_(bucket|sum|count)$", "", name)]
    found = [v for n, have, v in family.samples if n == name and have == labels]
    expect(len(found) == 1, f"{name}{labels}: {len(found)} samples")
    return found[0]
