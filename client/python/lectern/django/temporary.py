"""A cluster of one node in a temporary directory, for the tests of an application."""

import atexit
import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_SECONDS = 30.0
PR_SET_PDEATHSIG = 1
# A test case of Django is one transaction, in which a debugger may stand still.
SETTINGS = ("--transaction-idle-timeout=3600000", "--transaction-timeout=86400000")


class NotStarted(Exception):
    """The sentence says why, and what to do."""


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _end_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class TemporaryNode:
    """Runs from its making to stop()."""

    def __init__(self, program="lecternd"):
        found = shutil.which(program)
        if found is None:
            raise NotStarted(
                f"{program} is not to be found, so no temporary node can be started for the tests. "
                "Install it, say where it is in OPTIONS['lecternd'], or name a cluster for tests "
                "in TEST['NAME'].")
        self.directory = tempfile.mkdtemp(prefix="lectern-django-")
        client, peer, self.port = _free_ports(3)
        os.mkdir(os.path.join(self.directory, "data"))
        self.log = os.path.join(self.directory, "log")
        command = [found, "--id=1", f"--data={self.directory}/data",
                   f"--listen=127.0.0.1:{client}", f"--peer-listen=127.0.0.1:{peer}",
                   f"--cluster=1=127.0.0.1:{peer}", f"--http-listen=127.0.0.1:{self.port}",
                   *SETTINGS]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_end_with_parent)
        atexit.register(self.stop)
        self._wait()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def _is_ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _wait(self):
        end = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    said = "".join(log.readlines()[-20:])
                self.stop()
                raise NotStarted(f"the temporary node did not start; its log:\n{said}")
            time.sleep(0.02)

    def stop(self):
        """Ends the node and removes its files. More than once is once."""
        atexit.unregister(self.stop)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
