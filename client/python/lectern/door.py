"""The HTTP door of a cluster: one keep-alive connection to one of its nodes, others when that is
lost. It says of each failure whether the request can have been run; it never sends one twice."""

import http.client
import json
import os
import select
import socket
import time
from urllib.parse import urlsplit

from .errors import InterfaceError

IDLE_SECONDS = 60.0  # a connection that was not used for longer is not trusted any more


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

    def _answer(self):
        """(status, body) of what was sent."""
        answer = self._http.getresponse()
        body = answer.read()
        if answer.will_close:
            self.close()
        return answer.status, body

    def post(self, path, request, url=None):
        """Posts REQUEST (JSON) to PATH at URL, or at the present node; returns the answer's JSON.

        Raises NotSent, NoAnswer or Refused; after the first two the connection is closed.
        """
        url = url or self.urls[self.at]
        body = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
        self._connect(url)
        prefix = urlsplit(url).path
        try:
            self._http.request("POST", prefix + path, body, self.headers)
            status, answer = self._answer()
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise NoAnswer(f"{url}: {str(e) or type(e).__name__}") from e
        except BaseException:  # Ctrl-C, a signal's exception: the answer would be the next one's
            self.close()
            raise
        self._used = time.monotonic()
        return self._judge(url, status, answer)

    def _judge(self, url, status, answer):
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
