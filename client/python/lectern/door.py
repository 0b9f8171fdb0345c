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

from .errors import InterfaceError

IDLE_SECONDS = 60.0  # a connection that was not used for longer is not trusted any more

BLOCK_BYTES = 1 << 18


class NotSent(Exception):
    """Nothing of the request was run: it may be sent again, anywhere."""


class NoAnswer(Exception):
    """The request was sent, and what became of it is not known."""


class Refused(Exception):
    """The node answered that it does not run this request."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


def urls_of(where):
    """A list of origins from a URL, several with commas between, or a sequence of them."""
    parts = where.split(",") if isinstance(where, str) else list(where)
    urls = []
    for part in (str(p).strip() for p in parts):
        if not part:
            continue
        url = part if "://" in part else "http://" + part
        pieces = urlsplit(url)
        if pieces.scheme not in ("http", "https") or not pieces.hostname:
            raise InterfaceError(f"{part!r} is not the URL of a node: http://HOST:PORT")
        urls.append(url.rstrip("/"))
    if not urls:
        raise InterfaceError("no URL of a node was given")
    return urls


class Door:
    """Not for several threads at once."""

    def __init__(self, where, timeout, connect_timeout, headers=None):
        self.urls = urls_of(where)
        self.timeout, self.connect_timeout = timeout, connect_timeout
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
        other = Door(self.urls, self.timeout, self.connect_timeout, self.headers)
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
        pieces = urlsplit(url)
        kind = (http.client.HTTPSConnection if pieces.scheme == "https"
                else http.client.HTTPConnection)
        connection = kind(pieces.hostname, pieces.port, timeout=self.connect_timeout)
        try:
            connection.connect()
        except OSError as e:
            raise NotSent(f"{url}: {e}") from e
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.settimeout(self.timeout)
        self._http, self._url, self._process = connection, url, os.getpid()

    def _send(self, path, request, url):
        """Posts REQUEST; the head of its answer is here."""
        body = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
        self._connect(url)
        with self._telling(url):
            self._http.request("POST", urlsplit(url).path + path, body, self.headers)
            return self._http.getresponse()

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

    def post(self, path, request, url=None):
        """Posts REQUEST (JSON) to PATH at URL, or at the present node; returns the answer's JSON.

        Raises NotSent, NoAnswer or Refused; after the first two the connection is closed.
        """
        url = url or self.urls[self.at]
        answer = self._send(path, request, url)
        return self._judge(url, answer.status, self._read(answer, url))

    def lines(self, path, request, url=None):
        """As post(), but yields the answer's lines, as a list of JSON, while they come. It must be
        read to its end before the next request."""
        url = url or self.urls[self.at]
        answer = self._send(path, request, url)
        if answer.status != 200:
            self._judge(url, answer.status, self._read(answer, url))
        with self._telling(url):
            rest = b""
            while True:
                block = answer.read1(BLOCK_BYTES)
                lines, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    yield json.loads(b"[" + lines.replace(b"\n", b",") + b"]")
                if not block:
                    break
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
        message = said.get("message") or said.get("error") or f"HTTP status {status}"
        code = said.get("code")
        if status == 503 and code == "BUSY":  # the node's own word: it has no room for it
            self.close()
            raise NotSent(f"{url}: {message}")
        if 400 <= status < 500:
            raise Refused(status, code, f"{url}: {message}")
        self.close()
        raise NoAnswer(f"{url}: {message} (HTTP status {status})")
