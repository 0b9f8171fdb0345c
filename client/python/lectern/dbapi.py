"""Lectern for Python: DB-API 2.0 over the HTTP door, with nothing but the standard library.

    with lectern.connect("http://10.0.0.1:8080,http://10.0.0.2:8080") as connection:
        connection.execute("INSERT INTO t(a) VALUES (?)", (1,))

It is used as Python's sqlite3: `isolation_level`, `in_transaction`, adapters and converters,
`with connection` as a transaction. What is different is what a network adds; docs/DJANGO.md says
it: several nodes, what is sent again and what never, UnknownOutcome and TransactionLost.
"""
# pylint: disable=redefined-builtin

import contextlib
import datetime
import sqlite3
import time

from . import statements
from .door import Door, NoAnswer, NotSent, Refused
from .errors import (DatabaseError, DataError, Error, IntegrityError, InterfaceError, InternalError,
                     NotSupportedError, OperationalError, ProgrammingError, TransactionLost,
                     UnknownOutcome, Warning, error_of)
from .stream import RowStream
from .values import (PARSE_COLNAMES, PARSE_DECLTYPES, arguments, column_name, converter_of,
                     decode_row, register_adapter, register_converter)

__all__ = ["apilevel", "threadsafety", "paramstyle", "connect", "Connection", "Cursor",
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

PIPELINE = "/v3/pipeline"
GRACE_SECONDS = 5.0  # in which a node says that the time is over, before it is taken for dead
CHUNK = 500          # statements of executemany() in a request
REST_SECONDS = (0.02, 0.5)  # between two tries: the first, and the longest


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
    read: how fresh reads are: any, bounded:MILLISECONDS, session (the default), strong.
    connect_timeout: seconds for reaching a node. headers: further ones for each request.
    """
    return Connection(url, timeout, **options)


class Connection:
    """A Hrana stream: its baton, its transaction, and the door to the node that has it."""

    # PEP 249 wants them here, too.
    Warning, Error, InterfaceError, DatabaseError = Warning, Error, InterfaceError, DatabaseError
    DataError, OperationalError, IntegrityError = DataError, OperationalError, IntegrityError
    InternalError, ProgrammingError = InternalError, ProgrammingError
    NotSupportedError = NotSupportedError

    def __init__(self, url, timeout=30.0, isolation_level="", detect_types=0, read=None,
                 connect_timeout=5.0, headers=None, factory=None):
        self.detect_types = detect_types
        self.row_factory = None
        self.cursor_factory = factory or Cursor
        self.timeout = timeout
        self.total_changes = 0
        self._level = isolation_level
        headers = {"lectern-timeout": str(max(1, int(timeout * 1000))), **(headers or {})}
        if read is not None:
            headers["lectern-read"] = read
        self._door = Door(url, timeout + GRACE_SECONDS, connect_timeout, headers)
        self._closed = False
        self._baton = None    # of the stream as it is
        self._resting = None  # the last one outside of a transaction: any node goes on with it
        self._home = None     # the URL of the node that has the open transaction
        self._in_transaction = False
        self._lost = None     # why the transaction that the program believes in is gone
        self._rows = None     # a RowStream that uses the door

    # What PEP 249 wants.

    def close(self):
        """Rolls back what is open. Further use is an error."""
        if self._closed:
            return
        if self._in_transaction:
            with contextlib.suppress(Error):
                self._send([{"type": "close"}], PIPELINE)
        self._closed = True
        self._door.close()

    def cursor(self, factory=None):
        self._check_open()
        return (factory or self.cursor_factory)(self)

    def commit(self):
        """Ends the open transaction; without one nothing is done."""
        self._check_open()
        if self._in_transaction or self._lost:
            self.run("COMMIT")

    def rollback(self):
        self._check_open()
        if self._in_transaction or self._lost:
            self.run("ROLLBACK")

    # What sqlite3 has beyond it.

    @property
    def in_transaction(self):
        return self._in_transaction or self._lost is not None

    @property
    def isolation_level(self):
        return self._level

    @isolation_level.setter
    def isolation_level(self, level):
        if level is None:
            self.commit()
        elif level.upper() not in ("", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"):
            raise ValueError("isolation_level is None, '', DEFERRED, IMMEDIATE or EXCLUSIVE")
        self._level = level

    def execute(self, sql, parameters=()):
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql, rows):
        return self.cursor().executemany(sql, rows)

    def executescript(self, sql):
        return self.cursor().executescript(sql)

    def __enter__(self):
        self._check_open()
        return self

    def __exit__(self, kind, error, trace):
        """As of sqlite3: ends the transaction, not the connection."""
        if kind is None:
            self.commit()
        else:
            self.rollback()

    def __del__(self):
        door = getattr(self, "_door", None)
        if door is not None:
            door.close()

    # Requests.

    def _check_open(self):
        if self._closed:
            raise ProgrammingError("Cannot operate on a closed database.")

    def _send(self, requests, path):
        """Posts once; takes over the baton, the address and the state that the answer has."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.keep()
        answer = self._door.post(path, {"baton": self._baton, "requests": requests}, self._home)
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != len(requests):
            raise NoAnswer(f"{self._door.url}: the answer is not one of Hrana")
        self._baton = answer.get("baton")
        state = results[-1].get("response") or {}
        if state.get("type") == "get_autocommit":
            self._in_transaction = not state["is_autocommit"]
        if self._in_transaction:
            self._home = answer.get("base_url") or self._home or self._door.url
        else:
            self._resting, self._home = self._baton, None
        return results

    def _forget_transaction(self):
        """The stream as it was before its transaction."""
        self._baton, self._home, self._in_transaction = self._resting, None, False

    def _lose(self, why, commit):
        """The node that had the transaction, or the way to it, is gone. Nothing was committed,
        since no COMMIT was sent; or this was the COMMIT."""
        self._forget_transaction()
        self._door.next_node()
        if commit:
            raise UnknownOutcome("the answer to COMMIT did not come, so it is not known whether "
                                 f"the transaction was committed: {why}")
        self._lost = f"the transaction was rolled back: {why}"
        raise TransactionLost(self._lost)

    def request(self, requests, repeatable, commit=False):
        """The results of Hrana REQUESTS. What surely was not run is sent again until the time is
        over; what was perhaps run only if it is REPEATABLE."""
        requests = [*requests, {"type": "get_autocommit"}]
        give_up = time.monotonic() + self.timeout
        rest = REST_SECONDS[0]
        while True:
            try:
                results = self._send(requests, PIPELINE)
                if self._in_transaction or len(requests) != 2 or not _is_busy(results[0]):
                    return results[:-1]
                why = None  # SQLITE_BUSY: not done, for want of a leader or of a place
                if commit or time.monotonic() + rest > give_up:
                    return results[:-1]
            except NotSent as e:
                why = e
                if self._in_transaction:
                    self._lose(e, commit=False)
            except NoAnswer as e:
                why = e
                if self._in_transaction:
                    self._lose(e, commit)
                if not repeatable:
                    self._door.next_node()
                    raise UnknownOutcome("the answer did not come, so it is not known whether the "
                                         f"statement was run: {e}") from e
            except Refused as e:
                self._refused(e)
                why = e
            if why is not None:
                self._door.next_node()
            if time.monotonic() + rest > give_up:
                raise OperationalError(f"no node answered within {self.timeout:g} s: {why}")
            time.sleep(rest)
            rest = min(rest * 2, REST_SECONDS[1])

    def _refused(self, e):
        """Nothing was run. Only without its baton may it be sent again."""
        if self._in_transaction and e.code in ("STREAM_EXPIRED", "BATON_INVALID", "BATON_REUSED"):
            self._lose(e, commit=False)
        if not self._in_transaction and self._baton is not None and e.code == "BATON_INVALID":
            self._baton = self._resting = None  # of a cluster that had another key
            return
        if e.status == 413:
            raise DataError(str(e)) from e
        error = error_of(e.code, str(e))
        raise error from e

    def _check_lost(self, sql):
        """Statements of a transaction that is gone must not run each for itself."""
        if self._lost is None:
            return False
        why = self._lost
        if statements.is_rollback(sql):
            self._lost = None
            return True
        if statements.ends_with_commit(sql):
            self._lost = None
        raise TransactionLost(why)

    def _take(self, result, was_in, sql):
        """The response in RESULT; an error of the server as an exception."""
        if result.get("type") == "ok":
            return result["response"]
        said = result.get("error") or {}
        error = error_of(said.get("code"), said.get("message") or "no reason was given")
        if was_in and not self._in_transaction and isinstance(error, TransactionLost):
            if not statements.ends_with_commit(sql) and not statements.is_rollback(sql):
                self._lost = str(error)
        raise error

    def run(self, sql, parameters=(), want_rows=True):
        """The result of one statement, as Hrana has it; None for the ROLLBACK of what is gone."""
        self._check_open()
        if self._check_lost(sql):
            return None
        was_in = self._in_transaction
        stmt = {"sql": sql, "want_rows": want_rows, **arguments(sql, parameters)}
        results = self.request([{"type": "execute", "stmt": stmt}],
                               statements.is_repeatable(sql), statements.ends_with_commit(sql))
        return self._take(results[0], was_in, sql)["result"]

    def stream(self, sql, parameters):
        """A RowStream of a statement that only reads."""
        stmt = {"sql": sql, **arguments(sql, parameters)}
        if self._in_transaction:
            try:
                rows = RowStream(self._door, self._baton, stmt, self._home, own=False)
            except (NotSent, NoAnswer, Refused) as e:
                self._lose(e, commit=False)
            self._baton, self._home = rows.baton, rows.base_url or self._home
            self._rows = rows
            return rows
        # This stream's baton stays what it is: any number of streams may go on from it.
        door, why = self._door.another(), None
        for _ in door.urls:
            try:
                return RowStream(door, self._resting, stmt, None, own=True)
            except (NotSent, NoAnswer) as e:
                why = e
                door.next_node()
            except Refused as e:
                raise error_of(e.code, str(e)) from e
        raise OperationalError(f"no node answered: {why}")

    def only_reads(self, sql):
        """The server's word."""
        results = self.request([{"type": "describe", "sql": sql}], repeatable=True)
        return self._take(results[0], self._in_transaction, sql)["result"]["is_readonly"]

    def begin_for(self, sql):
        """What sqlite3 does before a change when isolation_level is not None."""
        if self._level is None or self.in_transaction or not statements.is_change(sql):
            return
        self.run(f"BEGIN {self._level}".strip())

    def run_many(self, sql, rows):
        """Runs SQL with each of ROWS; all, or none when no transaction was open. The changes."""
        self._check_open()
        own = not self.in_transaction
        changes, chunk = 0, []
        if own:
            self.run("BEGIN IMMEDIATE")
        try:
            for row in rows:
                chunk.append({"sql": sql, "want_rows": False, **arguments(sql, row)})
                if len(chunk) == CHUNK:
                    changes += self._run_chunk(sql, chunk)
                    chunk = []
            changes += self._run_chunk(sql, chunk)
        except BaseException:
            if own:
                with contextlib.suppress(Error):
                    self.rollback()
            raise
        if own:
            self.commit()
        return changes

    def _run_chunk(self, sql, chunk):
        """A batch whose steps stop at the first error."""
        if not chunk:
            return 0
        self._check_lost(sql)
        steps = [{"stmt": stmt} for stmt in chunk]
        for i, step in enumerate(steps[1:]):
            step["condition"] = {"type": "ok", "step": i}
        was_in = self._in_transaction
        results = self.request([{"type": "batch", "batch": {"steps": steps}}], repeatable=False)
        result = self._take(results[0], was_in, sql)["result"]
        for said in result["step_errors"]:
            if said is not None:
                self._take({"error": said}, was_in, sql)
        return sum(r["affected_row_count"] for r in result["step_results"])

    def run_script(self, sql):
        self._check_open()
        self.commit()
        results = self.request([{"type": "sequence", "sql": sql}], repeatable=False)
        self._take(results[0], False, sql)


def _is_busy(result):
    return (result.get("error") or {}).get("code") == "SQLITE_BUSY"


class Cursor:
    """A statement's rows. They are here when execute() returns; if that are more than a node sends
    in one piece (http-answer-bytes), they come while they are fetched."""

    def __init__(self, connection):
        self.connection = connection
        self.arraysize = 1
        self.row_factory = connection.row_factory
        self._closed = False
        self._stream = None
        self.lastrowid = None
        self._reset()

    def _reset(self):
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abandon()
        self.description, self.rowcount = None, -1
        self._rows, self._converters = iter(()), ()

    def _check_open(self):
        if self._closed:
            raise ProgrammingError("Cannot operate on a closed cursor.")
        self.connection._check_open()  # pylint: disable=protected-access

    def close(self):
        self._reset()
        self._closed = True

    def execute(self, sql, parameters=()):
        self._check_open()
        self._reset()
        self.connection.begin_for(sql)
        try:
            result = self.connection.run(sql, parameters)
        except DataError as e:
            if e.code != "RESPONSE_TOO_LARGE" or not self.connection.only_reads(sql):
                raise
            self._stream = self._rows = self.connection.stream(sql, parameters)
            self._describe(self._stream.cols)
            return self
        if result is not None:
            self._take(sql, result)
        return self

    def _describe(self, columns):
        detect = self.connection.detect_types
        if columns:
            self.description = tuple((column_name(c, detect),) + (None,) * 6 for c in columns)
        self._converters = [converter_of(c, detect) for c in columns]

    def _take(self, sql, result):
        self._describe(result["cols"])
        self._rows = iter(result["rows"])
        if statements.may_change(sql):
            changes = result["affected_row_count"]
            self.connection.total_changes += changes
            if changes or statements.is_change(sql):
                self.rowcount = changes
            if result["last_insert_rowid"] is not None:
                self.lastrowid = int(result["last_insert_rowid"])

    def executemany(self, sql, rows):
        self._check_open()
        self._reset()
        if not statements.may_change(sql):
            raise ProgrammingError("executemany() can only execute DML statements.")
        self.connection.begin_for(sql)
        self.rowcount = self.connection.run_many(sql, rows)
        self.connection.total_changes += self.rowcount
        return self

    def executescript(self, sql):
        """Several statements; an open transaction is committed first."""
        self._check_open()
        self._reset()
        self.connection.run_script(sql)
        return self

    def fetchone(self):
        return next(self, None)

    def fetchmany(self, size=None):
        rows = []
        for _ in range(self.arraysize if size is None else size):
            row = next(self, None)
            if row is None:
                break
            rows.append(row)
        return rows

    def fetchall(self):
        return list(self)

    def __iter__(self):
        return self

    def __next__(self):
        self._check_open()
        row = decode_row(next(self._rows), self._converters)
        return row if self.row_factory is None else self.row_factory(self, row)

    def setinputsizes(self, sizes):
        """Nothing to do."""

    def setoutputsize(self, size, column=None):
        """Nothing to do."""
