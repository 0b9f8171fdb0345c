"""Long runs of random kills, pauses and restarts under load: `make faults`.

One seed is one plan (LECTERN_SEED; printed when a run fails); the timing is the machine's.
LECTERN_LONG multiplies the rounds.
"""

import os
import random
import subprocess
import sys
import time

from tests.cluster.test_files import READER, move
from tests.lib.cluster import PATIENCE, Cluster, Failure, case, expect, expect_equal
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers

SEED = int(os.environ.get("LECTERN_SEED", str(int(time.time()))))
LONG = int(os.environ.get("LECTERN_LONG", "1"))


def more(c, w, n=30, seconds=40.0):
    goal = w.acknowledged + n
    c.wait(lambda: w.acknowledged >= goal or w.crashed, f"{n} more acknowledgements", seconds)


def harm(c, rng, down, paused):
    """One random event; at most one node is down or paused at a time, or all of them at once."""
    kind = rng.choice(["kill", "kill leader", "stop", "pause", "pause leader", "kill all"])
    if kind == "kill all":
        for node in c.nodes:
            node.kill()
        c.start(serving=False)
        return kind
    node = rng.choice(c.nodes)
    if "leader" in kind:
        node = c.leader()
    if kind.startswith("pause"):
        node.pause()
        paused.append(node)
    elif kind.startswith("kill"):
        node.kill()
        down.append(node)
    else:
        node.terminate()
        status = node.wait_end()  # -15: it was told before it could listen
        expect(status in (0, -15), f"exit status of {node} after SIGTERM: {status}")
        down.append(node)
    return f"{kind} {node.id}"


@case(seconds=900, weight=2)
def test_random_kills_pauses_and_restarts():
    rng = random.Random(SEED)
    print("LECTERN_SEED =", SEED)
    with Cluster(wal_checkpoint="256KiB", wal_restart="1MiB") as c:
        with c.client() as q:
            q.query(TABLE)
        for round_ in range(6 * LONG):
            down, paused = [], []
            with Writers(c.nodes, 6, filler=rng.choice([10, 300, 3000]), first=100 * round_) as w:
                more(c, w)
                for _ in range(5):
                    print(f"round {round_}: {harm(c, rng, down, paused)}", flush=True)
                    time.sleep(rng.random() * 1.5)  # a random moment, not a wait for something
                    if not rng.randrange(3):
                        more(c, w)
                    for node in down:
                        c.restart(node)
                    for node in paused:
                        node.resume()
                    down, paused = [], []
                    if rng.randrange(2):
                        more(c, w)
                c.wait_serving(60)
                more(c, w)
                w.stop()
            position = c.check_equal(60)
            for node in c.nodes:
                w.check(node)
            print(f"round {round_}: {w.acknowledged} acknowledged, {dict(w.errors)}, {position}",
                  flush=True)


@case(seconds=600, weight=2)
def test_a_follower_far_behind_catches_up_from_the_log():
    with Cluster() as c:
        with c.client() as q:
            q.query(TABLE)
        with Writers(c.nodes, 4, filler=4000) as w:
            for _ in range(3 * LONG):
                late = c.others(c.leader())[0]
                late.kill()
                more(c, w, 10000, 200)
                c.restart(late)
                c.wait(lambda n=late: (n.status() or {}).get("lag") is not None
                       and n.status()["lag"] < 500, f"{late} catches up", 120)
            w.stop()
        c.check_equal(60)
        for node in c.nodes:
            w.check(node)


@case(seconds=600, weight=2)
def test_readers_during_failovers_see_only_whole_transactions():
    with Cluster(wal_checkpoint="128KiB", wal_restart="512KiB") as c:
        with c.client() as q:
            for table in ("a", "b"):
                q.query(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, money INT)")
                q.query(f"INSERT INTO {table} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT "
                        "i + 1 FROM n LIMIT 100) SELECT i, 5000 FROM n")
            q.query("CREATE TABLE moves(id INTEGER PRIMARY KEY, note)")
        c.wait_equal()
        readers = {n: subprocess.Popen([sys.executable, "-c", READER, n.database], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE) for n in c.nodes}
        try:
            for i in range(5 * LONG):
                move_for(c, i * 1000, 3.0)
                old = c.leader()
                old.kill()
                c.leader()
                move_for(c, i * 1000 + 500, 1.0)
                c.restart(old)
                c.wait_serving()
            c.check_equal(60)
            for node, r in readers.items():
                out, err = r.communicate("end\n", timeout=60 * PATIENCE)
                expect(r.returncode == 0, f"the reader of {node}: {err}")
                expect(int(out.split()[0]) > 20, f"the reader of {node} hardly read: {out}")
        finally:
            for r in readers.values():
                r.kill()
                r.wait()


def move_for(c, first, seconds):
    """Transfers one after the other; a lost leader ends a transfer as a whole."""
    end = time.monotonic() + seconds
    client = None
    while time.monotonic() < end:
        try:
            if client is None:
                client = c.client()
            move(client, first)
            first += 1
        except (LecternError, ConnectionLost):
            if client is not None:
                client.close()
            client = None
    if client is not None:
        client.close()


@case(seconds=600, weight=2)
def test_commits_of_transactions_during_failovers_are_all_or_nothing():
    """COMMIT's answer is true: done, not done, or honestly unknown."""
    with Cluster() as c:
        with c.client() as q:
            q.query("CREATE TABLE pairs(txn INT, half INT)")
        answers, txn = {}, 0
        for _ in range(8 * LONG):
            node = c.others(c.leader())[0]  # forwarded: the follower survives its leader
            end = time.monotonic() + 2.0
            killed = None
            while time.monotonic() < end:
                txn += 1
                answers[txn] = transact(node, txn)
                if killed is None and time.monotonic() > end - 1.0:
                    killed = c.leader()
                    killed.kill()
            if killed is not None:
                c.restart(killed)
            c.wait_serving()
        c.check_equal(60)
        found = dict(c.node(1).read("SELECT txn, count(*) FROM pairs GROUP BY txn"))
        for number, answer in answers.items():
            allowed = {"ok": (2,), "unknown": (0, 2), "lost": (0,)}[answer]
            expect(found.get(number, 0) in allowed, f"transaction {number}: {answer}, "
                   f"{found.get(number, 0)} rows")
        expect(sum(1 for a in answers.values() if a == "ok") > 100, f"{len(answers)} transactions")
        expect_equal(set(found) - set(answers), set(), "transactions that nobody sent")


def transact(node, txn):
    committing = False
    try:
        with node.client() as q:
            q.query("BEGIN")
            q.query("INSERT INTO pairs VALUES (?, 1)", (txn,))
            q.query("INSERT INTO pairs VALUES (?, 2)", (txn,))
            committing = True
            q.query("COMMIT")
            return "ok"
    except LecternError as e:
        if e.name == "UNKNOWN" and not committing:
            raise Failure(f"UNKNOWN for a statement before COMMIT: {e}") from e
        return "unknown" if e.name == "UNKNOWN" else "lost"
    except ConnectionLost:
        return "unknown" if committing else "lost"
