"""The HTTP door of a cluster: one keep-alive connection to one of its nodes, others when that is
lost. It says of each failure whether the request can have been run; it never sends one twice."""

import contextlib
import http.client
import json
import os
import select
import socket
import time
from urllib.parse import urlsplit

from .options import urls_of

IDLE_SECONDS = 60.0    # a connection that was not used for longer is not trusted any more
GRACE_SECONDS = 5.0    # in which a node says that the time is over, before it is taken for dead
SILENCE_SECONDS = 5.0  # after them a node that does not answer is asked whether it still lives

BLOCK_BYTES = 1 << 18


class NotSent(Exception):
    """Nothing of the request was run: outside of a transaction it may be sent again, anywhere."""


class NoRoom(NotSent):
    """The node has no room for the request now. What it holds, an open transaction say, stays."""


class NoAnswer(Exception):
    """The request was sent, and what became of it is not known."""


class Refused(Exception):
    """The node answered that it does not run this request."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


def http_connection(url, seconds):
    """To the node of URL, not yet open."""
    pieces = urlsplit(url)
    kind = (http.client.HTTPSConnection if pieces.scheme == "https"
            else http.client.HTTPConnection)
    return kind(pieces.hostname, pieces.port, timeout=seconds)


def _said_plainly(status, answer):
    """Of an answer that is not Lectern's JSON: a line of text, as the native port gives it, or the
    status."""
    line = answer[:300].decode("ascii", "replace").strip()
    return line if line.isprintable() and line[:1] not in ("", "<") else f"HTTP status {status}"


class Door:
    """Not for several threads at once."""

    def __init__(self, where, connect_timeout, headers=None):
        self.urls = urls_of(where)
        self.connect_timeout = connect_timeout
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self.at = 0
        self._http = None
        self._url = None  # of the open connection
        self._process = None
        self._used = 0.0

    @property
    def url(self):
        """Of the node that is spoken to, or would be."""
        return self._url or self.urls[self.at]

    def another(self):
        """A door to the same node, with a connection of its own."""
        other = Door(self.urls, self.connect_timeout, self.headers)
        other.at = self.at
        return other

    def close(self):
        """Ends the connection; the next request makes another."""
        connection, self._http, self._url = self._http, None, None
        # In the child of a fork() it is the parent's connection: it is left alone.
        if connection is not None and self._process == os.getpid():
            connection.close()

    def next_node(self):
        """Another node from now on."""
        self.close()
        self.at = (self.at + 1) % len(self.urls)

    def _is_stale(self):
        """Did the server end the connection, or may it have?"""
        sock = self._http.sock
        if self._process != os.getpid() or sock is None:
            return True
        if time.monotonic() - self._used > IDLE_SECONDS:
            return True
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))  # nothing is asked, so there is nothing but the end to read

    def _connect(self, url):
        if self._http is not None and (self._url != url or self._is_stale()):
            self.close()
        if self._http is not None:
            return
        connection = http_connection(url, self.connect_timeout)
        try:
            connection.connect()
        except OSError as e:
            raise NotSent(f"{url}: {e}") from e
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._http, self._url, self._process = connection, url, os.getpid()

    def _send(self, path, request, seconds, url):
        """Posts REQUEST; the head of its answer is here."""
        body = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"lectern-timeout": str(max(1, int(seconds * 1000))),
                   "lectern-begin": "deferred",  # who means another one says so in its SQL
                   **self.headers}
        self._connect(url)
        self._http.sock.settimeout(seconds + GRACE_SECONDS)
        with self._telling(url):
            try:
                self._http.request("POST", urlsplit(url).path + path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may have said why before it had read all
            else:
                self._await(url, seconds + GRACE_SECONDS)
            return self._http.getresponse()

    def _await(self, url, seconds):
        """Until an answer begins. A paused process, or one behind a broken line, keeps its
        connections open: after a silence it is asked on another one."""
        poll = select.poll()
        poll.register(self._http.sock, select.POLLIN)
        end = time.monotonic() + seconds
        while not poll.poll(1000 * min(SILENCE_SECONDS, max(0, end - time.monotonic()))):
            if time.monotonic() >= end:
                raise TimeoutError("timed out")
            if not self._lives(url):
                raise TimeoutError("the node does not answer, not even to /livez")

    def _lives(self, url):
        connection = http_connection(url, SILENCE_SECONDS)
        try:
            connection.request("GET", urlsplit(url).path + "/livez")
            return connection.getresponse().status > 0
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @contextlib.contextmanager
    def _telling(self, url):
        """What breaks while an answer is waited for or read, as NoAnswer."""
        try:
            yield
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise NoAnswer(f"{url}: {str(e) or type(e).__name__}") from e
        except BaseException:  # Ctrl-C, a signal's exception: the answer would be the next one's
            self.close()
            raise

    def _read(self, answer, url):
        with self._telling(url):
            body = answer.read()
        self._used = time.monotonic()
        if answer.will_close:
            self.close()
        return body

    def post(self, path, request, seconds, url=None):
        """Posts REQUEST (JSON) to PATH at URL, or at the present node; returns the answer's JSON.
        The node is given SECONDS for it.

        Raises NotSent, NoAnswer or Refused; after the first two the connection is closed.
        """
        url = url or self.urls[self.at]
        answer = self._send(path, request, seconds, url)
        return self._judge(url, answer.status, self._read(answer, url))

    def lines(self, path, request, seconds, url=None):
        """As post(), but yields the answer's lines, as a list of JSON, while they come. It must be
        read to its end before the next request."""
        url = url or self.urls[self.at]
        answer = self._send(path, request, seconds, url)
        if answer.status != 200:
            self._judge(url, answer.status, self._read(answer, url))
        with self._telling(url):
            rest, block = [], b"\n"
            while block:
                if self._process != os.getpid():
                    raise NoAnswer(f"{url}: the rows are those of the process that has forked")
                block = answer.read1(BLOCK_BYTES)
                lines, newline, end = block.rpartition(b"\n")
                if newline:
                    lines = b"".join([*rest, lines])
                    rest = []
                    try:
                        entries = json.loads(b"[" + lines.replace(b"\n", b",") + b"]")
                    except ValueError as e:
                        raise NoAnswer(f"{url}: the rows are no JSON: {e}") from e
                    yield entries
                rest.append(end)
        self._used = time.monotonic()
        if answer.will_close:
            self.close()

    def _judge(self, url, status, answer):
        """The answer's JSON, or what the status says."""
        try:
            parsed = json.loads(answer)
        except ValueError:
            parsed = None
        if status == 200 and isinstance(parsed, dict):
            return parsed
        said = parsed if isinstance(parsed, dict) else {}
        message = said.get("message") or said.get("error") or _said_plainly(status, answer)
        code = said.get("code")
        if status == 503 and code in ("BUSY", "SQLITE_BUSY", "STOPPED"):  # the node's own word
            self.close()
            raise (NotSent if code == "STOPPED" else NoRoom)(f"{url}: {message}")
        if 300 <= status < 500:  # also a proxy that wants https
            raise Refused(status, code, f"{url}: {message}")
        self.close()
        raise NoAnswer(f"{url}: {message} (HTTP status {status})")
