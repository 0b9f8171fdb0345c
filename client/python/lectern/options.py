"""What connect() may be told, and what is said at once of what it may not: before a node is asked,
so that a slip in the settings is not taken for a node that does not answer."""

import os
import re
import reprlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from .errors import InterfaceError

DAY = 86400  # the nodes take no longer times
LEVELS = ("", "DEFERRED", "IMMEDIATE", "EXCLUSIVE")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
shown = _short.repr  # of what somebody wrote in the wrong place: it may be long


_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)


def _is_seconds(value):
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and 0 < value <= DAY)


def _is_read(value):
    if not isinstance(value, str):
        return value is None
    word, _, bound = value.partition(":")
    if word == "bounded":
        return re.fullmatch("[0-9]{1,8}", bound) is not None and int(bound) <= 1000 * DAY
    return value in ("any", "session", "strong")


def _is_headers(value):
    if not isinstance(value, Mapping):
        return value is None
    return all(isinstance(name, str) and isinstance(text, str) and _HEADER.fullmatch(name)
               and text.isascii() and text.isprintable() for name, text in value.items())


def _is_level(value):
    return value is None or (isinstance(value, str) and value.upper() in LEVELS)


_SECONDS = f"a number of seconds above 0, a day ({DAY}) at most"
CHECKS = {
    "timeout": (_is_seconds, _SECONDS),
    "connect_timeout": (_is_seconds, _SECONDS),
    "read": (_is_read, "'any', 'bounded:MILLISECONDS', 'session' or 'strong'"),
    "headers": (_is_headers, "a dict of texts: the headers' names, and what they hold"),
    "isolation_level": (_is_level, "None, '', 'DEFERRED', 'IMMEDIATE' or 'EXCLUSIVE'"),
    "detect_types": (lambda value: isinstance(value, int) and 0 <= value <= 3,
                     "0, PARSE_DECLTYPES, PARSE_COLNAMES, or both"),
    "factory": (lambda value: value is None or callable(value), "a class of cursors"),
}


def check(name, value):
    """Raises InterfaceError when VALUE is none for the option NAME."""
    is_right, wanted = CHECKS[name]
    if not is_right(value):
        raise InterfaceError(f"{name} is {wanted}, and not {shown(value)}")


def _checked(part):
    """PART as the URL of a node."""
    wrong = f"{shown(part)} is not the URL of a node: http://HOST:PORT"
    try:
        pieces = urlsplit(part)
        pieces.port
    except ValueError as e:
        raise InterfaceError(f"{wrong} ({e})") from e
    if pieces.scheme not in ("http", "https") or not pieces.hostname:
        raise InterfaceError(wrong)
    if pieces.query or pieces.fragment or "@" in pieces.netloc:
        raise InterfaceError(f"{wrong}, without a name, a query or a fragment; what else is to be "
                             "told are the options 'read', 'timeout' and 'headers'")
    return part.rstrip("/")


def urls_of(where):
    """A list of URLs of nodes from one, several with commas between, or a sequence of them.
    InterfaceError tells which is none."""
    if isinstance(where, (str, bytes, os.PathLike)):  # of a file: it is no URL, and told as it is
        where = os.fsdecode(where).split(",")
    elif not isinstance(where, (list, tuple)):
        raise InterfaceError(f"{shown(where)} is not the URL of a node: http://HOST:PORT")
    urls = [_checked(part) for part in (str(part).strip() for part in where) if part]
    if not urls:
        raise InterfaceError("no URL of a node was given: http://HOST:PORT, several with commas "
                             "between")
    return urls
