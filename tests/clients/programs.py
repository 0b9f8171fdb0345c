"""Programs of others' drivers: their packages from the npm registry, once, and running them.

The packages go to build/clients (package.json and package-lock.json here say which, to the byte);
programs are run from copies beside a link to them, for that is where Node looks.
"""

import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

from tests.lib.cluster import HANG, Failure

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "clients")
# Without the installation scripts of the packages, and nothing is sent to anybody.
INSTALL = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
INSTALL_SECONDS = 300
# What npm says when the registry, or the way to it, is at fault, and not what was asked for.
NO_REGISTRY = re.compile(r"\b(ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|ECONNRESET|"
                         r"ETIMEDOUT|ERR_SOCKET_TIMEOUT|EPROTO|E429|E5\d\d)\b")


def wanted():
    """Of the files that say what is to be installed."""
    digest = hashlib.sha256()
    for name in ("package.json", "package-lock.json"):
        with open(os.path.join(HERE, name), "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def read(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def node_version():
    text = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return int(text.lstrip("v").split(".")[0])


def install(oldest=18):
    """None when the packages are there, and Node is OLDEST or newer; else why not, in a sentence.
    Several tests may ask at once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not here: deploy/install-deps.sh --clients installs them"
    if node_version() < oldest:
        return f"this needs Node {oldest} or newer: here is {node_version()}"
    os.makedirs(PACKAGES, exist_ok=True)
    mark, refused = os.path.join(PACKAGES, "installed"), os.path.join(PACKAGES, "refused")
    run = f"in the run {os.getppid()}: "
    with open(os.path.join(PACKAGES, "lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read(mark) == wanted():
            return None
        if read(refused).startswith(run):  # the others of this run need not wait for it, too
            return read(refused)[len(run):]
        for name in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(HERE, name), PACKAGES)
        try:
            done = subprocess.run(INSTALL, cwd=PACKAGES, stdin=subprocess.DEVNULL, check=False,
                                  capture_output=True, text=True, timeout=INSTALL_SECONDS)
            missing = None
        except subprocess.TimeoutExpired:
            missing = f"npm ci did not end within {INSTALL_SECONDS} s"
        else:
            fault = NO_REGISTRY.search(done.stderr)
            if done.returncode != 0 and fault is None:
                raise Failure(f"npm ci: {done.stderr[-4000:]}")
            if done.returncode != 0:
                missing = f"no package registry can be reached: {fault.group(0)}"
        with open(refused if missing else mark, "w", encoding="utf-8") as f:
            f.write(run + missing if missing else wanted())
    return missing


def are_here(oldest=18):
    """Whether install() misses nothing; what it misses is said where the runner of tests looks."""
    missing = install(oldest)
    if missing is not None:
        print(f"skipped: {missing}", file=sys.stderr)
    return missing is None


class Program:
    """One program, started; a directory of its own is gone with it. FILES, texts by their names,
    lie beside it."""

    def __init__(self, name, *arguments, files=None):
        self.name = name
        self.dir = tempfile.mkdtemp(prefix="lectern-client-")
        for pattern in ("*.mjs", "*.prisma"):
            for path in glob.glob(os.path.join(HERE, pattern)):
                shutil.copy(path, self.dir)
        for file_name, text in (files or {}).items():
            with open(os.path.join(self.dir, file_name), "w", encoding="utf-8") as f:
                f.write(text)
        os.symlink(os.path.join(PACKAGES, "node_modules"), os.path.join(self.dir, "node_modules"))
        self.out = open(os.path.join(self.dir, "output"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["node", os.path.join(self.dir, name), *map(str, arguments)], cwd=self.dir,
            stdin=subprocess.PIPE, stdout=self.out, stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": self.dir, "NO_COLOR": "1"})

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.out.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def text(self):
        with open(os.path.join(self.dir, "output"), encoding="utf-8") as f:
            return f.read()

    def expect_running(self):
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended with {self.process.returncode}:\n{self.text()}")

    def stop(self):
        """The end of its input: a program that runs until it is told ends by itself."""
        self.process.stdin.close()

    def result(self, seconds=60):
        """What it printed; a failure of the test when it ends with another status than 0."""
        try:
            status = self.process.wait(seconds * HANG)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not end within {seconds * HANG} s:\n"
                          f"{self.text()}") from None
        if status != 0:
            raise Failure(f"{self.name} ended with {status}:\n{self.text()}")
        return self.text()
