"""`lectern load` of 200 MB (LECTERN_MB) while leaders are killed, paused, stopped; its own end.

A database, the same as SQL, and the same as SQL in one transaction: what stands in the cluster
afterwards is the source, table by table, row by row, in its order.
"""

import contextlib
import os
import tempfile
import time

from tests.lib.cluster import Cluster, case, expect, expect_equal
from tests.lib.exactly_once import HARMS, harmed
from tests.lib.loading import TABLES, Loading, as_sql, check_beginning, contents, source

MEGABYTES = int(os.environ.get("LECTERN_MB", "200"))
SMALL = 20  # megabytes, for the loads that are killed
FEWEST = 5  # leaders to be harmed, else the test has shown nothing


@contextlib.contextmanager
def files(megabytes):
    with tempfile.TemporaryDirectory() as d:
        database = source(os.path.join(d, "x.db"), megabytes)
        yield (database, as_sql(database, os.path.join(d, "x.sql"), False),
               as_sql(database, os.path.join(d, "one.sql"), True))


def check_whole(cluster, database):
    """Every node holds what DATABASE holds; its rows."""
    cluster.check_equal(120)
    wanted = contents(database)
    for node in cluster.nodes:
        found = contents(node.database)
        for table, what in wanted.items():
            expect_equal(found.get(table), what, f"{node}: {table}")
        expect_equal(set(found), set(wanted), f"{node}: tables")
    return sum(rows for table, (rows, _) in wanted.items() if table != "sqlite_schema")


def harm_until_loaded(cluster, load, between, most):
    """Leaders, one after the other; how many of each kind."""
    harms = dict.fromkeys(HARMS, 0)
    load.more(between)
    for i in range(most):
        if not load.running:
            break
        kind = HARMS[i % len(HARMS)]
        with harmed(cluster, kind) as leader:
            others = [x for x in cluster.others(leader) if x.running]
            cluster.wait(lambda o=others: any((x.status() or {}).get("role") == "leader"
                                              for x in o), f"another leader than {leader}")
            harms[kind] += load.running
            load.more(between, others)
        load.more(between)
    return harms


def trial(path, database, *flags, between, most=1000, fewest=FEWEST):
    with Cluster() as c:
        began = time.monotonic()
        with Loading(c, *flags, path) as load:
            harms = harm_until_loaded(c, load, between, most)
            status, out, err = load.end()
            expect_equal((status, err), (0, ""), f"load of {os.path.basename(path)}")
        seconds = time.monotonic() - began
        c.wait_serving(60)
        rows = check_whole(c, database)
        expect(sum(harms.values()) >= fewest, f"only {harms} leaders harmed within the load")
        size = os.path.getsize(path) / 1e6
        print(f"{os.path.basename(path)}: {size:.0f} MB in {seconds:.0f} s, leaders harmed: "
              + ", ".join(f"{n} {kind}" for kind, n in harms.items())
              + f"; {rows} rows, each once, on every node; {out.strip()}", flush=True)


@case(seconds=1200, weight=2)
def test_load_while_leaders_die():
    with files(MEGABYTES) as (database, sql, one):
        trial(database, database, "--batch-bytes", "50000", between=20)
        trial(sql, database, "--batch-bytes", "50000", between=20)
        # In one transaction nothing is seen until its end; a lost leader means to begin again.
        trial_in_one_transaction(one, database)


def trial_in_one_transaction(path, database):
    with Cluster() as c:
        began, kills = time.monotonic(), 0
        with Loading(c, path) as load:
            for _ in range(2):
                load.reads(os.path.getsize(path) // 3)
                if load.running:
                    with harmed(c, "kill -9"):
                        kills += 1
            status, out, err = load.end()
            expect_equal((status, err), (0, ""), f"load of {os.path.basename(path)}")
        expect(kills > 0, "no leader was killed within the transaction")
        seconds = time.monotonic() - began
        c.wait_serving(60)
        rows = check_whole(c, database)
        print(f"one transaction: {os.path.getsize(path) / 1e6:.0f} MB in {seconds:.0f} s, {kills} "
              f"leaders killed within; {rows} rows, each once; {out.strip()}", flush=True)


# --- the load itself is killed ------------------------------------------------------------------


def reach(load, path, flags, part):
    """PART of PATH is sent, about."""
    in_one = "--atomic" in flags or path.endswith("one.sql")
    if not in_one:
        load.more(int(part * 100))
    elif path.endswith(".db"):  # its rows were counted before, which reads a half of it
        load.reads(int(os.path.getsize(path) * (0.55 + part / 4)))
    else:
        load.reads(int(os.path.getsize(path) * part))


def kill_and_again(path, database, flags, again):
    """Kills loads of PATH in their midst; AGAIN(cluster, rows that stand there, its second run)."""
    for part in (1, 2, 3):
        with Cluster() as c:
            with Loading(c, *flags, path) as load:
                reach(load, path, flags, part / 5)
                expect(load.running, "the load was over before the kill")
                load.kill()
            c.wait_equal()
            stand = check_beginning(c.nodes[0].database, database)
            again(c, stand, lambda c=c: run(c, *flags, path))
            check_whole(c, database)


def run(cluster, *words):
    with Loading(cluster, *words) as load:
        return load.end()


def drop_all(cluster):
    for table in TABLES:
        with cluster.client() as q:
            q.query(f"DROP TABLE IF EXISTS {table}")


def refused_until_dropped(says):
    def again(cluster, stand, once_more):
        expect(stand > 0, "nothing was loaded before the kill")
        before = contents(cluster.nodes[0].database)
        status, _, err = once_more()
        expect(status == 1 and says in err, f"the second load: {status} {err}")
        cluster.wait_equal()
        expect_equal(contents(cluster.nodes[0].database), before, "after the refused load")
        drop_all(cluster)
        expect_equal(once_more()[::2], (0, ""), "the load after the tables were dropped")
    return again


def goes_through(_cluster, stand, once_more):
    expect_equal(stand, 0, "rows of a transaction whose program was killed")
    expect_equal(once_more()[::2], (0, ""), "the second load")


@case(seconds=600, weight=2)
def test_load_killed_and_begun_again():
    with files(SMALL) as (database, sql, one):
        small = ["--batch-bytes", "50000"]
        kill_and_again(database, database, small, refused_until_dropped("already"))
        kill_and_again(sql, database, small, refused_until_dropped("already exists"))
        kill_and_again(database, database, [*small, "--atomic"], goes_through)
        kill_and_again(sql, database, [*small, "--atomic"], goes_through)
        kill_and_again(one, database, small, goes_through)
    print(f"15 loads of {SMALL} MB killed: what stood there was the source's beginning, each row "
          "once; begun again they were refused until the tables were dropped, or, in one "
          "transaction, went through", flush=True)
