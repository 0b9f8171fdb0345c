"""Lectern for Python: DB-API 2.0 over the HTTP door, with nothing but the standard library.

    with lectern.connect("http://10.0.0.1:8080,http://10.0.0.2:8080") as connection:
        connection.execute("INSERT INTO t(a) VALUES (?)", (1,))

It is used as Python's sqlite3: `isolation_level`, `in_transaction`, adapters and converters,
`with connection` as a transaction. What is different is what a network adds; docs/DJANGO.md says
it: several nodes, what is sent again and what never, UnknownOutcome and TransactionLost.
"""
# pylint: disable=redefined-builtin

import datetime
import sqlite3

from .connection import Connection
from .cursor import Cursor
from .errors import (DatabaseError, DataError, Error, IntegrityError, InterfaceError, InternalError,
                     NotSupportedError, OperationalError, ProgrammingError, TransactionLost,
                     UnknownOutcome, Warning)
from .row import Row
from .values import PARSE_COLNAMES, PARSE_DECLTYPES, register_adapter, register_converter

__all__ = ["apilevel", "threadsafety", "paramstyle", "connect", "Connection", "Cursor", "Row",
           "Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError",
           "IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError",
           "UnknownOutcome", "TransactionLost", "register_adapter", "register_converter",
           "PARSE_DECLTYPES", "PARSE_COLNAMES", "Binary", "Date", "Time", "Timestamp",
           "DateFromTicks", "TimeFromTicks", "TimestampFromTicks", "STRING", "BINARY", "NUMBER",
           "DATETIME", "ROWID", "sqlite_version", "sqlite_version_info"]

apilevel = "2.0"
threadsafety = 1  # a connection belongs to one thread at a time
paramstyle = "qmark"

Binary = memoryview
Date, Time, Timestamp = datetime.date, datetime.time, datetime.datetime
STRING, BINARY, NUMBER, DATETIME, ROWID = str, bytes, float, datetime.datetime, int
# Of this machine's own SQLite: what programs written for sqlite3 look at before there is a
# connection. The server's is `SELECT sqlite_version()`.
sqlite_version, sqlite_version_info = sqlite3.sqlite_version, sqlite3.sqlite_version_info


def DateFromTicks(ticks):
    return Date.fromtimestamp(ticks)


def TimeFromTicks(ticks):
    return Timestamp.fromtimestamp(ticks).time()


def TimestampFromTicks(ticks):
    return Timestamp.fromtimestamp(ticks)


def connect(url, timeout=30.0, **options):
    """A connection to the cluster whose nodes have these URLs; none of them is asked yet.

    url: "http://HOST:PORT", several with commas between, or a list. The first that answers serves.
    timeout: seconds for a statement; in them, what may be sent again is.
    isolation_level: as of sqlite3. "" or DEFERRED, IMMEDIATE, EXCLUSIVE: a transaction is begun
        before the first change. None: nothing is begun unasked.
    detect_types: PARSE_DECLTYPES | PARSE_COLNAMES, as of sqlite3.
    read: how fresh reads are: any, bounded:MILLISECONDS, session, strong. None: as the node has it
        (http-read, which is session when nobody set it).
    connect_timeout: seconds for reaching a node. headers: further ones for each request.
    """
    return Connection(url, timeout, **options)
