#!/usr/bin/env python3
"""Runs tests of all kinds beside each other; the last line is the sum, `N passed, N failed`.

    tests/run.py [--jobs N] [--only TEXT] [--list] JOB...

    unit:DIR[:ROOM,...]   the programs DIR/tests/check-*; each counts with its own tests
    cluster:DIR           functions test_* of tests/cluster/test_*.py against DIR/lecternd
    cluster-short:DIR     of these, the ones marked @case(short=True): for the slow builds
    faults:DIR, power:DIR the same for tests/faults/, tests/power/

Each Python test is a process of its own with an empty directory and a time limit (@case(seconds=N),
stretched for slow machines and builds). A process that outlives its test is ended and makes the
test fail. Output is shown for failures only, but for a line `skipped: REASON` of a test that needs
what is not here.
"""

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNIT_SECONDS = 1200
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)
# A sanitizer's report must end the process, so that no test can overlook it. ThreadSanitizer of
# gcc 12 needs the addresses as they were before kernel 6.6 (setarch; a test's nodes inherit it).
SANITIZER_ENV = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:"
                    f"suppressions='{ROOT}/tests/lib/tsan.supp'",
}

sys.path.insert(0, ROOT)


class Job:
    """One process whose output decides: `tests` (passed, failed) are counted after run()."""

    def __init__(self, name, command, seconds, weight=1, env=None):
        self.name, self.command, self.seconds, self.weight = name, command, seconds, weight
        self.env = env or {}
        self.passed = self.failed = 0
        self.text, self.took = "", 0.0

    def run(self):
        began = time.monotonic()
        directory = tempfile.mkdtemp(prefix="lectern-job-")
        # HOME: the shell of a test must not write into the developer's own history.
        env = {**os.environ, **SANITIZER_ENV, **self.env, "TMPDIR": directory, "HOME": directory}
        with open(os.path.join(directory, "output"), "w+b") as out:
            process = subprocess.Popen(self.command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                status = process.wait(self.seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)  # the test says where it stands
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                status = f"no end after {self.seconds} s"
            out.seek(0)
            self.text = out.read().decode(errors="replace")
        left = end_leftovers(directory)
        shutil.rmtree(directory, ignore_errors=True)
        self.took = time.monotonic() - began
        self.judge(status, left)

    def judge(self, status, left):
        found = SUMMARY.findall(self.text)
        if found:
            self.passed, self.failed = map(int, found[-1])
        if status != 0 and self.failed == 0:
            self.failed += 1
            self.text += f"\nended with {status} although no test is reported as failed\n"
        if not found and status == 0:
            self.failed += 1
            self.text += "\nprinted no summary line\n"
        if left:
            self.failed += 1
            self.text += "\nleft behind: " + "; ".join(left) + "\n"

    def note(self):
        return ""

    def excerpt(self):
        """What to show of a failed unit program: the failures with their output."""
        tests, kept = re.split(r"^(?=ok  |FAIL )", self.text, flags=re.M), []
        for text in tests[1:]:
            if text.startswith("FAIL"):
                lines = text.splitlines()
                kept += lines if len(lines) <= 80 else lines[:40] + ["    ..."] + lines[-39:]
        return "\n".join(kept or self.text.splitlines()[-40:])


SKIPPED = re.compile(r"^skipped: .*$", re.M)


class PythonJob(Job):
    def judge(self, status, left):
        self.passed, self.failed = 1, 0
        if status != 0:
            self.passed, self.failed = 0, 1
            self.text += f"\nended with {status}\n"
        elif left:
            self.passed, self.failed = 0, 1
            self.text += "\nleft behind: " + "; ".join(left) + "\n"

    def note(self):
        found = SKIPPED.search(self.text)
        return f", {found.group(0)}" if found else ""

    def excerpt(self):
        return self.text[-20000:]


def end_leftovers(directory):
    """Ends processes that still name DIRECTORY in their arguments, and returns them as text."""
    left = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                command = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if directory in command and int(pid) != os.getpid():
            left.append(f"{pid} {command[:120]}")
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                left.pop()
    return left


def prefix(directory):
    return ["setarch", "-R"] if "tsan" in directory and shutil.which("setarch") else []


def unit_jobs(directory, rooms):
    tests = os.path.join(ROOT, directory, "tests")
    names = sorted(os.listdir(tests)) if os.path.isdir(tests) else []
    programs = [n for n in names if n.startswith("check-") and "." not in n]
    if rooms:
        programs = [n for n in programs if n[len("check-"):] in rooms.split(",")]
    return [Job(f"{directory}/tests/{n}",
                prefix(directory) + [os.path.join(directory, "tests", n)],
                UNIT_SECONDS) for n in programs]


def load(path):
    spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_jobs(folder, directory, short):
    jobs = []
    for name in sorted(os.listdir(os.path.join(ROOT, "tests", folder))):
        if not re.fullmatch(r"test_\w+\.py", name):
            continue
        path = os.path.join("tests", folder, name)
        for test, function in vars(load(os.path.join(ROOT, path))).items():
            if not test.startswith("test_") or not callable(function):
                continue
            marks = getattr(function, "marks", {})
            if short and not marks.get("short"):
                continue
            slower = 9 if short else 3  # as HANG of tests/lib/cluster.py: only what hangs needs it
            jobs.append(PythonJob(f"{directory} {path}::{test}",
                                  prefix(directory) +
                                  [sys.executable, "tests/run.py", "--one", f"{path}::{test}"],
                                  marks.get("seconds", 60) * slower, marks.get("weight", 1),
                                  {"LECTERN_BUILD": directory}))
    return jobs


def parse(job):
    kind, _, rest = job.partition(":")
    directory, _, rooms = rest.partition(":")
    if kind == "unit":
        return unit_jobs(directory, rooms)
    if kind in ("cluster", "cluster-short", "faults", "power"):
        return python_jobs(kind.replace("-short", ""), directory, kind == "cluster-short")
    sys.exit(f"run.py: unknown kind of job {kind!r}")


def run_one(which):
    """Inside the test's own process."""
    path, _, name = which.partition("::")
    # SIGTERM is the time limit: raise, so that the test's clean-up and its logs still happen.
    def on_term(_number, _frame):
        raise TimeoutError("time limit")
    signal.signal(signal.SIGTERM, on_term)
    vars(load(os.path.join(ROOT, path)))[name]()


def run_all(jobs, slots):
    """Runs jobs side by side, at most SLOTS of weight; heavy and long ones first."""
    waiting = sorted(jobs, key=lambda j: (-j.weight, -j.seconds))
    free, lock = [slots], threading.Condition()

    def work(job):
        try:
            job.run()
        finally:
            with lock:
                print(f"{'ok  ' if job.failed == 0 else 'FAIL'} {job.name}: {job.passed} passed, "
                      f"{job.failed} failed ({job.took:.1f} s){job.note()}", flush=True)
                if job.failed:
                    print("    " + job.excerpt().strip().replace("\n", "\n    "), flush=True)
                free[0] += min(job.weight, slots)
                lock.notify_all()

    threads = []
    while waiting:
        with lock:
            job = next((j for j in waiting if min(j.weight, slots) <= free[0]), None)
            if job is None:
                lock.wait()
                continue
            waiting.remove(job)
            free[0] -= min(job.weight, slots)
        threads.append(threading.Thread(target=work, args=(job,)))
        threads[-1].start()
    for t in threads:
        t.join()


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    cpus = os.cpu_count() or 1
    # Most of the time tests wait: for elections, disks, limits. Two at a time use 1 of 2 CPUs.
    options.add_argument("--jobs", type=int, default=max(2, cpus + cpus // 2))
    options.add_argument("--only", action="append",
                         help="run the jobs whose name contains this; may be given again")
    options.add_argument("--list", action="store_true")
    options.add_argument("--one", help=argparse.SUPPRESS)
    options.add_argument("job", nargs="*")
    given = options.parse_args()
    if given.one:
        return run_one(given.one)
    jobs = [j for text in given.job for j in parse(text)]
    if given.only:
        jobs = [j for j in jobs if any(text in j.name for text in given.only)]
    if given.list:
        print("\n".join(j.name for j in jobs))
        return None
    began = time.monotonic()
    run_all(jobs, given.jobs)
    passed, failed = sum(j.passed for j in jobs), sum(j.failed for j in jobs)
    if not jobs:
        print("nothing to run")
        failed = 1
    bad = [j.name for j in jobs if j.failed]
    if bad:
        print("failed:\n    " + "\n    ".join(bad))
    print(f"{len(jobs)} jobs in {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
