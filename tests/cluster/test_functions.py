"""SQL functions of docs/FUNCTIONS.md: Python's results, on every node, in reads and writes."""

import math
import os
import random
import subprocess
import tempfile
import time
import uuid

from tests.lib import django_functions
from tests.lib.cluster import Cluster, case, expect, expect_equal, expect_error
from tests.lib.function_calls import random_calls
from tests.lib.lectern_client import LecternError

CALLS = 6000
GOLDEN = "tests/unit/node/functions_golden.txt"


def python_with_django():
    python = django_functions.interpreter()
    if python is None:
        print("python3-django is not here (deploy/install-deps.sh --clients): not compared")
    return python


def found(q, calls):
    """What Q's node makes of CALLS, some on the way at a time."""
    begun = []

    def finish():
        try:
            return django_functions.shown(q.finish(begun.pop(0)).rows[0][0])
        except LecternError as e:
            return ["error", e.message]
    for sql, params in calls:
        if len(begun) == 32:
            yield finish()
        begun.append(q.begin(sql, [bytes.fromhex(p["blob"]) if isinstance(p, dict) else p
                                   for p in params], level="any"))
    while begun:
        yield finish()


def same(a, b):
    return a == b or a[0] == b[0] == "error"


@case()
def test_random_calls_give_what_python_gives():
    python = python_with_django()
    if python is None:
        return
    seed = int(os.environ.get("LECTERN_SEED", random.randrange(2**32)))
    calls = list(random_calls(random.Random(seed), CALLS))
    wanted = django_functions.evaluate(python, calls)
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE r(id INTEGER PRIMARY KEY, v)")
        follower = c.others(c.leader())[0]
        with follower.client() as q:
            results = list(found(q, calls))
            for call, here, there in zip(calls, results, wanted):
                expect(same(here, there), f"{call}: Python has {there}, Lectern {here} "
                       f"(LECTERN_SEED={seed})")
        # Some in writes, too: these run at the leader.
        written = [i for i in range(0, CALLS, 20) if results[i][0] != "error" and
                   not any(isinstance(p, dict) for p in calls[i][1])]
        with follower.client() as q:
            q.batch([(f"INSERT INTO r VALUES ({i}, ({calls[i][0]}))", calls[i][1])
                     for i in written])
        for node in c.nodes:
            with node.client(seq=q.seq) as r:
                rows = r.query("SELECT id, v FROM r").rows
                expect_equal(len(rows), len(written), f"rows of {node}")
                for i, value in rows:
                    expect_equal(django_functions.shown(value), wanted[i], f"{node}: {calls[i]}")
        c.check_equal()
    kinds = [w[0] for w in wanted]
    expect(all(kinds.count(k) > CALLS / 50 for k in ("null", "integer", "real", "text", "error")),
           f"few of some kind: { {k: kinds.count(k) for k in set(kinds)} }")


@case()
def test_the_golden_table_is_what_python_gives():
    python = python_with_django()
    if python is None:
        return
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], check=True,
                             capture_output=True, text=True).stdout.strip()
    if version != "(3, 11)":  # its re module refuses other patterns
        print(f"the table is Python 3.11's, and this is {version}: not compared")
        return
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "golden")
        subprocess.run([python, "-W", "ignore", django_functions.HERE, "--golden", path],
                       check=True, env=django_functions.environment())
        with open(path, encoding="ascii") as new, open(GOLDEN, encoding="ascii") as old:
            for a, b in zip(new, old):
                expect_equal(b, a, GOLDEN)
            expect_equal((new.read(), old.read()), ("", ""), "what is left")


@case()
def test_sqlites_own_math_functions_give_what_python_gives():
    """Those that Django leaves to SQLite: equal, but for NULL where Python raises."""
    def guarded(function, *args):
        try:
            return function(*args)
        except (ValueError, OverflowError, ZeroDivisionError):
            return None
    one = {"ACOS": math.acos, "ASIN": math.asin, "ATAN": math.atan, "CEILING": math.ceil,
           "COS": math.cos, "DEGREES": math.degrees, "EXP": math.exp, "FLOOR": math.floor,
           "LN": math.log, "RADIANS": math.radians, "SIGN": lambda x: (x > 0) - (x < 0),
           "SIN": math.sin, "SQRT": math.sqrt, "TAN": math.tan}
    two = {"ATAN2": math.atan2, "MOD": math.fmod, "POWER": lambda a, b: float(a) ** b,
           "LOG": lambda base, x: math.log(x, base)}
    r = random.Random(7)
    with Cluster(n=1) as c, c.client() as q:
        for _ in range(60):
            a, b = (r.choice([r.randint(1, 50), r.uniform(0.01, 5)]) for _ in range(2))
            a = r.choice([a, -a]) if r.random() < 0.3 else a
            for name, function in one.items():
                wanted = guarded(function, a)
                [[value]] = q.query(f"SELECT {name}(?)", (a,)).rows
                close = value == wanted or (wanted is not None and value is not None and
                                            math.isclose(value, wanted, rel_tol=1e-15))
                expect(close, f"{name}({a!r}): {value!r}, Python {wanted!r}")
            for name, function in two.items():
                wanted = guarded(function, a, b)
                if isinstance(wanted, complex) or (name == "LOG" and a <= 1):
                    wanted = None
                [[value]] = q.query(f"SELECT {name}(?, ?)", (a, b)).rows
                close = value == wanted or (wanted is not None and value is not None and
                                            math.isclose(value, wanted, rel_tol=1e-14))
                expect(close, f"{name}({a!r}, {b!r}): {value!r}, Python {wanted!r}")
        expect_equal(q.query("SELECT PI()").rows, [(math.pi,)], "PI()")
        values = [v for v, in q.query("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT "
                                      "500) SELECT RAND() FROM n").rows]
        expect(len(set(values)) == 500 and all(0 <= v < 1 for v in values), "RAND()")
        rows = q.query("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) "
                       "SELECT UUIDV4(), UUIDV7() FROM n").rows
        for version, found in zip((4, 7), zip(*rows)):
            ids = [uuid.UUID(text) for text in found]
            versions = {i.version for i in ids}
            expect(len(set(ids)) == 500 and versions == {version}, f"UUIDV{version}")
        times = [i.int >> 80 for i in ids]
        expect(times == sorted(times) and abs(times[0] / 1000 - time.time()) < 60, f"{times[:9]}")


@case(short=True)
def test_functions_in_indexes_checks_and_generated_columns():
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE t(id INTEGER PRIMARY KEY, mail CHECK (mail REGEXP '@'), "
                    "digest AS (MD5(mail)) STORED)")
            q.query("CREATE INDEX by_reverse ON t(REVERSE(mail))")
            for i in range(50):
                q.query("INSERT INTO t(mail) VALUES (?)", (f"u{i}@example.org",))
            expect_error("SQL", lambda: q.query("INSERT INTO t(mail) VALUES ('x')"), 275, "CHECK")
            q.query("UPDATE t SET mail = RPAD(mail, 20, '.') WHERE REGEXP('^u[1-3]@', mail)")
            seq = q.seq
        for node in c.nodes:
            with node.client(seq=seq) as r:
                rows = r.query("SELECT mail FROM t WHERE REVERSE(mail) = ?",
                               (".....gro.elpmaxe@2u",)).rows
                expect_equal(rows, [], f"{node}: too short")
                rows = r.query("SELECT id, digest = MD5(mail) FROM t INDEXED BY by_reverse "
                               "WHERE REVERSE(mail) = REVERSE(?)", ("u2@example.org......",)).rows
                expect_equal(rows, [(3, 1)], f"{node}: by the index")
                expect_equal(r.query("PRAGMA integrity_check").rows, [("ok",)], f"{node}")
        # A stock sqlite3 has no REVERSE(): it refuses to check this index, and nothing else.
        with c.client() as q:
            q.query("DROP INDEX by_reverse")
            q.query("CREATE TABLE copy AS SELECT * FROM t")
            q.query("DROP TABLE t")
        c.check_equal()


@case()
def test_hostile_patterns_end():
    hostile = "^(a|a)*[^0-9a]"
    with Cluster(n=1) as c, c.client(socket_timeout=60) as q, c.client(socket_timeout=60) as other:
        begun = time.monotonic()
        expect_error("SQL", lambda: q.query("SELECT ? REGEXP ?", ("a" * 40, hostile)), 1, "steps")
        expect(time.monotonic() - begun < 20, "one search ends")
        # Many, one after the other.
        q.query("CREATE TABLE t(a)")
        q.query("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) "
                "INSERT INTO t SELECT printf('%.*c', 14, 'a') || i FROM n")
        request = q.begin("SELECT count(*) FROM t WHERE a REGEXP ?", (hostile,))
        q.cancel(request)
        begun = time.monotonic()
        try:
            q.finish(request)
        except LecternError as e:
            expect_equal(e.name, "CANCELLED", "the end")
        expect(time.monotonic() - begun < 10, "a cancelled search ends")
        expect_error("SQL", lambda: q.query("SELECT 'x' REGEXP ?", ("(" * 300 + ")" * 300,)), 1,
                     "nested")
        expect_error("SQL", lambda: q.query("SELECT 'x' REGEXP ?", ("((a{999}){999}){999}",)), 1,
                     "bad regular expression")
        for sql in ("REPEAT('x', 1 << 40)", "LPAD('x', 1 << 62, 'yz')", "RPAD('', 100000000, 'y')"):
            expect_error("SQL", lambda sql=sql: q.query("SELECT " + sql), 18, "too big")
        expect_equal(q.query("SELECT length(REPEAT('ab', 1000000))").rows, [(2000000,)], "long")
        expect_equal(other.query("SELECT 1").rows, [(1,)], "the node")
