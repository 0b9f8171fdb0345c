"""Load on the client library while leaders die, and the account afterwards.

tests/programs/load.c writes numbered rows without waiting and says how each ended; trial() kills,
pauses, stops or cuts off leaders meanwhile; Account compares what the program was told with what
is there:

    acknowledged   every row exactly once, under the rowid that the program was told
    unknown        all of its rows, or none
    anything else  no row
"""

import collections
import contextlib
import os
import subprocess
import sys
import time

from tests.lib.cluster import HANG, PATIENCE, Failure, expect, expect_equal, wait_for

TABLE = ("CREATE TABLE events(id INTEGER PRIMARY KEY, kind TEXT, session INT, n INT, part INT);"
         "CREATE INDEX events_session ON events(kind, session)")
DONE, UNKNOWN = 101, 64
PARTS = {"i": 1, "b": 3, "t": 2}
COMMIT = 3
HARMS = ("kill -9", "pause", "SIGTERM")


class Load:
    """The running program; its outcomes go to a file."""

    def __init__(self, cluster, inserts, batches, transactions, **parameters):
        self.path = os.path.join(cluster.dir, "outcomes")
        self.errors = os.path.join(cluster.dir, "outcomes.err")
        parameters = {"timeout": 20000 * PATIENCE, **parameters}
        text = "&".join(f"{k}={v}" for k, v in parameters.items())
        program = os.path.join(cluster.nodes[0].build, "programs", "load")
        with open(self.path, "wb") as out, open(self.errors, "wb") as err:
            self.process = subprocess.Popen(
                [program, f"lectern://{cluster.addresses()}/?{text}", str(inserts), str(batches),
                 str(transactions)], stdin=subprocess.PIPE, stdout=out, stderr=err)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()

    def acknowledged(self):
        """Roughly: how many outcomes were written down."""
        expect(self.process.poll() is None, lambda: "the load ended by itself: "
               f"{self.process.returncode} {self.error_text()}")
        return os.path.getsize(self.path) // 20

    def more(self, n, seconds=30.0):
        goal = self.acknowledged() + n
        wait_for(lambda: self.acknowledged() >= goal, f"{n} more outcomes of the load", seconds)

    def end(self, seconds=60.0):
        self.process.stdin.close()
        try:
            status = self.process.wait(seconds * HANG)
        except subprocess.TimeoutExpired:
            raise Failure("the load did not end: a call hangs") from None
        expect_equal(status, 0, f"exit status of the load: {self.error_text()}")

    def error_text(self):
        with open(self.errors, encoding="utf-8", errors="replace") as f:
            return f.read()[-2000:]


class Account:
    """What the program was told, and whether a database agrees."""

    def __init__(self, load):
        self.outcomes, self.rowids, self.times, self.bad = {}, {}, [], []
        self.codes, self.said = collections.Counter(), load.error_text()
        with open(load.path, encoding="utf-8") as f:
            for line in f:
                self._line(line.rstrip("\n"))

    def _line(self, line):
        if line.startswith("BAD"):
            self.bad.append(line)
            return
        ms, kind, session, n, stage, code, *rowids = line.split()
        key, code = (kind, int(session), int(n)), int(code)
        self.codes[kind, code] += 1
        if kind == "c":
            return
        expect(key not in self.outcomes, f"two outcomes of {key}")
        self.outcomes[key] = code
        if code == DONE:
            self.times.append(int(ms))
            for part, rowid in enumerate(rowids):
                self.rowids[int(rowid)] = (*key, part)
        if code == UNKNOWN and kind == "t" and int(stage) != COMMIT:
            self.bad.append(f"UNKNOWN in the middle of a transaction: {line}")

    def count(self, code):
        return sum(n for (kind, c), n in self.codes.items() if c == code and kind != "c")

    def gaps(self):
        """Milliseconds without an acknowledgement, the longest first."""
        times = sorted(self.times)
        return sorted((b - a for a, b in zip(times, times[1:])), reverse=True)

    def check(self, node):
        """Compares with NODE's file; how many of the unknown happened."""
        rows = node.read("SELECT id, kind, session, n, part FROM events")
        found = collections.defaultdict(list)
        for _, kind, session, n, part in rows:
            found[kind, session, n].append(part)
        problems, happened, expected = list(self.bad), 0, 0
        for key, code in self.outcomes.items():
            parts, whole = sorted(found.pop(key, [])), list(range(PARTS[key[0]]))
            allowed = {DONE: [whole], UNKNOWN: [[], whole]}.get(code, [[]])
            if parts not in allowed:
                problems.append(f"{key}: told {code}, there are the parts {parts}")
            happened += code == UNKNOWN and parts == whole
            expected += len(parts)
        problems += [f"{key}: there, and never told" for key in found]
        at = {row[0]: tuple(row[1:]) for row in rows}
        problems += [f"rowid {i}: told of {was}, holds {at.get(i)}"
                     for i, was in self.rowids.items() if at.get(i) != was]
        expect(not problems, lambda: f"{node}: {len(problems)} wrong of {len(self.outcomes)}: "
               + "; ".join(problems[:10]) + f"\nwhat the program was told: {self.said}")
        expect_equal(len(rows), expected, f"count(*) on {node}")
        expect(len(self.times) > 0, "nothing was acknowledged at all")
        return happened

    def figures(self, happened):
        codes = ", ".join(f"{kind}:{code} {n}" for (kind, code), n in sorted(self.codes.items())
                          if code != DONE)
        return (f"{len(self.outcomes)} writes: {self.count(DONE)} acknowledged, each exactly once; "
                f"{self.count(UNKNOWN)} unknown, of which {happened} happened; "
                f"other: {codes or 'none'}; longest pauses {self.gaps()[:5]} ms")


@contextlib.contextmanager
def harmed(cluster, kind):
    """The leader is harmed within, and well again afterwards."""
    leader = cluster.leader()
    if kind == "cut":
        leader.cut()
    elif kind == "pause":
        leader.pause()
    elif kind == "kill -9":
        leader.kill()
    else:
        leader.terminate()
    try:
        yield leader
    finally:
        if kind == "cut":
            leader.mend()
        elif kind == "pause":
            leader.resume()
        else:
            if kind == "SIGTERM":
                status = leader.wait_end()
                expect(status in (0, -15), f"exit status of {leader} after SIGTERM: {status}")
            cluster.restart(leader)


def trial(cluster, kills, sessions=(16, 4, 4), between=60, harms=HARMS, show=lambda text: None):
    """KILLS leaders harmed under load; the account, checked on every node."""
    began = time.monotonic()
    with cluster.client() as q:
        for statement in TABLE.split(";"):
            q.query(statement)
    with Load(cluster, *sessions) as load:
        load.more(between)
        for i in range(kills):
            with harmed(cluster, harms[i % len(harms)]) as node:
                others = [x for x in cluster.others(node) if x.running]
                cluster.wait(lambda o=others: any((x.status() or {}).get("role") == "leader"
                                                  for x in o), f"another leader than {node}")
                load.more(between)
            load.more(between)
            show(f"{i + 1}: {harms[i % len(harms)]} of {node}, {load.acknowledged()} outcomes")
        cluster.wait_serving(60)
        load.more(between)
        load.end()
        account = Account(load)
    cluster.check_equal(60)
    happened = {str(node): account.check(node) for node in cluster.nodes}
    expect(len(set(happened.values())) == 1, f"the nodes differ: {happened}")
    print(f"{kills} leaders harmed in {time.monotonic() - began:.0f} s; "
          + account.figures(next(iter(happened.values()))), file=sys.stdout, flush=True)
    return account
