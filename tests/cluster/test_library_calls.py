"""Each call that tests/programs/driver.c knows, against real nodes, also while one dies.

Short, so that `make test` runs it with the library under AddressSanitizer and LeakSanitizer, too:
they have their say when the program ends (Library.end).
"""

import os
import re
import sqlite3

from tests.cluster.test_library_routing import interrupted
from tests.lib.cluster import BUILD, PATIENCE, ROOT, Cluster, case, expect_equal
from tests.lib.library import (ABORT, ANY, BUSY, CANTOPEN, CONSTRAINT, DONE, ERROR, MISUSE,
                               ROW, TXN_LOST, Library)

NUMBERS = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"


class Noting(Library):
    """Notes which commands were given."""

    def __init__(self):
        self.told = set()
        super().__init__()

    def tell(self, command, *arguments):
        self.told.add(command)
        super().tell(command, *arguments)


def commands_of_the_driver():
    with open(os.path.join(ROOT, "tests", "programs", "driver.c"), encoding="utf-8") as f:
        return set(re.findall(r'^    {"(\w+)", do_\w+},$', f.read(), flags=re.M))


def sessions_and_errors(p, c):
    p.open(0, c.addresses(), name="calls")
    p.ask("cluster", 0, f"lectern://{c.addresses()}/")
    for session in (1, 2):
        p.ask("session", session, 0)
    p.ask("timeout", 0, 20000 * PATIENCE)
    p.ask("timeout", 0, 0, code=MISUSE)
    p.ask("level", 1, "bounded", 5000)
    p.ask("exec", 0, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    p.ask("exec", 0, "nonsense", code=ERROR)
    p.query(0, "INSERT INTO t VALUES (?, ?)", 1, "one")
    p.query(0, "INSERT INTO t VALUES (?, ?)", 1, None, code=CONSTRAINT)
    p.query(0, "INSERT INTO t VALUES (?, ?) RETURNING *", 2, bytes(range(256)))
    p.ask("set_position", 1, p.ask("state", 0)["position"])
    p.ask("level", 1, "session", 0)
    expect_equal(p.rows(1, "SELECT count(*) FROM t"), [[2]], "rows")
    expect_equal(len(p.ask("status", 2, code=DONE)["rows"]), 3, "members")
    p.open(9, "127.0.0.1:1", timeout=300, code=CANTOPEN)
    p.ask("close", 9)


def statements(p):
    p.ask("prepare", 0, 0, "SELECT a, b, ? FROM t ORDER BY a")
    p.ask("bind", 0, 1, "f2.5")
    expect_equal(p.ask("step", 0, code=ROW)["row"][2], 2.5, "a bound value")
    p.ask("reset", 0)
    p.ask("step", 0, code=ROW)
    p.ask("close", 0, code=BUSY)
    p.ask("prepare", 0, 1, "SELECT * FROM nowhere", code=ERROR)
    p.ask("prepare", 0, 2, "INSERT INTO t VALUES (?, 'lazy')", 1)
    p.ask("step", 2, code=DONE)
    p.ask("finalize", 2)
    expect_equal(p.ask("count", 0, NUMBERS.format(50000), 0, code=DONE)["rows"], 50000, "rows")
    p.ask("count", 0, NUMBERS.format(10 ** 9), 100)
    p.ask("start", 1, NUMBERS.format(50000), 0)
    p.ask("start", 2, NUMBERS.format(10 ** 9), 10)
    expect_equal(p.ask("wait", 1, code=DONE)["rows"], 50000, "rows without waiting")
    p.ask("wait", 2, code=ABORT)
    interrupted(p, 100, "count", 2, NUMBERS.format(10 ** 12), 0)
    p.ask("timeout", 2, 20000 * PATIENCE)


def several_as_one(p):
    p.ask("batch", 0, "INSERT INTO t VALUES (10, 1)", "UPDATE t SET b = 2 WHERE a = 10")
    a = p.ask("batch", 0, "INSERT INTO t VALUES (11, 1)", "INSERT INTO t VALUES (11, 1)",
              code=CONSTRAINT)
    expect_equal(a["failed"], 1, "the statement that failed")
    p.ask("transaction", 1, "INSERT INTO t VALUES (12, 1)", "INSERT INTO t VALUES (13, 1)")
    p.ask("transaction", 1, "INSERT INTO t VALUES (14, 1)", "nonsense", code=ERROR)


def a_leader_dies(p, c):
    """Amid a transaction, an answer that is being taken, and one that nobody waits for."""
    p.ask("exec", 1, "BEGIN")
    p.query(1, "INSERT INTO t VALUES (20, 'lost')")
    p.ask("prepare", 0, 3, NUMBERS.format(10 ** 9))
    p.ask("step", 3, code=ROW)
    p.ask("start", 2, NUMBERS.format(400000), 0)
    leader = c.leader()
    leader.kill()
    p.query(1, "INSERT INTO t VALUES (21, 'lost')", code=TXN_LOST)
    p.query(1, "INSERT INTO t VALUES (22, 'there')")
    p.ask("wait", 2, code=ANY)
    p.ask("finalize", 3, code=ANY)
    c.restart(leader)


@case(short=True, seconds=60)
def test_library_every_call_of_the_driver():
    path = os.path.join(BUILD, "programs", "driver")
    with open(path, "rb") as f:
        expect_equal(b"__asan_init" in f.read(), BUILD.endswith("asan"), f"{path} is sanitized")
    with Cluster() as c, Noting() as p:
        sessions_and_errors(p, c)
        statements(p)
        several_as_one(p)
        a_leader_dies(p, c)
        copy = os.path.join(c.dir, "copy.db")
        p.ask("export", 0, copy)
        p.ask("export", 0, copy, code=MISUSE)  # it is there
        with sqlite3.connect(copy) as q:
            found = [a for a, in q.execute("SELECT a FROM t ORDER BY a")]
        expect_equal(found, [1, 2, 3, 10, 12, 13, 22], "rows of the copy")
        p.ask("finalize", 0, code=ANY)
        p.ask("finalize", 1, code=ANY)
        p.ask("close_cluster", 0, code=BUSY)
        for session in (0, 1, 2):
            p.ask("close", session)
        p.ask("close_cluster", 0)
        expect_equal(commands_of_the_driver() - p.told, set(), "commands that were not given")
        c.check_equal()
