"""Reads PromQL as far as deploy/ uses it, and finds what is asked for: names, labels, values.

    selectors('rate(x_total{code="A|B"}[5m])')  ->  [Selector("x_total", ...)]

A sentence that this does not read is an error (Failure): the grammar here is smaller than
Prometheus's. promtool, where it is installed, has the last word about the rules."""

import dataclasses
import re

from tests.lib.cluster import Failure, expect

TOKEN = re.compile(r"""\s*(?:(?P<number>\d+(?:\.\d+)?(?![a-z\d]))
    |(?P<duration>\d+(?:ms|[smhdwy]))
    |(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^(){}\[\],=<>]))""", re.X)
FUNCTIONS = {"rate": 1, "increase": 1, "changes": 1, "histogram_quantile": 2}
RANGED = {"rate", "increase", "changes"}
AGGREGATIONS = {"sum", "min", "max", "avg", "count"}
OPERATORS = [{"or"}, {"and", "unless"}, {"==", "!=", ">", "<", ">=", "<="}, {"+", "-"},
             {"*", "/", "%"}]


@dataclasses.dataclass
class Selector:
    name: str
    matchers: list  # (label, operator, text)
    function: str = ""  # that a range of it is given to


class Reader:
    """Recursive descent. `labels` are those that `by` and `on` name."""

    def __init__(self, text):
        self.text, self.tokens, self.selectors, self.labels = text, [], [], set()
        at = 0
        while text[at:].strip():
            m = TOKEN.match(text, at)
            self.need(m, f"at {text[at:at + 20]!r}")
            self.tokens.append((m.lastgroup, m.group(m.lastgroup)))
            at = m.end()
        self.tokens.append(("end", ""))
        self.at = 0
        self.function = ""

    def need(self, condition, what):
        expect(condition, f"{what} in {self.text!r}")

    def peek(self):
        return self.tokens[self.at]

    def take(self, text=None):
        kind, found = self.tokens[self.at]
        self.need(text is None or found == text, f"{text!r} instead of {found!r}")
        self.at += 1
        return kind, found

    def names(self):
        self.take("(")
        found = []
        while self.peek()[1] != ")":
            found.append(self.take()[1])
            if self.peek()[1] == ",":
                self.take()
        self.take(")")
        self.labels.update(found)
        return found

    def matchers(self):
        found = []
        self.take("{")
        while self.peek()[1] != "}":
            kind, label = self.take()
            self.need(kind == "name", f"label {label!r}")
            sign = self.take()[1]
            self.need(sign in ("=", "!=", "=~", "!~"), f"matcher {sign!r}")
            kind, text = self.take()
            self.need(kind == "text", f"value {text!r}")
            found.append((label, sign, text[1:-1]))
            if self.peek()[1] == ",":
                self.take()
        self.take("}")
        return found

    def selector(self, name):
        found = Selector(name, self.matchers() if self.peek()[1] == "{" else [])
        if self.function:
            self.need(self.peek()[1] == "[", f"a range for {self.function}")
        if self.peek()[1] == "[":
            self.take()
            self.need(self.take()[0] == "duration", "a duration")
            self.take("]")
            self.need(self.function, f"a function of the range of {name}")
            found.function = self.function
        self.selectors.append(found)

    def call(self, name):
        self.take("(")
        for i in range(FUNCTIONS[name]):
            if i > 0:
                self.take(",")
            before = len(self.selectors)
            self.function = name if name in RANGED else ""
            self.expression()
            self.function = ""
        self.take(")")
        if name == "histogram_quantile":
            self.need(all(s.name.endswith("_bucket") for s in self.selectors[before:]), "buckets")
            self.need("le" in self.labels, "le is kept")

    def aggregation(self):
        if self.peek()[1] in ("by", "without"):
            self.take()
            self.names()
        self.take("(")
        self.expression()
        self.take(")")

    def operand(self):
        kind, text = self.take()
        if kind == "number":
            return
        if text == "(":
            self.expression()
            self.take(")")
            return
        self.need(kind == "name", f"{text!r} where a value is expected")
        if text in AGGREGATIONS:
            self.aggregation()
        elif self.peek()[1] == "(":
            self.need(text in FUNCTIONS, f"function {text!r}")
            self.call(text)
        else:
            self.selector(text)

    def expression(self, level=0):
        if level == len(OPERATORS):
            self.operand()
            return
        self.expression(level + 1)
        while self.peek()[1] in OPERATORS[level]:
            self.take()
            if self.peek()[1] in ("on", "ignoring"):
                self.take()
                self.names()
            self.expression(level + 1)


def read(text):
    """(selectors, labels that `by` and `on` name)."""
    r = Reader(text)
    r.expression()
    r.need(r.peek()[0] == "end", f"{r.peek()[1]!r} behind the end")
    if not r.selectors:
        raise Failure(f"{text!r} asks for nothing")
    return r.selectors, r.labels
