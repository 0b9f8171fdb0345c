"""What operators ask over HTTP: /health, /livez, /readyz, /leader, /nodes, /metrics, in each state
of a node; the names of the metrics are those of docs/METRICS.md, and deploy/ uses no others."""

import contextlib
import glob
import http.client
import json
import os
import re
import resource
import shutil
import socket
import subprocess

from tests.cluster.test_catchup import make, remove, wait_fetched
from tests.cluster.test_disk_errors import FaultyCluster
from tests.cluster.test_http_conn import GET, cpu_seconds, dial, hear
from tests.cluster.test_log_cut import SMALL
from tests.cluster.test_members import cluster as command
from tests.lib import metrics, promql
from tests.lib.cluster import (PATIENCE, ROOT, Cluster, Failure, case, expect, expect_equal,
                               expect_error, free_port, wait_for)
from tests.lib.metrics import get, scrape, value

PAGES = ("/health", "/livez", "/readyz", "/leader", "/nodes", "/metrics")
RULES = os.path.join(ROOT, "deploy/prometheus/lectern.rules.yml")
DASHBOARDS = glob.glob(os.path.join(ROOT, "deploy/grafana/*.json"))
ANYWHERE = {"job", "instance"}  # labels that Prometheus adds


def ask(node, path, wanted):
    """The text of an answer with that status."""
    status, _, text = get(node, path)
    expect_equal(status, wanted, f"{path} of {node} ({text.strip()})")
    return text


def wait_for_page(c, node, path, wanted, words=""):
    seen = []

    def found():
        try:
            status, _, text = get(node, path)
        except OSError:  # it does not listen yet
            return False
        seen[:] = [status, text]
        return status == wanted and words in text
    try:
        c.wait(found, f"{node} answers {path} with {wanted} and {words!r}")
    except Failure as e:
        raise Failure(f"{e}; it answers {seen}") from None


# --- each page, each state ------------------------------------------------------------------------


@case(short=True)
def test_pages_of_a_leader_and_of_followers():
    with Cluster(http=True, election_timeout=3000) as c:
        leader = c.leader()
        url = f"http://127.0.0.1:{leader.http_port}"
        for node in c.nodes:
            expect_equal(ask(node, "/health", 200), "ok\n", "health")
            expect_equal(ask(node, "/livez", 200), "ok\n", "livez")
            wait_for_page(c, node, "/readyz", 200, "ready\n")
            for query in ("noleader", "writes", "writes=1&noleader", "max_lag=60000"):
                wait_for_page(c, node, f"/readyz?{query}", 200, "ready\n")
            expect("max_lag" in ask(node, "/readyz?max_lag=soon", 400), "what is wrong")
            expect("max_lag" in ask(node, "/readyz?max_lag=-1", 400), "what is wrong")
            expect("max_lag" in ask(node, "/readyz?max_lag=" + "9" * 22, 400), "what is wrong")
            for slip in ("maxlag=5", "write", "writes&wirtes=1", "x" * 3000):
                expect("noleader, writes, max_lag" in ask(node, f"/readyz?{slip}", 400), slip)
            expect("none" in ask(node, "/leader?max_lag=5", 400), "none are there")
            expect("read, timeout" in ask(node, "/dump?table=t", 400), "what a dump knows")
            page = ask(node, "/", 200)
            for there in re.findall("^/[a-z]+|/livez", page, re.M):
                expect(get(node, there)[0] in (200, 503), f"the first page names {there}")
        expect_equal(ask(leader, "/leader", 200), "leader\n", "leader")
        for node in c.others(leader):
            c.wait(lambda n=node: get(n, "/leader")[1].get("lectern-leader") == url,
                   "a follower knows the leader's URL")
            before = scrape(node)
            expect_equal(ask(node, "/leader", 503), f"not the leader: it is {url}\n", "where")
            after = scrape(node)
            for name, labels in (("lectern_http_answers_total", {"status": "5xx"}),
                                 ("lectern_checks_refused_total", {})):
                expect_equal(value(after, name, **labels) - value(before, name, **labels), 1, name)


@case(seconds=60)
def test_members_that_were_never_heard():
    """A place for a node to come is no member that died, also when the leader began anew since."""
    with Cluster(http=True) as c:
        leader = c.leader()
        command(c, "add", f"127.0.0.1:{free_port()}")
        found = scrape(leader)
        for member, known in (("1", 1), ("2", 1), ("3", 1), ("4", 0)):
            expect_equal(value(found, "lectern_member_known", member=member), known, member)
            expect_equal(value(found, "lectern_member_reachable", member=member), known, member)
        gone = c.others(leader)[0]
        gone.kill()
        leader.kill()
        leader.start(c.members, c.settings)

        def members_of():
            with contextlib.suppress(OSError):
                found = scrape(leader)
                return value(found, "lectern_members", role="replica") == 1 and found
            return False
        found = c.wait(members_of, "it knows its members again")
        for member, known in ((str(gone.id), 1), ("4", 0)):
            expect_equal(value(found, "lectern_member_known", member=member), known, member)
            expect_equal(value(found, "lectern_member_reachable", member=member), 0, member)


@case(short=True)
def test_pages_answer_get_and_head_only():
    with Cluster(n=1, http=True) as c:
        for path in PAGES:
            status, headers, text = get(c.nodes[0], path, "HEAD")
            expect_equal((status, text), (200, ""), f"HEAD {path}")
            expect(int(headers["content-length"]) > 2, f"HEAD {path} tells the length")
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                status, headers, _ = get(c.nodes[0], path, method)
                expect_equal(status, 405, f"{method} {path}")
                expect_equal(headers["allow"], "GET, HEAD, OPTIONS", f"allow of {path}")
            expect_equal(get(c.nodes[0], path, "OPTIONS")[0], 204, f"OPTIONS {path}")


@case(short=True)
def test_nodes_tells_what_status_tells():
    with Cluster(http=True, election_timeout=3000) as c:
        with c.client() as q:
            q.query("CREATE TABLE t(a)")
        c.wait_equal()
        leader = c.leader()

        def settled():
            pages = [json.loads(ask(x, "/nodes", 200)) for x in c.nodes]
            same = {(n["sequence"], n["checksum"], n["applied_index"])
                    for p in pages for n in p["nodes"]}
            return len(same) == 1 and pages
        pages = c.wait(settled, "all nodes know the same of all")
        for node, page in zip(c.nodes, pages):
            expect_equal((page["node"], page["leader"], page["cluster"]), (node.id, leader.id, 1),
                         "whose page")
            with node.client() as q:
                rows = {r["node"]: r for r in q.status()}
            expect_equal({n["id"] for n in page["nodes"]}, {1, 2, 3}, "members")
            for n in page["nodes"]:
                row, of = rows[n["id"]], c.node(n["id"])
                for key, column in (("address", "address"), ("role", "role"), ("member", "member"),
                                    ("peer", "peer"), ("term", "term"), ("sequence", "seq"),
                                    ("checksum", "checksum"), ("state", "state"),
                                    ("version", "version"), ("repairs", "repairs")):
                    expect_equal(n[key], row[column], f"{key} of {n['id']} at {node}")
                expect_equal(n["http"], f"http://127.0.0.1:{of.http_port}", "its URL")
                expect_equal(n["self"], of is node, "self")
                expect_equal(n["serving"], of is leader, "serving")
                expect(n["reachable"] and n["lag"] == 0, f"{n}")


@case(seconds=60)
def test_a_leader_that_was_stopped_for_a_while_does_not_say_that_it_leads():
    """It does not know yet that it was replaced, but that nobody answers it."""
    with Cluster(http=True) as c:
        old = c.leader()
        asked = {path: http.client.HTTPConnection("127.0.0.1", old.http_port)
                 for path in ("/leader", "/readyz?writes", "/nodes", "/metrics")}
        for path, conn in asked.items():
            conn.request("GET", path)
            expect(conn.getresponse().read(), "it has accepted the connection")
        old.pause()
        c.wait(lambda: any((x.status() or {}).get("role") == "leader" for x in c.others(old)),
               "another leads")
        for path, conn in asked.items():
            conn.request("GET", path)
        old.resume()
        texts = {}
        for path, conn in asked.items():
            answer = conn.getresponse()
            texts[path] = (answer.status, answer.read().decode())
            conn.close()
        expect_equal(texts["/leader"][0], 503, texts["/leader"][1])
        expect_equal(texts["/readyz?writes"][0], 503, texts["/readyz?writes"][1])
        page = json.loads(texts["/nodes"][1])
        own = [n for n in page["nodes"] if n["self"]][0]
        expect(page["leader"] != old.id and own["role"] != "leader" and not own["serving"],
               f"{page}")
        m = metrics.parse(texts["/metrics"][1])
        expect_equal(value(m, "lectern_is_leader"), 0, "lectern_is_leader")
        c.wait_serving()


@case(seconds=90)
def test_pages_without_a_majority():
    with Cluster(http=True) as c:
        survivor = c.others(c.leader())[0]
        for node in c.others(survivor):
            node.kill()
        wait_for_page(c, survivor, "/readyz", 503, "there is no leader now")
        checks = value(scrape(survivor), "lectern_checks_refused_total")
        ask(survivor, "/readyz", 503)
        expect_equal(value(scrape(survivor), "lectern_checks_refused_total"), checks + 1, "checks")
        expect("not ready: there is no leader now" in ask(survivor, "/readyz?writes", 503), "why")
        ask(survivor, "/readyz?writes&noleader", 503)
        ask(survivor, "/readyz?noleader=0", 503)
        ask(survivor, "/readyz?noleader=1", 200)
        ask(survivor, "/readyz?noleader", 200)
        ask(survivor, "/health", 200)
        ask(survivor, "/livez", 200)
        status, headers, _ = get(survivor, "/leader")
        expect(status == 503 and "lectern-leader" not in headers, "nobody leads")
        wait_for_page(c, survivor, "/nodes", 200, '"state":"unreachable"')
        m = scrape(survivor)
        for name in ("lectern_has_leader", "lectern_is_leader", "lectern_ready"):
            expect_equal(value(m, name), 0, name)

        def gone():
            return [labels["member"] for _, labels, v in
                    scrape(survivor)["lectern_member_reachable"].samples if v == 0]
        c.wait(lambda: gone() == [str(x.id) for x in c.others(survivor)], "members that are gone")
        for node in c.others(survivor):
            c.restart(node)
        c.wait_serving()
        wait_for_page(c, survivor, "/readyz?writes", 200)


@case(seconds=120)
def test_pages_of_a_fetching_node():
    with Cluster(http=True, **SMALL) as c:
        make(c)
        victim = c.others(c.leader())[0]
        names = set(scrape(victim))
        victim.kill()
        remove("main.db", "main.db-wal", "main.db-shm")(victim)
        for node in c.others(victim):
            node.pause()  # nobody to fetch from
        victim.start(c.members, c.settings)
        wait_for(lambda: victim.status() is not None, "the node answers")
        for query in ("", "?noleader", "?writes"):
            expect("not ready: this node is fetching the database" in
                   ask(victim, f"/readyz{query}", 503), "why it is not ready")
        ask(victim, "/health", 200)
        ask(victim, "/livez", 200)
        ask(victim, "/leader", 503)
        page = json.loads(ask(victim, "/nodes", 200))
        own = [n for n in page["nodes"] if n["self"]]
        expect(len(own) == 1 and "fetching" in own[0]["state"], f"its own state: {own}")
        m = scrape(victim)
        expect_equal(set(m), names, "names of a node without a database")
        expect_equal((value(m, "lectern_fetching"), value(m, "lectern_ready")), (1, 0), "states")
        for node in c.others(victim):
            node.resume()
        wait_fetched(c, victim, 0)
        wait_for_page(c, victim, "/readyz", 200)
        expect_equal(value(scrape(victim), "lectern_fetching"), 0, "fetching")


@case(seconds=60)
def test_a_stopping_node_takes_no_more():
    """It is not in any balancer's pool from the first moment on, while it still hands over."""
    with Cluster(http=True) as c:
        leader = c.leader()
        wait_for_page(c, leader, "/readyz", 200)
        for node in c.others(leader):
            node.pause()  # nobody to hand over to
        leader.terminate()

        def refuses():
            try:
                return get(leader, "/readyz")[0] == 503
            except OSError:
                return True
        wait_for(refuses, "a stopping node is not ready")
        expect_equal(leader.wait_end(), 0, "exit status")
        for node in c.others(leader):
            node.resume()
        c.restart(leader)
        c.wait_serving()


@case(seconds=60)
def test_pages_of_a_removed_node():
    with Cluster(http=True) as c:
        victim = c.others(c.leader())[0]
        expect("is removed" in command(c, "remove", victim.id), "remove")
        wait_for_page(c, victim, "/readyz?noleader", 503, "removed from the cluster")
        ask(victim, "/health", 200)
        page = json.loads(ask(victim, "/nodes", 200))
        own = [n for n in page["nodes"] if n["self"]]
        expect(len(own) == 1 and own[0]["member"] is None, f"no member: {own}")
        expect_equal(value(scrape(victim), "lectern_members", role="voter"), 2, "voters")
        victim.stop()


@case(seconds=90)
def test_pages_of_a_failed_node():
    with FaultyCluster(http=True, repair=0) as c:
        make(c)
        victim = c.others(c.leader())[0]
        victim.fail(("EIO", "ws", "raft/*"))
        with c.client() as q:
            for i in range(20):
                q.query("INSERT INTO big(a) VALUES (?)", [i])
        wait_for_page(c, victim, "/readyz", 503, "not ready: this node stopped serving: ")
        ask(victim, "/readyz?noleader", 503)
        ask(victim, "/health", 200)
        ask(victim, "/leader", 503)
        m = scrape(victim)
        expect_equal((value(m, "lectern_failed"), value(m, "lectern_ready")), (1, 0), "states")
        expect_equal(value(m, "lectern_role", role="stopped"), 1, "role")
        victim.heal()
        victim.stop()
        c.restart(victim)
        wait_for_page(c, victim, "/readyz", 200)


# --- what the numbers say -------------------------------------------------------------------------


@case(short=True)
def test_metrics_count_what_happens():
    with Cluster(http=True, election_timeout=3000) as c:
        leader = c.leader()
        follower = c.others(leader)[0]
        with leader.client() as q:
            q.query("CREATE TABLE t(a)")
        before = scrape(leader)
        with leader.client() as q:
            for i in range(30):
                q.query("INSERT INTO t VALUES (?)", [i])
            for _ in range(7):
                q.query("SELECT count(*) FROM t", level="any")
            for _ in range(3):
                expect_error("SQL", lambda: q.query("INSERT INTO nowhere VALUES (1)"))
            q.query("BEGIN")
            q.query("INSERT INTO t VALUES (100)")
            now = scrape(leader)
            expect_equal(value(now, "lectern_transactions_open"), 1, "open transactions")
            q.query("COMMIT")
            q.query("BEGIN READONLY")
            expect_equal(value(scrape(leader), "lectern_snapshots_open"), 1, "read transactions")
            q.query("COMMIT")
        after = scrape(leader)

        def grew(name, **labels):
            return value(after, name, **labels) - value(before, name, **labels)
        expect_equal(grew("lectern_requests_total", door="native", kind="write"), 34, "writes")
        expect_equal(grew("lectern_requests_total", door="native", kind="read"), 7, "reads")
        expect_equal(grew("lectern_requests_total", door="native", kind="transaction"), 4, "BEGIN")
        expect_equal(grew("lectern_request_seconds_count", kind="write"), 34, "times of writes")
        expect_equal(grew("lectern_errors_total", code="SQL"), 3, "errors")
        expect_equal(grew("lectern_commits_total"), 31, "commits")
        expect_equal(grew("lectern_batch_requests_sum"), 31, "requests in commits")
        for stage in ("seal", "commit", "publish"):
            expect_equal(grew("lectern_write_stage_seconds_count", stage=stage), 31, stage)
        expect_equal(grew("lectern_write_stage_seconds_count", stage="queue"), 36, "queue")
        expect_equal(grew("lectern_read_stage_seconds_count", stage="queue"), 9, "reads")
        expect(grew("lectern_log_sync_seconds_count") > 0, "syncs")
        expect(grew("lectern_received_bytes_total", door="native") > 30 * 30, "bytes in")
        expect_equal(value(after, "lectern_transactions_open"), 0, "open transactions")
        expect_equal(value(after, "lectern_snapshots_open"), 0, "read transactions")
        expect_equal(value(after, "lectern_connections", kind="http"), 1, "this one")
        expect_equal(grew("lectern_http_answers_total", status="2xx"), 3, "answers of /metrics")
        c.wait_equal()
        expect(value(scrape(follower), "lectern_applied_entries_total") >= 32, "applied")


@case(short=True)
def test_metrics_of_what_is_passed_on():
    with Cluster(http=True, election_timeout=3000) as c:
        leader = c.leader()
        follower = c.others(leader)[0]
        with follower.client() as q:
            q.query("CREATE TABLE t(a)")
            for i in range(10):
                q.query("INSERT INTO t VALUES (?)", [i])
            here, there = scrape(follower), scrape(leader)
        expect_equal(value(here, "lectern_forwarded_total"), 11, "passed on")
        expect_equal(value(here, "lectern_requests_total", door="native", kind="write"), 11, "here")
        expect_equal(value(there, "lectern_requests_total", door="node", kind="write"), 11, "there")
        expect_equal(value(here, "lectern_connections", kind="node"), 1, "to the leader")
        expect(value(here, "lectern_sent_bytes_total", door="node") > 300, "bytes to the leader")

        # What a peak needed at the leader is given back.
        def sessions():
            return value(scrape(leader), "lectern_sessions")
        with follower.client() as q:
            streams = [q.stream() for _ in range(300)]
            for s in streams:
                s.begin("INSERT INTO t VALUES (1)")
            for s in streams:
                s.finish()
            expect(sessions() > 50, f"a peak of {sessions()} streams")
        c.wait(lambda: sessions() == 0, "the leader holds no stream of nobody's", 15)
        with follower.client() as q:
            q.query("INSERT INTO t VALUES (1)")


@case(short=True)
def test_metrics_of_what_comes_over_http():
    with Cluster(n=1, http=True) as c:
        node = c.nodes[0]
        before = scrape(node)
        sqls = ("CREATE TABLE t(a)", "INSERT INTO t VALUES (1)", "SELECT * FROM t", "SELECT nil")
        body = json.dumps({"requests": [{"type": "execute", "stmt": {"sql": s}} for s in sqls]})
        status, _, text = get(node, "/v2/pipeline", "POST", body)
        expect_equal(status, 200, f"pipeline: {text}")
        after = scrape(node)

        def grew(name, **labels):
            return value(after, name, **labels) - value(before, name, **labels)
        expect_equal(grew("lectern_requests_total", door="http", kind="write"), 2, "writes")
        expect_equal(grew("lectern_requests_total", door="http", kind="read"), 2, "reads")
        expect_equal(grew("lectern_errors_total", code="SQL"), 1, "errors")
        expect(grew("lectern_received_bytes_total", door="http") > len(body), "bytes in")
        expect(grew("lectern_sent_bytes_total", door="http") > len(text), "bytes out")
        expect_equal(grew("lectern_accepted_total", door="http"), 2, "connections")
        get(node, "/nothing")
        expect_equal(value(scrape(node), "lectern_http_answers_total", status="4xx"), 1, "404")
        for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
                        b"GET / HTTP/3.1\r\nhost: h\r\n\r\n",
                        b"EAT / HTTP/1.1\r\nhost: h\r\n\r\n"):
            with dial(node) as s:
                s.sendall(garbage)
                hear(s, b"\r\n\r\n")
        last = scrape(node)
        answers = value(last, "lectern_http_answers_total", status="5xx")
        expect(answers >= 2, f"{answers} answers to garbage")
        expect_equal(value(last, "lectern_http_foreign_total"), answers, "not ours to mend")


@case(short=True)
def test_metrics_of_connections_and_their_limits():
    with Cluster(n=1, http=True, http_connections=3, max_connections=2) as c:
        node = c.nodes[0]
        found = scrape(node)
        for kind, limit in (("native", 2), ("http", 3)):
            expect_equal(value(found, "lectern_connections_limit", kind=kind), limit, kind)
            expect_equal(value(found, "lectern_connections_refused_total", door=kind), 0, kind)
        with contextlib.ExitStack() as stack:
            asker = http.client.HTTPConnection("127.0.0.1", node.http_port)
            asker.request("GET", "/livez")  # it has its place before the others come
            asker.getresponse().read()
            for _ in range(2):
                stack.enter_context(dial(node))
            for _ in range(4):
                with dial(node) as s:
                    s.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
                    hear(s, b"http-connections")
            native = [stack.enter_context(socket.create_connection(("127.0.0.1", node.port)))
                      for _ in range(5)]
            for s in native[2:]:
                expect(s.recv(1 << 16), "a refusal")
            asker.request("GET", "/metrics")
            found = metrics.parse(asker.getresponse().read().decode())
            asker.close()
        expect_equal(value(found, "lectern_connections_refused_total", door="http"), 4, "http")
        expect_equal(value(found, "lectern_connections_refused_total", door="native"), 3, "native")


@case(seconds=90)
def test_lag_is_seen_and_ends():
    with Cluster(http=True, election_timeout=3000, heartbeat=200) as c:
        leader = c.leader()
        slow, other = c.others(leader)
        with leader.client() as q:
            q.query("CREATE TABLE t(a)")
            c.wait_equal()
            slow.pause()
            for i in range(20):
                q.query("INSERT INTO t VALUES (?)", [i])

        def behind():
            m = scrape(leader)
            return (value(m, "lectern_member_lag_seconds", member=str(slow.id)) > 1 and
                    value(m, "lectern_member_lag_entries", member=str(slow.id)) >= 20)
        c.wait(behind, "the leader sees that a member is behind")
        c.wait(lambda: behind() and value(scrape(leader), "lectern_member_lag_seconds",
                                          member=str(other.id)) < 1, "the other one is not behind")
        slow.resume()
        for node in c.nodes:
            c.wait(lambda n=node: value(scrape(n), "lectern_lag_seconds") < 1 and
                   value(scrape(n), "lectern_lag_entries") == 0, f"{node} has all")
        c.wait(lambda: value(scrape(leader), "lectern_member_lag_seconds",
                             member=str(slow.id)) < 1, "the leader sees that")
        # Idle nodes tell each other a few times a second: in between, a state is some ms old.
        wait_for_page(c, slow, "/readyz?max_lag=0", 503, "behind: its state is")


@case(seconds=120)
def test_metrics_with_ten_thousand_connections():
    many = 10000
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (many + 500, limit[1]))
    with Cluster(n=1, http=True, http_connections=many + 1, max_connections=1000) as c:
        node = c.nodes[0]
        guests = []
        for _ in range(many - 1):
            s = dial(node)
            s.sendall(GET)
            guests.append(s)
            hear(s, b"lectern ")
        with dial(node) as s:
            took = cpu_seconds(node)
            for _ in range(200):
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
                text = hear(s, b"\nlectern_uptime_seconds ")
            took = (cpu_seconds(node) - took) * 1000 / 200
        expect(f'lectern_connections{{kind="http"}} {many}\n'.encode() in text, "all are counted")
        print(f"/metrics with {many} connections: {took:.2f} ms of CPU")
        expect(took < 5 * PATIENCE, f"/metrics took {took:.2f} ms of CPU")
        for s in guests:
            s.close()


# --- names ----------------------------------------------------------------------------------------


def documented():
    """{name: (type, words)} of docs/METRICS.md."""
    with open(os.path.join(ROOT, "docs/METRICS.md"), encoding="utf-8") as f:
        rows = re.findall(r"^\| `(lectern_\w+)` \| (\w+) \| (.*) \|$", f.read(), re.M)
    expect_equal(len(rows), len({name for name, _, _ in rows}), "names, each once")
    return {name: (kind, words) for name, kind, words in rows}


@case(short=True)
def test_names_are_those_of_the_document():
    table = documented()
    with Cluster(http=True) as c:
        for node in c.nodes:
            found = scrape(node)
            expect_equal({n: f.type for n, f in found.items()},
                         {n: kind for n, (kind, _) in table.items()}, f"names of {node}")
            for name, family in found.items():
                kind, words = table[name]
                told = set(re.findall(r"`(\w+)`", words))
                for label in family.labels():
                    expect(label in told, f"docs/METRICS.md does not tell of {label} of {name}")
                expect(kind != "histogram" or name.endswith(("_seconds", "_requests")),
                       f"the unit of {name}")


def check_expression(where, text, found):
    """Each name and each label of TEXT is one that /metrics has."""
    selectors, names = promql.read(text)
    labels = {"le"} | ANYWHERE
    for s in selectors:
        if s.name == "up":
            continue
        family = found.get(s.name) or found.get(re.sub(r"_(bucket|sum|count)$", "", s.name))
        expect(family and any(n == s.name for n, _, _ in family.samples),
               f"{where}: there is no {s.name}")
        labels |= family.labels()
        for label, sign, wanted in s.matchers:
            expect(label in family.labels() | ANYWHERE, f"{where}: {s.name} has no label {label}")
            if label in ANYWHERE:
                continue
            have = {v[label] for _, v, _ in family.samples}
            for one in wanted.split("|") if "~" in sign else [wanted]:
                expect(one in have, f"{where}: {s.name} has no {label}={one}; it has {have}")
        counts = family.type == "counter" or s.name != family.name
        expect(s.function in ("rate", "increase") if counts or s.function == "rate" else
               s.function in ("", "changes") and not counts, f"{where}: {s.function} of {s.name}")
    for label in names:
        expect(label in labels, f"{where}: by or on {label}, which nothing has")


def read_rules():
    """The alerts, by the subset of YAML that the file is written in."""
    alerts, inner = [], None
    with open(RULES, encoding="utf-8") as f:
        lines = [line.rstrip("\n") for line in f if line.strip() and not line.startswith("#")]
    expect_equal(lines[:3], ["groups:", "  - name: lectern", "    rules:"], "the head of the rules")
    for line in lines[3:]:
        m = re.fullmatch(r"(      - |        |          )(\w+):(?: (.+))?", line)
        expect(m, f"{RULES}: {line!r}")
        indent, key, text = m.groups()
        if text and text.startswith('"'):
            text = json.loads(text)
        else:  # a plain scalar: nothing in it may mean something else
            expect(not text or not re.search(r": | #|^[\[{&*!|>'%@`]", text), f"quote {line!r}")
        if indent.startswith("      - "):
            expect_equal(key, "alert", "the first key of a rule")
            alerts.append({})
        expect(key not in (inner if len(indent) == 10 else alerts[-1]), f"{key} twice: {line!r}")
        if len(indent) == 10:
            inner[key] = text
        else:
            alerts[-1][key] = inner = {} if text is None else text
    return alerts


def sections_of(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return re.findall(r"^## (.*)$", f.read(), re.M)


def check_texts(alert, text, sections):
    """Numbers as people read them, and places that there are."""
    raw = re.findall(r"{{ *\$value *}}", text)
    expect_equal(raw, [], f"{alert}: a number with all its digits")
    for place in re.findall(r"OPERATING, (.*?)(?:, what to do)?\.", text):
        expect(place in sections, f"{alert}: OPERATING has no section {place!r}")


def panels_of(panels):
    for p in panels:
        yield p
        yield from panels_of(p.get("panels", []))


def unit_of(panel, target):
    config = panel["fieldConfig"]
    own = {o["matcher"]["options"]: o["properties"][0]["value"] for o in config["overrides"]}
    return own.get(target["refId"], config["defaults"].get("unit"))


def check_unit(panel, target):
    """Bytes and seconds are shown as such, and rates of bytes as rates."""
    asked, unit = target["expr"], unit_of(panel, target)
    if "_bytes_total" in asked:
        wanted = "Bps"
    elif "_bytes" in asked:
        wanted = "bytes"
    elif "_seconds" in asked and "_cpu_seconds" not in asked:
        wanted = "s"
    else:
        wanted = unit if unit in ("short", "ops", "percentunit") else "short"
    expect_equal(unit, wanted, f"the unit of {asked}")


def dashboard_expressions(board):
    for p in panels_of(board["panels"]):
        if p["type"] == "row":
            continue
        expect(p["targets"] and p["title"] and p["description"], f"panel {p['id']}")
        for t in p["targets"]:
            check_unit(p, t)
            yield f"{board['title']}: {p['title']}", t["expr"], t["legendFormat"]
    for a in board["annotations"]["list"]:
        yield f"{board['title']}: {a['name']}", a["expr"], a["textFormat"]


@case(short=True)
def test_dashboard_and_alerts_ask_for_what_there_is():
    with Cluster(http=True) as c:
        found = scrape(c.leader())
    alerts, sections = read_rules(), sections_of("docs/OPERATING.md")
    expect(len(alerts) > 10, f"{len(alerts)} alerts")
    expect_equal(len({r["alert"] for r in alerts}), len(alerts), "alerts, each once")
    for r in alerts:
        expect(set(r) <= {"alert", "expr", "for", "labels", "annotations"}, f"keys of {r}")
        expect(r["labels"]["severity"] in ("page", "ticket"), f"severity of {r['alert']}")
        expect(set(r["annotations"]) == {"summary", "description"}, f"texts of {r['alert']}")
        check_texts(r["alert"], " ".join(r["annotations"].values()), sections)
        check_expression(r["alert"], r["expr"], found)
    asked = 0
    expect(DASHBOARDS, "a dashboard")
    for path in DASHBOARDS:
        with open(path, encoding="utf-8") as f:
            board = json.load(f)
        ids = [p["id"] for p in panels_of(board["panels"])]
        expect_equal(len(ids), len(set(ids)), "ids of panels")
        rows = [p["title"] for p in board["panels"] if p["type"] == "row"]
        expect_equal(rows, ["Cluster", "Writes", "Reads", "Storage", "Clients"], "rows")
        for where, text, legend in dashboard_expressions(board):
            expr = text.replace("$__rate_interval", "5m").replace("$instance", ".*")
            check_expression(where, expr, found)
            for label in re.findall(r"{{(\w+)}}", legend):
                expect(label in text or label == "instance", f"{where}: {label} in the legend")
            asked += 1
    expect(asked > 50, f"{asked} questions in the dashboards")


def test_alerts_as_prometheus_reads_them():
    """promtool (Debian's package prometheus): the rules are right, and fire when they should."""
    if shutil.which("promtool") is None:
        print("skipped: no promtool here (apt install prometheus): the alerts were not tried")
        return
    tests = RULES.replace(".yml", ".test.yml")
    for command in (["check", "rules", RULES], ["test", "rules", tests]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        expect(done.returncode == 0, done.stdout + done.stderr)


def test_what_reads_promql_refuses_what_is_wrong():
    promql.read('histogram_quantile(0.9, sum by (le) (rate(a_bucket{x="1",y=~"2|3"}[5m]))) > 0.5')
    for wrong in ('rate(a_total)', 'sum by (le (a)', 'a{x=1}', 'a{x="1}', 'a >', 'nothing(a)', '1',
                  'histogram_quantile(0.9, sum by (le) (rate(a[5m])))', 'a b', 'a[x]', 'rate(a[5])',
                  'histogram_quantile(0.9, sum(rate(a_bucket[5m])))'):
        try:
            promql.read(wrong)
        except AssertionError:
            continue
        raise AssertionError(f"{wrong!r} was read")


def test_what_reads_metrics_refuses_what_is_wrong():
    good = '# HELP a_total x\n# TYPE a_total counter\na_total{b="c"} 1\n'
    metrics.parse(good)
    for wrong in (good[:-1], good + good, good + 'a_total{b="c"} 2\n', good + "b 1\n",
                  good.replace("counter", "gauge"), good.replace(" 1", " -1"),
                  good.replace('"c"', "c"), good + "# HELP b x\n# TYPE b gauge\n",
                  '# HELP h x\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 2\n'):
        try:
            metrics.parse(wrong)
        except (AssertionError, ValueError, AttributeError):
            continue
        raise AssertionError(f"{wrong!r} was read")
