"""A node without a usable database fetches another one's: behind the log's beginning, with its
files lost or damaged, while it is stopped and while it runs; whatever is killed on the way."""

import contextlib
import os
import random
import re
import struct
import threading
import time

from tests.cluster.test_files import fill, flip, page_in_file
from tests.cluster.test_log_cut import SMALL, cuts, first_index, write_until
from tests.lib.cluster import PATIENCE, Cluster, case, expect, expect_error
from tests.lib.lectern_client import ConnectionLost, LecternError, frame, parse_error
from tests.lib.load import TABLE, Writers


def fetches(node):
    """How often a node has fetched a whole database."""
    return len(re.findall(r" installed index=", node.log_text()))


def serves(node):
    """Reads at the level any are answered from the node's own file."""
    try:
        with node.client(socket_timeout=5) as q:
            q.query("SELECT count(*) FROM sqlite_schema", level="any", timeout_ms=2000)
        return True
    except (LecternError, ConnectionLost):
        return False


def wait_fetched(c, node, before, seconds=60):
    c.wait(lambda: fetches(node) > before and serves(node), f"{node} has fetched and serves",
           seconds)


def advance(c, victim, last, filler=2000):
    """Writes until the others' logs begin behind LAST, the newest entry that VICTIM has."""
    others = c.others(victim)
    return write_until(c, lambda: all(first_index(x) > last + 1 for x in others),
                       f"{others} have cut entry {last}", nodes=others, filler=filler)


def make(c):
    with c.client() as q:
        q.query(TABLE)
        q.query("CREATE TABLE big(id INTEGER PRIMARY KEY, a)")
        for _ in range(8):
            q.query("INSERT INTO big(a) VALUES (randomblob(300000))")
    return write_until(c, lambda: all(len(cuts(x)) >= 2 for x in c.nodes), "two cuts everywhere")


@case(short=True, seconds=120)
def test_a_follower_behind_the_logs_beginning_fetches_and_catches_up():
    with Cluster(**SMALL) as c:
        make(c)
        victim = c.others(c.leader())[0]
        last = victim.row()["commit"]
        victim.kill()
        advance(c, victim, last)
        with Writers(c.others(victim), 2, first=5000) as w:  # writes go on meanwhile
            c.restart(victim)
            wait_fetched(c, victim, 0)
            w.stop()
        expect(w.acknowledged > 0, "no write while a node fetched")
        c.wait_equal()
        w.check(victim)
        c.check_equal()
        # The same node, by a plain restart: it has its place now.
        before = fetches(victim)
        victim.stop()
        c.restart(victim)
        c.wait_serving()
        expect(fetches(victim) == before, f"{victim} fetched again at a plain restart")
        c.check_equal()


# --- damage ---------------------------------------------------------------------------------------


def remove(*names):
    def action(node):
        for name in names:
            path = os.path.join(node.dir, name)
            if os.path.exists(path):
                os.remove(path)
    action.__name__ = "remove " + ", ".join(names)
    return action


def cut_short(node):
    """A database file that lost its second half, at a page's border."""
    pages = os.path.getsize(node.database) // 4096
    os.truncate(node.database, pages // 2 * 4096)


def cut_ragged(node):
    os.truncate(node.database, os.path.getsize(node.database) - 1000)


def flip_page(node):
    page = page_in_file(node)
    flip(node.database, (page - 1) * 4096 + 2000)


def flip_first_page(node):
    flip(node.database, 18)  # its write version


def spoil_magic(node):
    with open(node.database, "r+b") as f:
        f.write(b"no database file")


def spoil(name, offset=None):
    """Some bytes in the middle, or from OFFSET on."""
    def action(node):
        path = os.path.join(node.dir, name)
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2 if offset is None else offset)
            f.write(b"damaged by a test")
    action.__name__ = f"spoil {name}"
    return action


DAMAGES = [remove("main.db"), remove("main.db", "main.db-wal", "main.db-shm"),
           remove("main.db", "main.db-wal", "main.db-shm", "position", "hashes"), cut_short,
           cut_ragged, flip_page, flip_first_page, spoil_magic, remove("position"),
           spoil("position", 0), remove("hashes"), spoil("hashes"), spoil("hashes", 0),
           spoil("main.db-wal"), spoil("main.db-wal", 8), remove("main.db-wal", "main.db-shm"),
           remove("position", "hashes")]


def damage_while_stopped(how):
    with Cluster(**SMALL) as c:
        make(c)
        victim = c.others(c.leader())[0]
        for damage in DAMAGES:
            if how == "kill":
                write_until(c, lambda: True, "nothing")
            getattr(victim, how)()
            damage(victim)
            print(f"--- {damage.__name__} after {how}")
            c.restart(victim)
            c.wait(lambda: serves(victim), f"{victim} serves after: {damage.__name__}", 40)
            if damage is flip_page:  # a start reads no pages: who reads it first, or the scrub
                wait_fetched(c, victim, 0)
            c.check_equal()
            os.truncate(victim.log, 0)
        c.check_alive()


@case(seconds=240)
def test_damage_while_a_node_is_stopped_is_repaired():
    damage_while_stopped("stop")


@case(seconds=240)
def test_damage_while_a_node_is_killed_is_repaired():
    damage_while_stopped("kill")


def never_wrong(node, wanted):
    """One read of the node's file: right, or an error."""
    try:
        with node.client(socket_timeout=10) as q:
            found = q.query("SELECT count(*), sum(length(a)), sum(a = x'00') FROM big", level="any",
                            timeout_ms=5000).rows[0]
        expect(found == wanted, f"{node} answers {found}, the truth is {wanted}")
        return True
    except (LecternError, ConnectionLost):
        return False


@case(short=True, seconds=180)
def test_damage_under_a_running_node_is_repaired_and_never_served():
    with Cluster(**SMALL) as c:
        make(c)
        c.wait_equal()
        for role in ("follower", "leader"):
            for damage in (flip_page, cut_short):
                leader = c.leader()
                victim = leader if role == "leader" else c.others(leader)[0]
                with victim.client() as q:
                    wanted = q.query("SELECT count(*), sum(length(a)), sum(a = x'00') FROM big",
                                     level="any").rows[0]
                before = fetches(victim)
                print(f"--- {damage.__name__} under the {role}, {victim}")
                damage(victim)
                c.wait(lambda v=victim, w=wanted: not never_wrong(v, w) or fetches(v) > before,
                       "the damage is met", 60)
                wait_fetched(c, victim, before)
                with c.client() as q:
                    q.query("INSERT INTO numbered(writer, number) VALUES (?, 1)", (9000,))
                c.check_equal()
                # The next damage is another day's: not within a minute of this repair.
                victim.stop()
                c.restart(victim)
                c.wait_serving()


@case(seconds=60)
def test_damage_again_right_after_a_repair_waits():
    """Something damages the database again and again: a node must not fetch without end."""
    with Cluster(**SMALL) as c:
        make(c)
        c.wait_equal()
        victim = c.others(c.leader())[0]
        flip_page(victim)
        wait_fetched(c, victim, 0)
        before = c.wait_equal()
        flip_page(victim)
        c.wait(lambda: re.search(r"the next repair begins at \d\d:\d\d:\d\d UTC",
                                 (victim.status() or {}).get("state", "")),
               "the node says that it waits")
        with victim.client() as q:
            expect_error("STOPPED", lambda: q.query("SELECT 1", level="any"),
                         says="it was repaired")
        expect(fetches(victim) == 1, f"fetched {fetches(victim)} times")
        expect(c.leader().row()["seq"] == before[0], "the others are as they were")


@case(seconds=60)
def test_without_repair_damage_is_named_and_refused():
    with Cluster(**SMALL, repair=0) as c:
        make(c)
        victim = c.others(c.leader())[0]
        victim.kill()
        remove("main.db")(victim)
        c.restart(victim)
        victim.should_run = False
        expect(victim.wait_end_by_itself() == 1, "the exit status")
        last_words = victim.log_text().splitlines()[-1]
        expect("main.db" in last_words and "--repair" in last_words, last_words)


# --- interrupted ----------------------------------------------------------------------------------

KILLS = int(os.environ.get("LECTERN_KILLS", "0"))


def fetching(node):
    """What the node's own row of STATUS says while it fetches, or None."""
    row = node.status()
    return row["state"] if row and "fetching" in row["state"] else None


def fatten(c, megabytes):
    with c.client() as q:
        for _ in range(megabytes):
            q.query("INSERT INTO big(a) VALUES (randomblob(1000000))", timeout_ms=30000)
    c.wait_equal()


def begin_fetch(c, victim):
    """VICTIM loses its database while it is down, and comes back."""
    victim.kill()
    remove("main.db", "main.db-wal", "main.db-shm")(victim)
    c.restart(victim)


@case(short=True, seconds=120)
def test_a_fetching_node_tells_of_itself_and_refuses_the_rest():
    with Cluster(**SMALL) as c:
        make(c)
        victim = c.others(c.leader())[0]
        others = c.others(victim)
        victim.kill()
        remove("main.db", "main.db-wal", "main.db-shm")(victim)
        for node in others:
            node.pause()  # nobody to fetch from
        victim.start(c.members, c.settings)
        c.wait(lambda: fetching(victim), "the node says that it fetches")
        with victim.client() as q:
            for sql in ("SELECT 1", "INSERT INTO big(a) VALUES (1)", "BEGIN"):
                expect_error("NOT_LEADER", lambda s=sql: q.query(s, level="any"),
                             says="this node is fetching the database")
        expect(fetches(victim) == 0, "fetched from nobody?")
        begun = time.monotonic()
        victim.terminate()
        expect(victim.wait_end() == 0, "the exit status of a fetching node after SIGTERM")
        expect(time.monotonic() - begun < 5 * PATIENCE, "SIGTERM took too long")
        for node in others:
            node.resume()
        c.restart(victim)
        wait_fetched(c, victim, 0)
        c.wait_serving()
        c.check_equal()


def some_time(rng, longest=0.8):
    time.sleep(rng.random() * longest)  # a random moment, not a wait for something


@case(seconds=240, weight=2)
def test_kill_either_side_of_a_fetch_and_it_goes_on():
    rng = random.Random(os.environ.get("LECTERN_SEED", "7"))
    kills = KILLS or 12
    with Cluster(log_keep="1MiB", wal_checkpoint="1MiB", wal_restart="4MiB") as c:
        make(c)
        fatten(c, 40)
        victim = c.others(c.leader())[0]
        begin_fetch(c, victim)
        done = mid_fetch = 0
        while done < kills:
            if not fetching(victim) and serves(victim):
                c.wait_equal()
                begin_fetch(c, victim)
            some_time(rng)
            mid_fetch += fetching(victim) is not None
            other = rng.choice(c.others(victim))
            what = rng.choice(["victim", "victim", "server", "pause"])
            if what == "victim":
                victim.kill()
                c.restart(victim)
            elif what == "server":
                other.kill()
                some_time(rng)
                c.restart(other)
            else:
                other.pause()
                some_time(rng, 3)
                other.resume()
            done += 1
        print(f"{done} kills, {mid_fetch} of them in the middle of a fetch,",
              f"{fetches(victim)} databases fetched")
        c.wait(lambda: serves(victim), f"{victim} serves in the end", 60)
        c.wait_serving()
        with c.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (1, 1)")
        c.check_equal()
        expect(mid_fetch > 0, "no kill met a fetch")


@case(seconds=120)
def test_a_fetch_under_load_of_both_others_then_of_one():
    with Cluster(log_keep="1MiB", wal_checkpoint="1MiB", wal_restart="4MiB") as c:
        make(c)
        fatten(c, 20)
        leader = c.leader()
        victim, other = c.others(leader)
        with Writers(c.nodes, 3, filler=3000, first=7000) as w:
            begin_fetch(c, victim)
            wait_fetched(c, victim, 0)
            other.kill()
            # Two of three are left, and one of them has no database: nothing can be committed
            # that it does not hold, so its log must catch up before writes go on.
            before = fetches(victim)
            begin_fetch(c, victim)
            wait_fetched(c, victim, before)
            seen = w.acknowledged
            c.wait(lambda: w.acknowledged > seen + 20, "writes go on")
            c.restart(other)
            w.stop()
        c.wait_equal()
        w.check(victim)
        c.check_equal()


# --- the serving side and bad askers --------------------------------------------------------------

IMAGE_BEGIN, ASK_HASHES, ASK_PAGES, IMAGE, HASHES, PAGES = 32, 33, 34, 96, 97, 98
DONE, ERROR = 68, 69


def ask(client, kind, body, request=1):
    """The answer's frame, which DONE must follow; or the error's code."""
    client.send_raw(frame(kind, request, body))
    f = client.read_frame()
    if f.type == ERROR:
        return parse_error(f.body).name
    expect(client.read_frame().type == DONE, "no DONE behind an answer")
    return f


def ask_pages(client, *pages):
    return ask(client, ASK_PAGES, struct.pack(f"<{len(pages)}I", *pages))


@case(short=True, seconds=90)
def test_images_are_bounded_and_bad_askers_refused():
    with Cluster(n=1, **SMALL) as c:
        node = c.node(1)
        with c.client() as q:
            q.query(TABLE)
        write_until(c, lambda: first_index(node) > 1, "a cut")
        one, two, three = (node.client() for _ in range(3))
        for client in (one, two):
            expect(ask(client, IMAGE_BEGIN, b"\1").type == IMAGE, "a pinned image")
        expect(ask(three, IMAGE_BEGIN, b"\1") == "BUSY", "a third image at once")
        f = ask(three, ASK_HASHES, struct.pack("<II", 1, 65536))  # takes no image
        expect(f.type == HASHES and len(f.body) == 4 + 8 * 65536, "hashes")
        f = ask_pages(one, 1, 2, 4000000000)
        expect(f.type == PAGES and len(f.body) == 4 + 2 * 4100, "two pages, the third is not there")
        expect(f.body[8:24] == b"SQLite format 3\0", "page 1")
        for kind, body in ((IMAGE_BEGIN, b"\2"), (IMAGE_BEGIN, b"\1\1"), (ASK_HASHES, b"1234567"),
                           (ASK_HASHES, struct.pack("<II", 0, 1)),
                           (ASK_HASHES, struct.pack("<II", 1, 65537)),
                           (ASK_HASHES, struct.pack("<II", 0xFFFFFFFF, 2)),
                           (ASK_PAGES, b"123"), (ASK_PAGES, struct.pack("<II", 2, 2)),
                           (ASK_PAGES, struct.pack("<I", 0)),
                           (ASK_PAGES, struct.pack("<300I", *range(1, 301)))):
            expect(ask(three, kind, body) == "PROTOCOL", f"frame {kind} with {body[:20]!r}")
        two.close()  # its image goes with it
        c.wait(lambda: ask(three, IMAGE_BEGIN, b"\1") != "BUSY", "room for another image")
        # The pinned state stays while others write; and it is taken back from one who sleeps.
        f = ask_pages(one, 1)
        before = f.body
        with c.client() as q:
            for i in range(50):
                q.query("INSERT INTO numbered(writer, number) VALUES (800, ?)", (i,))
        expect(ask_pages(one, 1).body == before, "a pinned page changed")
        c.wait(lambda: node.log_text().count('why="over its limit"') == 2, "idle images go", 15)
        expect(ask_pages(one, 1) == "TIMEOUT", "another state under a pinned image's name")
        expect(ask(one, IMAGE_BEGIN, b"\0").type == IMAGE and ask_pages(one, 1).type == PAGES,
               "begins again")
        one.close()
        three.close()


def read_all(node):
    with node.client() as q:
        q.query("SELECT sum(length(a)) FROM t", level="any", timeout_ms=2000)


def flip_a_page(c, node):
    """Of main.db alone, so that the next reader meets it."""
    def found():
        with c.client() as q:
            q.query("INSERT INTO t(a) VALUES (hex(randomblob(1000)))")
        return page_in_file(node)
    page = c.wait(found, f"{node} has pages in main.db alone")
    flip(node.database, (page - 1) * 4096 + 100)
    with contextlib.suppress(LecternError, ConnectionLost):
        read_all(node)


@case(short=True, seconds=120)
def test_what_is_damaged_again_and_again_is_not_rebuilt_in_a_loop():
    """What was built from the own log a moment ago is damaged again: the next repair waits."""
    with Cluster(wal_checkpoint="64KiB", wal_restart="64KiB") as c:
        victim = c.others(c.leader())[0]
        fill(c, victim)
        flip_a_page(c, victim)
        c.wait(lambda: " startup rebuild " in victim.log_text() and serves(victim),
               f"{victim} was rebuilt")
        c.wait_equal()
        flip_a_page(c, victim)
        c.wait(lambda: not serves(victim), f"{victim} notices")
        time.sleep(1.0 * PATIENCE)
        expect(victim.log_text().count(" startup rebuild ") == 1, f"{victim} was rebuilt at once")
        expect_error("STOPPED", lambda: read_all(victim), says="the next repair begins at ")


@case(seconds=120)
def test_images_one_after_the_other_do_not_let_the_wal_grow():
    """Each is over within a second or 30, but the next one was open before."""
    for pin in (False, True):
        with Cluster(1, wal_checkpoint="256KiB", wal_restart="1MiB", wal_limit="4MiB") as c:
            node = c.leader()
            stop = threading.Event()

            def fetch(begin_ms, pin=pin, node=node, stop=stop):
                time.sleep(begin_ms / 1000)
                with node.client() as q:
                    while not stop.is_set():
                        if pin:
                            ask(q, IMAGE_BEGIN, b"\1")
                        for _ in range(10 if pin else 100):
                            ask_pages(q, 1, 2, 3)
                            time.sleep(0.1 if pin else 0)

            with node.client() as q:
                q.query("CREATE TABLE big(id INTEGER PRIMARY KEY, a)")
                fetchers = [threading.Thread(target=fetch, args=(ms,)) for ms in (0, 500)]
                for each in fetchers:
                    each.start()
                longest, end = 0, time.monotonic() + 8
                while time.monotonic() < end:
                    for row in range(10):
                        q.query("INSERT OR REPLACE INTO big VALUES (?, randomblob(200000))", [row])
                    longest = max(longest, node.row()["wal_bytes"])
                    time.sleep(0.03)
                stop.set()
            for each in fetchers:
                each.join()
            expect(longest < 80 << 20, f"pinned {pin}: a WAL of {longest >> 20} MiB")
