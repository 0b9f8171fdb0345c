"""Members come and go: the commands, joining, replacing the dead, leaving, and a majority lost."""

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time

from tests.lib.cluster import (BUILD, PATIENCE, SETTINGS, STEADY, Cluster, Node, case,
                               expect, expect_equal, expect_error, free_port)
from tests.lib.lectern_client import ConnectionLost, LecternError
from tests.lib.load import TABLE, Writers

LECTERN = os.path.join(BUILD, "lectern")


class Joined(Node):
    """A node that joins: its id is in DIR/node once it has one."""

    def __init__(self, cluster, number, *flags, peer_port=None):
        directory = os.path.join(cluster.dir, f"node{number}")
        super().__init__(number, directory, directory + ".log", free_port(),
                         peer_port or free_port())
        self.flags = list(flags)

    def command(self, cluster, settings):
        flags = [f"--{name}={value}" for name, value in settings.items()]
        return [os.path.join(self.build, "lecternd"), "--data", self.dir, "--listen", self.address,
                "--peer-listen", f"127.0.0.1:{self.peer_port}", *self.flags, *flags]


def join(c, number, *flags, start=True, **options):
    """A new node, told to join C by any of its nodes."""
    node = Joined(c, number, "--join", c.addresses(), *flags, **options)
    c.nodes.append(node)
    if start:
        node.start(c.members, c.settings)
    return node


def cluster(c, *arguments, status=0, seconds=60):
    """`lectern cluster ...`: what it says; STATUS is its exit status."""
    done = subprocess.run([LECTERN, "cluster", "--connect", c.addresses(), *map(str, arguments)],
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          timeout=seconds * PATIENCE)
    said = done.stdout + done.stderr
    expect_equal(done.returncode, status, f"lectern cluster {arguments}: {said!r}")
    return said.strip()


def members(c):
    """What the leader says: id -> member (voter, replica, spare)."""
    with c.client() as q:
        return {r["node"]: r["member"] for r in q.status()}


def wait_member(c, number, role, seconds=40.0):
    def has_role():
        try:
            return members(c).get(number) == role
        except (ConnectionLost, LecternError):
            return False
    c.wait(has_role, f"node {number} is a {role}", seconds)


def identity(node):
    """The text of DIR/node; empty when it is not there."""
    try:
        with open(os.path.join(node.dir, "node"), encoding="ascii") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def begin(c):
    with c.client() as q:
        q.query(TABLE)


@contextlib.contextmanager
def load(c):
    """Light writes while the members change; nothing acknowledged may be lost."""
    begin(c)
    with Writers(c.nodes[:3], 2) as w:
        c.wait(lambda: w.acknowledged > 50, "the load begins")
        yield w
        goal = w.acknowledged + 50
        c.wait(lambda: w.acknowledged >= goal or w.crashed, "the load goes on", 30)
        w.stop()
    position = c.check_equal()
    for node in c.nodes:
        if node.should_run:
            w.check(node)
    expect(position[0] > 0, "nothing was written")


@case(short=True, seconds=120)
def test_a_node_joins_and_is_promoted_when_it_has_caught_up():
    with Cluster() as c:
        with load(c):
            node = join(c, 4)
            wait_member(c, 4, "voter")
        c.wait(lambda: "wish = none" in identity(node), f"no wish any more: {identity(node)}")
        said = cluster(c, "list")
        expect(len(said.splitlines()) == 5, said)
        # It goes on under its id, with --data alone.
        node.stop()
        node.flags = []
        c.restart(node)
        c.wait_serving()
        expect_equal(members(c)[4], "voter", "after a restart")
        # Demoted, it does not promote itself again, also not after a restart.
        if c.leader() is node:
            cluster(c, "transfer", 1)
        expect(re.search("node 4 is a replica now", cluster(c, "demote", 4)), "demote")
        node.stop()
        c.restart(node)
        c.wait_serving()
        time.sleep(1.5 * PATIENCE)  # three looks of the leader at its replicas
        expect_equal(members(c)[4], "replica", "after a demotion and a restart")
        c.check_equal()


@contextlib.contextmanager
def proxy_without_its_server(port):
    """Accepts whoever connects to PORT, and closes."""
    listener = socket.create_server(("127.0.0.1", port))

    def refuse():
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@case(seconds=120)
def test_a_node_goes_on_asking_a_proxy_whose_server_is_down():
    with Cluster() as c:
        door = c.others(c.leader())[0]
        door.stop()
        with proxy_without_its_server(int(door.address.rpartition(":")[2])):
            node = Joined(c, 4, "--join", door.address)
            c.nodes.append(node)
            node.start(c.members, c.settings)
            c.wait(lambda: "closed it before it said" in node.log_text(), "asked the proxy")
            time.sleep(3 * PATIENCE)  # longer than nodes that start are waited for
            expect(node.process.poll() is None, node.log_text())
        c.restart(door)
        wait_member(c, 4, "voter")


@case(seconds=120)
def test_a_replica_stays_one_and_the_commands_change_it():
    with Cluster(**STEADY) as c:
        with load(c):
            node = join(c, 4, "--replica")
            wait_member(c, 4, "replica")
            c.wait(lambda: (node.status() or {}).get("state") == "ok", f"{node} is well")
            time.sleep(1.5 * PATIENCE)  # three looks of the leader at its replicas
            expect_equal(members(c)[4], "replica", "a replica that was not promoted")
            c.wait(lambda: "node 4 is a voter now" in try_cluster(c, "promote", 4), "promote")
            expect("already" in cluster(c, "promote", 4), "promoted twice")
            expect("node 4 leads now" in cluster(c, "transfer", 4), "transfer")
            expect_equal(c.leader(), node, "the leader")
            expect("leads now" in cluster(c, "transfer"), "transfer to anybody")
            expect(c.leader() is not node, "the leadership did not move")
            expect("node 4 is a replica now" in cluster(c, "demote", 4), "demote")
            expect("node 4 is removed" in cluster(c, "remove", 4), "remove")
            expect_equal(sorted(members(c)), [1, 2, 3], "members")
            # It learns of it, says so, and serves nothing.
            c.wait(lambda: "removed" in ((node.status() or {}).get("state") or ""),
                   f"{node} says that it was removed: {node.status()}")
            expect_error("STOPPED", lambda: node.client().query("SELECT 1", level="any"),
                         says="removed")
            node.should_run = False
            node.terminate()
            expect_equal(node.wait_end(), 0, "the removed node's exit status after SIGTERM")


def try_cluster(c, *arguments):
    """What a command says, whether it worked or not."""
    done = subprocess.run([LECTERN, "cluster", "--connect", c.addresses(), *map(str, arguments)],
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          timeout=60 * PATIENCE)
    return done.stdout + done.stderr


@case(seconds=120)
def test_commands_say_what_is_wrong():
    with Cluster() as c:
        begin(c)
        said = cluster(c, "remove", 9, status=1)
        expect("not a member" in said, said)
        expect("not a member" in cluster(c, "transfer", 9, status=1), "transfer to nobody")
        expect("not a member" in cluster(c, "promote", 9, status=1), "promote nobody")
        expect("voter already" in cluster(c, "promote", 2), "promote a voter")
        taken = f"127.0.0.1:{c.node(2).peer_port}"
        said = cluster(c, "add", taken, status=1)
        expect("address of node 2" in said and "--replace 2" in said, said)
        free = f"127.0.0.1:{free_port()}"
        said = cluster(c, "add", free)
        expect("node 4 is a replica now" in said, said)
        expect(f"lecternd --data DIR --join ADDRESS --peer-listen {free}" in said, said)
        said = cluster(c, "add", free)
        expect("node 4" in said and "--join" in said, f"the same place again: {said}")
        said = cluster(c, "promote", 4, status=1)
        expect("cannot be reached" in said, said)
        expect("no voter" in cluster(c, "transfer", 4, status=1), "transfer to a replica")
        expect("node 4 is removed" in cluster(c, "remove", 4), "remove what never started")
        expect("node 5 is a replica now" in cluster(c, "add", free), "an id is never used again")
        cluster(c, "remove", 5)
        # A live voter must not go while another one is dead: the rest would have no majority.
        dead = c.others(c.leader())[0]
        dead.kill()
        live = next(x for x in c.others(c.leader()) if x is not dead)
        said = c.wait(lambda: (lambda s: s if "refused" in s else None)(
            try_cluster(c, "remove", live.id) if dead_is_noticed(c, dead) else ""),
            f"removing {live} is refused")
        expect("would have 2 voters" in said and "--force" in said, said)
        expect("refused" in cluster(c, "demote", live.id, status=1), "demote")
        leader = c.leader()
        expect("refused" in cluster(c, "remove", leader.id, status=1), "remove the leader")
        expect_equal(c.leader(), leader, "the leader, after it was not removed")
        # The dead one may go, and then nothing is left that could.
        expect(f"node {dead.id} is removed" in cluster(c, "remove", dead.id), "remove the dead one")
        for wrong in (["remove"], ["remove", "x"], ["remove", "1", "2"], ["add", "nowhere"],
                      ["add", "127.0.0.1:65536"], ["add", "127.0.0.1:0"],
                      ["nonsense"], [], ["list", "--timeout", "soon"]):
            done = subprocess.run([LECTERN, "cluster", "--connect", c.addresses(), *wrong],
                                  capture_output=True, text=True, check=False,
                                  stdin=subprocess.DEVNULL, timeout=20 * PATIENCE)
            expect_equal(done.returncode, 2, f"exit status of {wrong}: {done.stderr}")
        # Who comes back reads of members that are none any more; its --cluster names one, too.
        live.stop()
        c.restart(live)
        c.wait_serving()
        expect("peer-address" not in live.log_text(), "an error because of a removed member")


def dead_is_noticed(c, node):
    with c.client() as q:
        return next(r for r in q.status() if r["node"] == node.id)["state"] == "unreachable"


@case(short=True, seconds=120)
def test_the_leader_is_removed_after_it_handed_over():
    with Cluster() as c:
        with load(c):
            join(c, 4)
            wait_member(c, 4, "voter")
            old = c.leader()
            expect(f"node {old.id} is removed" in cluster(c, "remove", old.id), "remove")
            expect(old.id not in members(c), "it is still a member")
            c.wait(lambda: "removed" in ((old.status() or {}).get("state") or ""),
                   f"{old} says that it was removed")
            expect(c.leader() is not old, "the removed one leads")
            old.stop()
        # It comes back: it is told, ends by itself, and served nothing.
        old.start(c.members, c.settings)
        old.should_run = False
        expect(old.wait_end_by_itself() != 0, "a removed node that came back ended with 0")
        expect("removed from the cluster" in old.log_text(), "its last word")


@case(short=True)
def test_a_leader_hands_over_though_the_first_voter_is_silent():
    with Cluster() as c:
        leader = c.leader()
        silent, other = sorted(c.others(leader), key=lambda node: node.id)
        silent.pause()
        time.sleep(2.5 * SETTINGS["election-timeout"] / 1000)  # so long it counts as there
        expect(f"node {other.id} leads now" in cluster(c, "transfer"), "transfer")
        silent.resume()
        c.wait_serving()


@case(seconds=120)
def test_a_dead_node_without_its_disk_is_replaced_by_one_command():
    for same_address in (True, False):
        with Cluster() as c:
            with load(c):
                dead = c.others(c.leader())[0]
                dead.kill()
                shutil.rmtree(dead.dir)
                port = dead.peer_port if same_address else None
                c.wait(lambda d=dead: dead_is_noticed(c, d), f"{dead} is missed")
                new = join(c, 4, "--replace", str(dead.id), peer_port=port)
                wait_member(c, 4, "voter")
                found = members(c)
                expect(dead.id not in found and len(found) == 3, f"members: {found}")
            expect(new.running, "the new node")


@case(seconds=120)
def test_a_live_node_is_not_replaced():
    with Cluster() as c:
        node = join(c, 4, "--replace", "2")
        node.should_run = False
        expect(node.wait_end_by_itself() != 0, "exit status")
        expect("node 2 is alive" in node.log_text(), "why")
        expect_equal(sorted(members(c)), [1, 2, 3], "members")
        node.flags[-1] = "9"
        node.start(c.members, c.settings)
        node.should_run = False
        expect(node.wait_end_by_itself() != 0, "exit status")
        expect("not a member" in node.log_text(), "why")


@case(short=True, seconds=120)
def test_a_wiped_voter_is_refused_under_its_old_id_and_served_nothing():
    with Cluster() as c:
        begin(c)
        with c.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (1, 1)")
        c.wait_equal()
        node = c.others(c.leader())[0]
        node.kill()
        shutil.rmtree(node.dir)
        for other in c.others(node):
            other.pause()  # nobody can refuse it yet
        node.start(c.members, c.settings)
        node.should_run = False
        answers = []

        def reads():
            try:
                with node.client(socket_timeout=3) as q:
                    answers.append(q.query("SELECT count(*) FROM sqlite_schema", level="any",
                                           timeout_ms=700).rows)
            except LecternError as e:
                answers.append(e.name)
                return True
            except ConnectionLost:
                pass
            return False
        c.wait(reads, "an answer, which is a refusal")
        expect_equal([a for a in answers if not isinstance(a, str)], [], "it served")
        for other in c.others(node):
            other.resume()
        expect(node.wait_end_by_itself() != 0, "exit status of the refused node")
        expect("files" in node.log_text().splitlines()[-1], node.log_text().splitlines()[-1])
        c.wait_serving()
        # The advice that it gives works.
        shutil.rmtree(node.dir)
        join(c, 4, "--replace", str(node.id), peer_port=node.peer_port)
        wait_member(c, 4, "voter")
        expect_equal(len(members(c)), 3, "members")
        c.check_equal()


def grown(c, rows=400):
    """A database that takes a moment to fetch."""
    with c.client() as q:
        q.query("CREATE TABLE big(id INTEGER PRIMARY KEY, filler)")
        for _ in range(rows // 50):
            q.query("INSERT INTO big(filler) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
                    "SELECT i + 1 FROM n WHERE i < 50) SELECT randomblob(8000) FROM n")


@case(seconds=180)
def test_kill_9_of_a_joining_node_at_any_moment():
    """It goes on under the id that it was given, and none piles up."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    with Cluster() as c:
        grown(c)
        # Moments that have a sign: asked, identity written, the fetch, the log made, promoted.
        signs = ["asking", "accepted", "fetch", "member-started", "role="]
        node = join(c, 4, start=False)
        # Whoever prepares the place gets the id that the node will have.
        expect("node 4 is a replica now" in cluster(c, "add", f"127.0.0.1:{node.peer_port}"), "add")
        for sign in signs:
            seen = len(node.log_text())
            node.start(c.members, c.settings)
            c.wait(lambda s=sign, n=seen: s in node.log_text()[n:] or "member-started" in
                   node.log_text()[n:], f"the log of {node} says {sign}")
            node.kill()
        for _ in range(6):
            node.start(c.members, c.settings)
            time.sleep(rng.uniform(0.01, 0.4))
            node.kill()
        node.start(c.members, c.settings)
        wait_member(c, 4, "voter")
        expect_equal(members(c), {1: "voter", 2: "voter", 3: "voter", 4: "voter"},
                     f"members after kills, seed {seed}")
        c.check_equal()


LECTERND = os.path.join(BUILD, "lecternd")


def recover(directory, *flags, status=0):
    done = subprocess.run([LECTERND, "recover", "--data", directory, *flags], capture_output=True,
                          text=True, check=False, stdin=subprocess.DEVNULL, timeout=30 * PATIENCE)
    said = done.stdout + done.stderr
    expect_equal(done.returncode, status, f"lecternd recover {flags}: {said}")
    return said


@case(short=True, seconds=180)
def test_a_lost_majority_is_recovered_from_one_node():
    with Cluster(wal_checkpoint="64KiB", wal_restart="256KiB") as c:
        begin(c)
        with Writers(c.nodes, 3, filler=1000) as w:
            c.wait(lambda: w.acknowledged > 300, "some writes")
            w.stop()
        survivor = c.others(c.leader())[0]
        c.wait_equal()
        for node in c.nodes:
            node.kill()
        # Without a word of the operator's it only tells.
        said = recover(os.path.join(survivor.dir, "nonexist"), status=1)
        expect("there is no node in" in said, said)
        said = recover(survivor.dir, status=1)
        expect("may be lost" in said and "nothing was done" in said, said)
        before = sorted(os.listdir(survivor.dir))
        said = recover(survivor.dir, "--yes-i-may-lose-data")
        expect("Done: node" in said, said)
        expect([n for n in os.listdir(survivor.dir) if n.startswith("raft.lost-")], before)
        done = subprocess.run([LECTERN, "check", survivor.dir], capture_output=True, text=True,
                              check=False, timeout=30 * PATIENCE)
        expect_equal(done.returncode, 0, f"check after it: {done.stdout}")
        expect("log       empty behind entry " in done.stdout, done.stdout)
        said = recover(survivor.dir, status=1)  # to be asked again is harmless
        # The old flags would make it a member of the cluster that is lost: refused.
        survivor.start(c.members, c.settings)
        survivor.should_run = False
        expect(survivor.wait_end_by_itself() != 0, "started with the old flags")
        alone = Joined(c, survivor.id)
        alone.dir, alone.port, alone.peer_port = survivor.dir, survivor.port, survivor.peer_port
        alone.log = survivor.log
        c.nodes[survivor.id - 1] = alone
        alone.start(c.members, c.settings)
        c.wait_serving()
        w.check(alone)
        # An old member that is started by mistake is not heard, and does no harm.
        old = next(x for x in c.nodes if x is not alone)
        old.start(c.members, c.settings)
        with alone.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (77, 1)")
        time.sleep(1.0 * PATIENCE)  # it tries its peers several times
        expect_equal(list(members(c)), [alone.id], "members of the new cluster")
        heard = old.read("SELECT count(*) FROM numbered WHERE writer = 77")
        expect_equal(heard, [(0,)], "what the old node heard")
        old.kill()
        c.nodes = [alone]
        for number in (4, 5):
            join(c, number)
        c.wait(lambda: list(members(c).values()) == ["voter"] * 3, "three voters", 40)
        expect(min(set(members(c)) - {alone.id}) > 100, f"ids of the new cluster: {members(c)}")
        by_number = {n.log_text(): n for n in c.nodes}
        expect(len(by_number) == 3, "three nodes")
        for node in c.nodes[1:]:
            found = re.search(r"^id = (\d+)", identity(node), re.M)
            node.id = int(found.group(1))
        c.check_equal()


@case(seconds=180)
def test_kill_9_of_a_recovery():
    """At any moment: the node starts as it was, or says that the recovery must be ended first."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    with Cluster() as c:
        begin(c)
        with Writers(c.nodes, 2, filler=500) as w:
            c.wait(lambda: w.acknowledged > 200, "some writes")
            w.stop()
        node = c.node(1)
        c.wait_equal()
        for each in c.nodes:
            each.kill()
        copy = os.path.join(c.dir, "copy")
        shutil.copytree(node.dir, copy)
        began = time.monotonic()
        recover(copy, "--yes-i-may-lose-data")
        whole = time.monotonic() - began
        ended = decided = 0
        for _ in range(30):
            process = subprocess.Popen([LECTERND, "recover", "--data", node.dir,
                                        "--yes-i-may-lose-data"], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(rng.uniform(0.3, 1.1) * whole)
            except subprocess.TimeoutExpired:
                process.kill()
            ended += process.wait() == 0
            if os.path.exists(os.path.join(node.dir, "recovery", "node")):
                decided += 1
                node.start(c.members, c.settings)
                node.should_run = False
                expect_equal(node.wait_end_by_itself(), 1, "a start before the recovery is ended")
                expect("was begun and not finished" in node.log_text().splitlines()[-1],
                       node.log_text()[-300:])
        recover(node.dir, "--yes-i-may-lose-data")
        alone = Joined(c, 1)
        alone.port, alone.peer_port, alone.dir, alone.log = (node.port, node.peer_port, node.dir,
                                                             node.log)
        c.nodes = [alone]
        alone.start(c.members, c.settings)
        c.wait_serving()
        w.check(alone)
        c.check_equal()
        print(f"seed {seed}: {ended} of 30 came to their end, {decided} were decided when killed")


def writes_alone(c):
    """The leader, whose own log alone holds a row of writer 99; None when it was not the leader any
    more, because this machine stood still. Its followers are paused, or as before."""
    leader = c.leader()
    with leader.client() as q:
        for other in c.others(leader):
            other.pause()
        try:
            q.query("INSERT INTO numbered(writer, number) VALUES (99, 1)", timeout_ms=1500)
            expect(False, "acknowledged by one of three")
        except LecternError as e:
            if e.name == "UNKNOWN":
                return leader
            expect(e.name in ("TIMEOUT", "NO_LEADER"), str(e))  # it was not begun
    for other in c.others(leader):
        other.resume()
    return None


@case(seconds=120)
def test_a_recovery_keeps_all_that_the_own_log_holds():
    """Also what was never acknowledged, and with a database that must be built from the log: it is
    gone, or was being fetched when the others were lost."""
    for gone, begun in ((False, False), (True, False), (True, True)):
        with Cluster(leader_wait=1500) as c:
            begin(c)
            with Writers(c.nodes, 2, filler=500) as w:
                c.wait(lambda w=w: w.acknowledged > 200, "some writes")
                w.stop()
            c.wait_equal()
            leader = c.wait(lambda: writes_alone(c), "a leader that takes a write for itself")
            for node in c.nodes:
                node.kill()
            if begun:
                os.rename(leader.database, leader.database + ".fetch")
            if gone:
                for name in ("main.db", "main.db-wal", "main.db-shm", "hashes", "position"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.join(leader.dir, name))
            recover(leader.dir, "--yes-i-may-lose-data")
            alone = Joined(c, leader.id)
            alone.dir, alone.port, alone.peer_port = leader.dir, leader.port, leader.peer_port
            c.nodes = [alone]
            alone.start(c.members, c.settings)
            c.wait_serving()
            w.check(alone)
            found = alone.read("SELECT count(*) FROM numbered WHERE writer = 99")
            expect_equal(found, [(1,)], "what only the own log held")
            c.check_equal()


@case(seconds=120)
def test_a_replica_that_lost_its_directory_does_not_come_back_under_its_old_id():
    """Also when those who knew it have a new leader, or were all started again since."""
    for forget in ("nothing", "new leader", "restarts"):
        with Cluster() as c:
            begin(c)
            node = join(c, 4, "--replica")
            wait_member(c, 4, "replica")
            c.wait(lambda n=node: (n.status() or {}).get("state") == "ok", f"{node} is well")
            c.wait_equal()
            c.wait(lambda: all("peer_up peer=4" in x.log_text() for x in c.nodes[:3]),
                   "all have met it, and remember that")
            node.kill()
            shutil.rmtree(node.dir)
            if forget == "new leader":
                cluster(c, "transfer")
            elif forget == "restarts":
                for other in c.nodes[:3]:
                    other.kill()
                for other in c.nodes[:3]:
                    c.restart(other)
                c.wait_serving()
            again = Joined(c, 5, "--join", c.addresses(), "--replica", peer_port=node.peer_port)
            again.start(c.members, c.settings)
            expect(again.wait_end_by_itself() == 1, f"exit status after {forget}")
            last = again.log_text().splitlines()[-1]
            expect("address of node 4" in last and "cluster remove 4" in last, last)
            expect(identity(again) == "", f"it has an id after {forget}")
            # What it says helps.
            c.nodes.remove(node)
            cluster(c, "remove", 4)
            join(c, 5, "--replica", peer_port=node.peer_port)
            wait_member(c, 5, "replica")
            expect(4 not in members(c), f"members: {members(c)}")
            c.wait_serving()
            c.check_equal()


@case(short=True, seconds=120)
def test_a_recovery_that_is_given_up_leaves_nothing_behind():
    """It applied what the log ended with; then the others came back, and had never heard of it."""
    with Cluster(leader_wait=1500) as c:
        begin(c)
        node = c.leader()
        c.wait_equal()
        for other in c.others(node):
            other.pause()

        def write(number):
            with node.client() as q, contextlib.suppress(LecternError):
                q.query("INSERT INTO numbered(writer, number) VALUES (99, ?)", [number],
                        timeout_ms=1500)
        writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for each in writers:  # an entry each: more than the others will write
            each.start()
            time.sleep(0.1)
        for each in writers:
            each.join()
        for each in c.nodes:
            each.kill()
        os.makedirs(os.path.join(node.dir, "recovery"))
        with open(os.path.join(node.dir, "recovery", "raft"), "wb"):
            pass  # in the way of the new log
        said = recover(node.dir, "--yes-i-may-lose-data", status=1)
        expect("cannot read" in said, said)
        for other in c.others(node):
            other.start(c.members, c.settings)
        leader = c.leader()
        with leader.client() as q:
            q.query("INSERT INTO numbered(writer, number) VALUES (77, 1)")
        node.start(c.members, c.settings)
        c.wait_serving()
        for each in c.nodes:
            with each.client() as q:
                found = q.query("SELECT writer FROM numbered", level="strong").rows
            expect_equal(found, [(77,)], f"rows of {each}")
        c.check_equal()
        expect("recover` was begun" in node.log_text(), "the reason is not told")
        node.stop()
        before = node.log_text().count(" startup ")
        c.restart(node)
        c.wait_serving()
        expect_equal(node.log_text().count(" startup "), before, "lines of repairs")
