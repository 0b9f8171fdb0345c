#!/usr/bin/env python3
"""Runs cluster tests on a machine that stands still now and then: no test may fail by that.

    tests/stalls.py [--stall SECONDS] [--every SECONDS] [--one] [--seed N] ARGUMENTS OF run.py...

All processes of a test are stopped at once and go on together; with --one only a node of it,
chosen by lot. Who is stopped already (tests pause nodes, too) is left as it is. A stall that is
longer than the election timeout of a test's nodes elects another leader: what fails then is to be
judged.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run.py")


def processes():
    """Of each process: its parent, its state, its name."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii",
                                                errors="replace") as f:
            name, rest = f.read().split("(", 1)[1].rsplit(")", 1)
            state, parent = rest.split()[:2]
            found[int(pid)] = int(parent), state, name
    return found


def tree(found, root):
    """ROOT, its children, theirs: who started comes before who was started."""
    out = [root]
    for pid in out:
        out += [p for p, (parent, _, _) in found.items() if parent == pid]
    return out


def send(pids, what):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def stall(found, test, given):
    stopped = [p for p in tree(found, test) if found[p][1] not in "TtZ"]
    if given.one:
        nodes = [p for p in stopped if found[p][2].startswith("lecternd")]
        stopped = random.sample(nodes, min(1, len(nodes)))
    try:
        send(stopped, signal.SIGSTOP)
        time.sleep(given.stall if stopped else 0)
    finally:
        send(stopped, signal.SIGCONT)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--stall", type=float, default=0.7)
    parser.add_argument("--every", type=float, default=3.0)
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    given, arguments = parser.parse_known_args()
    print(f"stalls of {given.stall} s, seed {given.seed}", flush=True)
    random.seed(given.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    due = {}
    with subprocess.Popen([sys.executable, RUN, *arguments]) as run:
        try:
            while run.poll() is None:
                time.sleep(0.02)
                found = processes()
                for test in [p for p, (parent, _, _) in found.items() if parent == run.pid]:
                    due.setdefault(test, time.monotonic() + random.uniform(0, given.every))
                    if due[test] < time.monotonic():
                        stall(found, test, given)
                        due[test] = time.monotonic() + random.uniform(0.3, 1.7) * given.every
        finally:
            if run.poll() is None:  # interrupted: the tests clean up
                send(tree(processes(), run.pid), signal.SIGTERM)
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
