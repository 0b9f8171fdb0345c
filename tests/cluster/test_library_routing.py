"""The client library finds its way: leaders, replicas, dead and paused nodes, time limits."""

import contextlib
import queue
import socket
import threading
import time

from tests.lib.cluster import (PATIENCE, STEADY, Cluster, Failure, case, expect, expect_equal,
                               free_port, wait_for)
from tests.lib.library import (ANY, CANTOPEN, DONE, ERROR, INTERRUPT, MISUSE, OK, PROTOCOL, TIMEOUT,
                               UNAVAILABLE, UNKNOWN, Library)

SLACK_MS = 2000 * PATIENCE  # what a call may be over its limit: no whole silence (2.5 s)
# Silence is noticed after a second and a PING of a second and a half; then somebody must lead. Far
# from the limit of a call, 30 s.
ONE_TIMEOUT_MS = 10000 * PATIENCE
# Of a call that does not wait for that again.
NO_TIMEOUT_MS = 2400 * PATIENCE


def table(c):
    with c.client() as q:
        q.query("CREATE TABLE t(a)")


def expect_silence(p, seconds):
    """No answer comes within that time: the call still waits."""
    try:
        a = p.lines.get(timeout=seconds)
    except queue.Empty:
        return
    raise Failure(f"a call that should wait ended: {a}")


def expect_no_silence(answers):
    """None of ANSWERS waited for silence again; but one may meet a machine that stands still."""
    took = sorted(a["took_ms"] for a in answers)
    expect(took[-2] < NO_TIMEOUT_MS and took[-1] < ONE_TIMEOUT_MS, f"they took {took} ms")


def interrupted(p, after_ms, *call):
    """CALL, which an interrupt ends; one that comes before its call begins is for nothing."""
    p.ask("timeout", call[1], 5000 * PATIENCE)
    for wait_ms in (after_ms, 1500, 3000):
        p.ask("interrupt", call[1], wait_ms)
        a = p.ask(*call, code=ANY)
        if a["code"] != TIMEOUT:
            break
    expect_equal(a["code"], INTERRUPT, f"code of {call} ({a['message']})")
    return a


def write_until_at(p, session, node):
    def there():
        return p.query(session, "INSERT INTO t VALUES (0)")["address"] == node.address
    wait_for(there, f"writes go to {node}", 10)


@case(short=True)
def test_library_writes_go_to_the_leader_and_reads_stay_near():
    with Cluster(**STEADY) as c, Library() as p:
        table(c)
        leader = c.leader()
        p.open(0, c.others(leader)[0].address)
        write_until_at(p, 0, leader)
        for i in range(20):
            a = p.query(0, "INSERT INTO t VALUES (?)", i + 1)
            expect_equal(a["address"], leader.address, "where a write went")
            expect_equal((a["changes"], a["rowid"] > 0), (1, True), "changes, rowid")
        readers = {p.query(0, "SELECT count(*) FROM t")["address"] for _ in range(20)}
        expect_equal(len(readers), 1, f"nodes that 20 reads went to: {readers}")
        expect_equal(p.ask("level", 0, "strong", 0)["code"], OK, "level")
        expect(p.rows(0, "SELECT count(*) FROM t")[0][0] >= 20, "strong read")
        c.check_equal()


@case()
def test_library_notices_a_new_leader():
    with Cluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        leader = c.leader()
        write_until_at(p, 0, leader)
        leader.kill()
        took = p.query(0, "INSERT INTO t VALUES (1)")["took_ms"]
        print(f"the first write after kill -9 of the leader took {took:.0f} ms")
        expect(took < ONE_TIMEOUT_MS, f"a write after kill -9 of the leader took {took} ms")
        write_until_at(p, 0, c.leader())
        c.restart(leader)
        c.wait_serving()
        expect_equal(p.rows(0, "SELECT count(*) FROM t WHERE a = 1"), [[1]], "done once")
        c.check_equal()


@case(short=True)
def test_library_a_paused_leader_costs_one_timeout():
    with Cluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        leader = c.leader()
        write_until_at(p, 0, leader)
        leader.pause()
        first = p.query(0, "INSERT INTO t VALUES (1)")["took_ms"]
        rest = [p.query(0, "INSERT INTO t VALUES (2)") for _ in range(20)]
        leader.resume()
        print(f"paused leader: the first write {first:.0f} ms")
        expect(first < ONE_TIMEOUT_MS, f"the first write took {first} ms")
        expect_no_silence(rest)
        c.wait_serving()
        expect_equal(p.rows(0, "SELECT count(*) FROM t WHERE a = 1"), [[1]], "done once")
        expect_equal(p.rows(0, "SELECT count(*) FROM t WHERE a = 2"), [[20]], "each done once")
        c.check_equal()


def write_until(p, over, answers):
    """One write after another, from now until OVER."""
    n = 0
    while not over.is_set():
        n += 1
        answers.append(p.query(0, "INSERT INTO t VALUES (?)", n, code=ANY))


@case()
def test_library_a_paused_leader_fails_one_call_of_a_session_with_a_short_limit():
    """Shorter than silence takes to be noticed: what was under way is UNKNOWN; no write after it
    goes to the silent node, though its followers still name it; and no session goes back to it."""
    limits = (500, 1000, 2000, 5000)
    with Cluster() as c, contextlib.ExitStack() as stack:
        table(c)
        leader, over = c.leader(), threading.Event()
        sessions = [stack.enter_context(Library()) for _ in limits]
        answers = [[] for _ in limits]
        for p, limit in zip(sessions, limits):
            p.open(0, c.addresses())
            write_until_at(p, 0, leader)
            p.ask("timeout", 0, limit)
        threads = [threading.Thread(target=write_until, args=(p, over, a))
                   for p, a in zip(sessions, answers)]
        for t in threads:
            t.start()
        leader.pause()
        over.wait(8)
        over.set()
        for t in threads:
            t.join()
        leader.resume()
        for limit, got in zip(limits, answers):
            failed = [a for a in got if a["code"] not in (OK, DONE)]
            told = [(a["code"], round(a["took_ms"]), a["message"]) for a in failed]
            print(f"limit {limit} ms: {len(got)} writes, {len(failed)} failed: {told}")
            # What waits for the election in vain was not sent, and ends when another leads. Who
            # is blamed counts: on a busy machine another node may be late once, too.
            blamed = [i for i, a in enumerate(got)
                      if a["code"] not in (OK, DONE) and leader.address in a["message"]]
            sent = [i for i in blamed if got[i]["code"] != UNAVAILABLE]
            expect(len(sent) <= 1, f"limit {limit} ms: {told}")
            expect(len(blamed) * limit < 6000 * PATIENCE, f"limit {limit} ms: {told}")
            expect(not blamed or blamed[-1] - blamed[0] < len(blamed),
                   f"limit {limit} ms: it went back to the silent node: {told}")
            expect(limit < 5000 or not blamed, f"there was time to go elsewhere: {told}")
            expect(len(got) > 20, f"{limit} ms: only {len(got)} writes")
        c.wait_serving()
        c.check_equal()


@case()
def test_library_status_never_names_two_leaders():
    """The dead one's last word is that it leads, for as long as it counts as heard of."""
    with Cluster() as c:
        table(c)
        leader = c.leader()
        others = c.others(leader)
        leader.kill()
        seen = set()

        def follows():
            for node in others:
                with node.client() as x:
                    leaders = [r["node"] for r in x.status() if r["role"] == "leader"]
                expect(len(leaders) <= 1, f"{node} names {leaders} as leaders")
                seen.update(leaders)
            return bool(seen - {leader.id})
        c.wait(follows, "another leader is named")
        for _ in range(50):
            follows()
        expect(seen - {leader.id}, "nobody leads")


@case()
def test_library_a_paused_replica_costs_one_timeout():
    with Cluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        at = p.query(0, "SELECT 1")["address"]
        node = next(x for x in c.nodes if x.address == at)
        node.pause()
        first = p.query(0, "SELECT 1")
        rest = [p.query(0, "SELECT 1") for _ in range(20)]
        node.resume()
        print(f"paused replica: the first read {first['took_ms']:.0f} ms")
        expect(first["took_ms"] < ONE_TIMEOUT_MS, f"the first read took {first['took_ms']} ms")
        expect_no_silence(rest)
        expect(all(r["address"] != at for r in rest), "a read went to the paused node")


CALLS = (
    ("exec", 0, "INSERT INTO t VALUES (1)"),
    ("exec", 0, "SELECT 1"),
    ("query", 0, "INSERT INTO t VALUES (2) RETURNING a"),
    ("query", 0, "SELECT a FROM t"),
    ("prepare", 0, 0, "SELECT 1"),
    ("batch", 0, "INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (4)"),
    ("transaction", 0, "INSERT INTO t VALUES (5)"),
    ("exec", 0, "BEGIN"),
    ("status", 0),
)
LATE = (TIMEOUT, UNAVAILABLE, UNKNOWN, CANTOPEN)
# Of each call while nobody answers. All of them together take longer than a silent link is waited
# for (2.5 s): they see it hold, break, and the attempts to connect anew.
LIMIT_MS = 400


def all_calls_end(p):
    """Each call, with no node answering: its code, and never later than LIMIT_MS and a second."""
    answers, limit = [], LIMIT_MS
    p.ask("timeout", 0, limit)
    for call in CALLS:
        a = p.ask(*call, code=ANY, seconds=limit / 1000 + 20)
        expect(a["code"] in LATE, f"{call}: {a}")
        expect(a["took_ms"] <= limit + SLACK_MS, f"{call} took {a['took_ms']} ms of {limit}")
        expect(len(a["message"]) > 20, f"{call}: no sentence: {a['message']!r}")
        p.ask("finalize", 0, code=ANY)
        if call[0] == "transaction" or "BEGIN" in call:
            p.ask("exec", 0, "ROLLBACK", code=ANY)
        answers.append((call, a["code"]))
    return answers


def check_told(rows, answers):
    """What was not UNKNOWN was not done; what was, at most once."""
    codes = {}
    for call, code in answers:
        for text in call:
            if str(text).startswith("INSERT"):
                codes[int(text.split("(")[1].split(")")[0])] = code
    for value, code in codes.items():
        expect(rows.count([value]) <= (1 if code == UNKNOWN else 0),
               f"row {value}: told {code}, there {rows.count([value])} times")


@case(seconds=180)
def test_library_every_call_ends_when_all_nodes_are_paused():
    with Cluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        p.query(0, "SELECT 1")
        for node in c.nodes:
            node.pause()
        answers = all_calls_end(p)
        a = p.open(1, c.addresses(), timeout=1500, code=ANY)
        expect(a["code"] in LATE and a["took_ms"] <= 1500 + SLACK_MS, f"open: {a}")
        for node in c.nodes:
            node.resume()
        c.wait_serving()
        p.ask("timeout", 0, 20000)
        check_told(p.rows(0, "SELECT a FROM t"), answers)
        p.query(0, "INSERT INTO t VALUES (100)")
        c.check_equal()


@case(seconds=180)
def test_library_every_call_ends_when_all_nodes_are_dead():
    with Cluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        p.query(0, "SELECT 1")
        for node in c.nodes:
            node.kill()
        answers = all_calls_end(p)
        a = p.open(1, c.addresses(), timeout=1500, code=ANY)
        expect(a["code"] in LATE and a["took_ms"] <= 1500 + SLACK_MS, f"open: {a}")
        c.start()
        p.ask("timeout", 0, 20000)
        check_told(p.rows(0, "SELECT a FROM t"), answers)
        p.query(0, "INSERT INTO t VALUES (100)")
        c.check_equal()


@case()
def test_library_without_a_majority_says_so_in_time():
    with Cluster() as c, Library() as p:
        table(c)
        p.open(0, c.addresses())
        leader = c.leader()
        write_until_at(p, 0, leader)
        p.ask("timeout", 0, 800)
        for node in c.others(leader):
            node.kill()
        a = p.query(0, "INSERT INTO t VALUES (1)", code=ANY)
        expect(a["code"] in LATE and a["took_ms"] <= 1500 + SLACK_MS, f"write: {a}")
        p.ask("timeout", 0, 20000)
        p.ask("level", 0, "any", 0)
        expect_equal(p.rows(0, "SELECT count(*) FROM t WHERE a = 7"), [[0]], "a read at `any`")
        for node in c.others(leader):
            c.restart(node)
        c.wait_serving()
        p.query(0, "INSERT INTO t VALUES (2)")
        c.check_equal()


@case(short=True)
def test_library_interrupt_ends_a_long_statement():
    with Cluster() as c, Library() as p:
        p.open(0, c.addresses())
        interrupted(p, 300, "exec", 0, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                    "FROM n) SELECT sum(i) FROM n")
        expect_equal(p.rows(0, "SELECT 1"), [[1]], "afterwards")
        c.check_alive()


# --- other servers --------------------------------------------------------------------------------


class Impostor:
    """Answers whoever connects with REPLY (None: nothing), then says nothing more, or closes."""

    def __init__(self, reply, closes=False):
        self.reply, self.closes, self.sockets = reply, closes, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for s in self.sockets:
            s.close()

    def _run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(s)
            with contextlib.suppress(OSError):
                if self.reply is not None:
                    s.sendall(self.reply)
                if self.closes:
                    s.recv(65536)
                    s.close()


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nwhat?"


# Who answers, what it says, whether it then closes; the code, words of the sentence, and the
# milliseconds that opening takes at most, of a limit of 20 seconds.
SOON, STARTING = 500, 2000
STRANGERS = (("HTTP", HTTP, False, PROTOCOL, "HTTP", SOON),
             ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", False, PROTOCOL, "SSH", SOON),
             ("SSH that closes", b"SSH-2.0-OpenSSH_9.2\r\n", True, PROTOCOL, "SSH", SOON),
             ("MySQL", b"\x4a\0\0\0\x0a8.0.33\0", False, PROTOCOL, "4a 00 00 00 0a", SOON),
             ("a greeting", b"hello there\r\n", False, PROTOCOL, "hello there)", SOON),
             ("garbage", bytes(range(255, -1, -1)) * 400, False, PROTOCOL, "ff fe fd", SOON),
             ("zeros", bytes(100000), True, PROTOCOL, "00 00 00", SOON),
             ("two bytes", b"\x20\0", True, PROTOCOL, "it said 20 00", SOON),
             ("two bytes, no more", b"\x20\0", False, PROTOCOL, "said no more", 3000),
             ("nothing, closes", None, True, CANTOPEN, "closed it before it said", STARTING))


@case()
def test_library_tells_other_servers_from_a_lectern():
    with Library() as p, contextlib.ExitStack() as servers:
        for name, reply, closes, code, words, most_ms in STRANGERS:
            server = servers.enter_context(Impostor(reply, closes))
            a = p.open(0, server.address, timeout=20000, code=code)
            expect(words in a["message"] and server.address in a["message"], f"{name}: {a}")
            expect(a["took_ms"] < most_ms + SLACK_MS, f"{name} took {a['took_ms']} ms")
            print(f"{name}: {a['took_ms']:.0f} ms, {a['message']}")
            p.ask("timeout", 0, 1500)
            expect(p.query(0, "SELECT 1", code=ANY)["code"] != DONE, name)
            p.ask("close", 0)
        silent = servers.enter_context(Impostor(None))
        for limit in (1200, 4000):  # before and after a connection is given up
            a = p.open(0, silent.address, timeout=limit, code=CANTOPEN)
            said = f"{silent.address} accepted the connection but said nothing"
            expect(said in a["message"] and a["took_ms"] >= limit - 1, f"silence: {a}")
            p.ask("close", 0)


@case()
def test_library_meets_the_port_of_the_peers():
    with Cluster(1) as c, Library() as p:
        peer = f"127.0.0.1:{c.node(1).peer_port}"
        a = p.open(0, peer, timeout=20000, code=CANTOPEN)
        print(f"{a['took_ms']:.0f} ms, {a['message']}")
        expect(peer in a["message"], a["message"])
        expect(a["took_ms"] < 2 * STARTING + SLACK_MS, f"took {a['took_ms']} ms")  # it waits, too
        c.check_alive()


def test_library_where_nobody_listens_says_so_soon():
    with Library() as p, Impostor(None, closes=True) as closing, Impostor(None) as silent:
        one, two = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        for addresses in (one, f"{one},{two}", f"{one},{closing.address}",
                          f"{one},no-such-host.invalid:1"):
            a = p.open(0, addresses, timeout=20000, code=CANTOPEN)
            expect(1000 < a["took_ms"] < STARTING + SLACK_MS, f"{addresses}: {a}")
            expect_equal("no node at any of the 2 addresses" in a["message"], "," in addresses,
                         f"sentence of {addresses}: {a['message']}")
            p.ask("close", 0)
        # Somebody who is silent may be a node that is paused.
        a = p.open(0, f"{one},{silent.address}", timeout=3500, code=CANTOPEN)
        expect(a["took_ms"] >= 3499, f"a silent one: {a}")
        p.ask("close", 0)


def listens(node):
    try:
        socket.create_connection(("127.0.0.1", node.port)).close()
        return True
    except OSError:
        return False


@case()
def test_library_waits_for_nodes_that_are_being_started():
    with Cluster(1) as c, Library() as p:
        node = c.node(1)
        p.open(1, node.address)
        p.query(1, "SELECT 1")
        node.kill()
        began = time.monotonic()
        p.tell("open", 0, f"lectern://{node.address}/?timeout=20000")
        c.restart(node)
        wait_for(lambda: listens(node), f"{node} listens")
        in_time = time.monotonic() - began < STARTING / 2000
        code = p.answer()["code"]
        expect(code == OK or not in_time, f"open while the node starts: {code}")
        c.wait_serving()
        # A cluster that was found once is waited for until the limit.
        node.kill()
        p.ask("timeout", 1, 20000)
        p.tell("query", 1, "SELECT 1")
        expect_silence(p, 3.0)
        c.restart(node)
        expect_equal(p.answer()["code"], DONE, "a read that began 3 s before its node did")


@case()
def test_library_says_what_is_wrong_with_an_address():
    nobody = f"127.0.0.1:{free_port()}"
    cases = ((nobody, (CANTOPEN,), nobody),
             ("no-such-host.invalid:7701", (CANTOPEN,), "no-such-host.invalid"),
             ("lectern://", (ERROR, CANTOPEN, MISUSE), ""),
             ("lectern://127.0.0.1:99999/", (ERROR, CANTOPEN, MISUSE), "99999"),
             ("lectern://127.0.0.1:1/?read=newest", (ERROR, CANTOPEN, MISUSE), "newest"),
             ("lectern://127.0.0.1:1/?colour=red", (ERROR, CANTOPEN, MISUSE), "colour"),
             ("lectern://127.0.0.1:1/?timeout=soon", (ERROR, CANTOPEN, MISUSE), "soon"),
             ("postgres://127.0.0.1/db", (ERROR, CANTOPEN, MISUSE), "postgres"),
             ("lectern://" + "h" * 5000, (ERROR, CANTOPEN, MISUSE), ""))
    with Library() as p:
        for url, codes, names in cases:
            if "timeout=" not in url and "?" not in url and len(url) < 100:
                url += ("" if "://" in url else "/") + "?timeout=1500"
            a = p.ask("open", 0, url, code=ANY)
            expect(a["code"] in codes, f"{url[:60]}: {a}")
            expect(names in a["message"] and len(a["message"]) > 20, f"{url[:60]}: {a['message']}")
            expect(a["took_ms"] < 1500 + SLACK_MS, f"{url[:60]} took {a['took_ms']} ms")
            print(f"{url[:60]}: {a['code']} {a['message']}")
            p.ask("close", 0)


@case()
def test_library_goes_past_bad_addresses():
    with Cluster() as c, Impostor(HTTP) as http, Impostor(None) as silent, Library() as p:
        bad = f"no-such-host.invalid:1,127.0.0.1:{free_port()},{http.address},{silent.address}"
        a = p.open(0, f"{bad},{c.node(1).address}")
        print(f"opened past four bad addresses in {a['took_ms']:.0f} ms")
        for _ in range(5):
            expect_equal(p.rows(0, "SELECT 1"), [[1]], "a read")
        c.check_alive()
