"""Writers that number what they write, and remember what they were told.

Each write is one row (writer, number) in `numbered`, which has no unique index on purpose: a write
that was done twice shows. Afterwards check() compares the table with the answers:

    acknowledged            exactly once
    unknown, or no answer   at most once
    refused                 not at all
"""

import collections
import threading
import time

from tests.lib.cluster import HANG, PATIENCE, expect
from tests.lib.lectern_client import BadFrame, Client, ConnectionLost, LecternError

TABLE = "CREATE TABLE numbered(id INTEGER PRIMARY KEY, writer INT, number INT, filler TEXT)"


class Writers:
    """Threads that write as fast as they get answers, each to the next address when one fails.

        with Writers(cluster.nodes, 4) as w: ...kill somebody...
        w.check(node)
    """

    def __init__(self, nodes, n=4, filler=20, pause=0.0, first=1):
        self.addresses = [("127.0.0.1", x.port) for x in nodes]
        self.filler, self.pause = "x" * filler, pause
        self.lock = threading.Lock()
        self.answers = {}  # (writer, number) -> "ok", "unknown" or "refused"
        self.times = []    # when each acknowledgement came, monotonic
        self.errors = collections.Counter()
        self.crashed = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._guard, args=(first + i,), daemon=True)
                        for i in range(n)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_exc):
        self.stop()

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(60 * HANG)
            expect(not t.is_alive(), "a writer got no answer within its deadline")
        if self.crashed:
            raise self.crashed[0]

    @property
    def acknowledged(self):
        return len(self.times)

    def _guard(self, writer):
        try:
            self._run(writer)
        except BaseException as e:  # pylint: disable=broad-except
            self.crashed.append(e)  # raised again by stop()

    def _run(self, writer):
        number, at, client = 0, writer, None
        while not self.stopping.is_set():
            if client is None:
                at += 1
                try:
                    client = Client(*self.addresses[at % len(self.addresses)],
                                    socket_timeout=20.0 * PATIENCE)
                except (ConnectionLost, LecternError, BadFrame):
                    self.stopping.wait(0.02)
                    continue
            number += 1
            outcome, client = self._write(client, writer, number)
            with self.lock:
                self.answers[writer, number] = outcome
                if outcome == "ok":
                    self.times.append(time.monotonic())
            if self.pause or outcome != "ok":
                self.stopping.wait(self.pause or 0.02)
        if client is not None:
            client.close()

    def _write(self, client, writer, number):
        """Sends one write once; (outcome, the connection to go on with or None)."""
        try:
            client.query("INSERT INTO numbered(writer, number, filler) VALUES (?, ?, ?)",
                         (writer, number, self.filler))
            return "ok", client
        except LecternError as e:
            self._count(e.name)
            client.close()
            return ("unknown" if e.name == "UNKNOWN" else "refused"), None
        except (ConnectionLost, BadFrame) as e:
            self._count(type(e).__name__)
            client.close()
            return "unknown", None

    def _count(self, name):
        with self.lock:
            self.errors[name] += 1

    def gap(self):
        """The longest time without an acknowledgement, in seconds."""
        return max((b - a for a, b in zip(self.times, self.times[1:])), default=0.0)

    def check(self, node):
        """Compares what NODE's database holds with what the clients were told."""
        writers = {w for w, _ in self.answers}
        found = {(w, n): count for w, n, count in node.read(
            "SELECT writer, number, count(*) FROM numbered GROUP BY 1, 2") if w in writers}
        problems = []
        for key, outcome in sorted(self.answers.items()):
            count = found.pop(key, 0)
            allowed = {"ok": (1,), "unknown": (0, 1), "refused": (0,)}[outcome]
            if count not in allowed:
                problems.append(f"writer {key[0]} number {key[1]}: {outcome}, there {count} times")
        problems += [f"writer {w} number {n}: there, never sent" for w, n in found]
        expect(not problems, lambda: f"{node}: {len(problems)} wrong of {len(self.answers)}: "
               + "; ".join(problems[:10]))
        expect(self.acknowledged > 0, "no write was acknowledged at all")
