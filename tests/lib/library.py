"""Programs on liblectern (tests/programs/), driven from Python.

    with Library() as p:
        p.open(0, cluster.addresses())
        p.query(0, "INSERT INTO t VALUES (?)", 5)
        p.ask("exec", 0, "SELECT 1", code=None)   # any result code is fine

Every answer is a dict: code, name, extended, message, changes, rowid, position, address, took_ms...
A call that takes longer than its limit makes the test fail: no call of the library hangs.
"""

import contextlib
import json
import os
import queue
import subprocess
import threading

from tests.lib.cluster import BUILD, HANG, Failure, expect, expect_equal

OK, ERROR, ABORT, BUSY, INTERRUPT, CANTOPEN, PROTOCOL = 0, 1, 4, 5, 9, 14, 15
CONSTRAINT, MISUSE, ROW, DONE = 19, 21, 100, 101
UNKNOWN, TXN_LOST, UNAVAILABLE, TIMEOUT, ROWS_LOST = 64, 65, 66, 67, 68
ANY = object()


def escaped(text):
    return str(text).replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def param(value):
    if value is None:
        return "n"
    if isinstance(value, bytes):
        return "b" + value.hex()
    return {int: "i", float: "f"}.get(type(value), "t") + str(value)


class Library:
    """One process of tests/programs/NAME. Answers are read by a thread: a hang is a failure."""

    def __init__(self, name="driver", *arguments, build=BUILD, seconds=60.0):
        self.seconds = seconds * HANG
        path = os.path.join(build, "programs", name)
        self.process = subprocess.Popen([path, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.errors = ""
        self.error_reader = threading.Thread(target=self._read_errors, daemon=True)
        self.error_reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors += line

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _trace):
        if kind is not None:
            self.process.kill()
        self.end()

    def end(self):
        """Ends the program as a user's program ends; sanitizers have their say."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            status = self.process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure("the program did not end") from None
        self.reader.join()
        self.error_reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        expect(status in (0, -9), f"the program ended with {status}: {self.errors}")

    def tell(self, command, *arguments):
        """Sends a command; answer() has what it says."""
        line = "\t".join([command, *map(escaped, arguments)])
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failure(f"the program ended: {self.process.wait()} {self.errors}") from None

    def answer(self, seconds=None):
        try:
            line = self.lines.get(timeout=seconds or self.seconds)
        except queue.Empty:
            raise Failure(f"no answer within {seconds or self.seconds:.0f} s: the call hangs") \
                from None
        if line is None:
            raise Failure(f"the program ended: {self.process.wait()} {self.errors}")
        return json.loads(line)

    def ask(self, command, *arguments, code=OK, seconds=None):
        """Sends a command and returns its answer, whose code must be CODE (ANY: whatever)."""
        self.tell(command, *arguments)
        a = self.answer(seconds)
        if code is not ANY:
            expect_equal(a["code"], code, f"code of {command} {arguments} ({a.get('message')})")
        return a

    # Short forms.

    def open(self, session, url, code=OK, **options):
        text = url if "://" in str(url) else f"lectern://{url}/"
        if options:
            text += "?" + "&".join(f"{k}={v}" for k, v in options.items())
        return self.ask("open", session, text, code=code)

    def query(self, session, sql, *params, code=DONE):
        return self.ask("query", session, sql, *map(param, params), code=code)

    def rows(self, session, sql, *params):
        return self.query(session, sql, *params)["rows"]
