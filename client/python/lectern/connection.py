"""Connection of DB-API 2.0: a Hrana stream, and what is sent again when a node is lost."""
# pylint: disable=redefined-builtin

import contextlib
import os
import time

from . import statements
from .cursor import Cursor
from .door import Door, NoAnswer, NoRoom, NotSent, Refused
from .errors import (DatabaseError, DataError, Error, IntegrityError, InterfaceError, InternalError,
                     NotSupportedError, OperationalError, ProgrammingError, TransactionLost,
                     UnknownOutcome, Warning, error_of)
from .options import check
from .stream import RowStream
from .values import arguments, size_of

PIPELINE = "/v3/pipeline"
CHUNK, CHUNK_BYTES = 500, 1 << 20  # of a request of executemany(): statements, and about their size
REST_SECONDS = (0.02, 0.5)  # between two tries: the first, and the longest
ATTEMPT_SECONDS = 1.0       # at least, for the last one
# Said of what was perhaps done: a write must not be sent again, a read may.
UNKNOWN_CODES = ("SQLITE_IOERR", "SQLITE_PROTOCOL")


class Connection:
    """A Hrana stream: its baton, its transaction, and the door to the node that has it."""

    # PEP 249 wants them here, too.
    Warning, Error, InterfaceError, DatabaseError = Warning, Error, InterfaceError, DatabaseError
    DataError, OperationalError, IntegrityError = DataError, OperationalError, IntegrityError
    InternalError, ProgrammingError = InternalError, ProgrammingError
    NotSupportedError = NotSupportedError

    def __init__(self, url, timeout=30.0, isolation_level="", detect_types=0, read=None,
                 connect_timeout=5.0, headers=None, factory=None):
        for name, value in (("timeout", timeout), ("isolation_level", isolation_level),
                            ("detect_types", detect_types), ("read", read), ("headers", headers),
                            ("connect_timeout", connect_timeout), ("factory", factory)):
            check(name, value)
        self.detect_types = detect_types
        self.row_factory = None
        self.cursor_factory = factory or Cursor
        self.timeout = timeout
        self.total_changes = 0
        self._level = isolation_level
        if read is not None:
            headers = {"lectern-read": read, **(headers or {})}
        self._door = Door(url, connect_timeout, headers)
        self._closed = False
        self._process = os.getpid()
        self._baton = None    # of the stream as it is
        self._resting = None  # the last one outside of a transaction: any node goes on with it
        self._home = None     # the URL of the node that has the open transaction
        self._in_transaction = False
        self._by_savepoint = False  # it was begun by SAVEPOINT, so RELEASE may commit it
        self._lost = None     # why the transaction that the program believes in is gone
        self._rows = None     # a RowStream that uses the door

    # What PEP 249 wants.

    def close(self):
        """Rolls back what is open. Further use is an error."""
        if self._closed:
            return
        self._check_process()
        if self._in_transaction:
            with contextlib.suppress(Error, NotSent, NoAnswer, Refused):
                self._send([{"type": "close"}], self.timeout)
        self._closed = True
        self._door.close()

    def cursor(self, factory=None):
        self.check_open()
        return (factory or self.cursor_factory)(self)

    def commit(self):
        """Ends the open transaction; without one nothing is done."""
        self.check_open()
        if self._in_transaction or self._lost:
            self.run("COMMIT")

    def rollback(self):
        self.check_open()
        if self._in_transaction or self._lost:
            self.run("ROLLBACK")

    @property
    def closed(self):
        return self._closed

    # What sqlite3 has beyond it.

    @property
    def in_transaction(self):
        return self._in_transaction or self._lost is not None

    @property
    def isolation_level(self):
        return self._level

    @isolation_level.setter
    def isolation_level(self, level):
        check("isolation_level", level)
        if level is None:
            self.commit()
        self._level = level

    def execute(self, sql, parameters=()):
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql, rows):
        return self.cursor().executemany(sql, rows)

    def executescript(self, sql):
        return self.cursor().executescript(sql)

    def __enter__(self):
        self.check_open()
        return self

    def __exit__(self, kind, error, trace):
        """As of sqlite3: ends the transaction, not the connection."""
        if kind is not None:
            self.rollback()
            return
        try:
            self.commit()
        except BaseException:  # a deferred constraint, say: the transaction is still open
            self.rollback()
            raise

    def __del__(self):
        door = getattr(self, "_door", None)
        if door is not None:
            door.close()

    # Requests.

    def check_open(self):
        """Of the connection's cursors, too."""
        if self._closed:
            raise ProgrammingError("Cannot operate on a closed database.")
        self._check_process()

    def _check_process(self):
        """In the child of a fork() an open transaction is the parent's: the child does nothing in
        it, and does not end it."""
        if self._process == os.getpid():
            return
        self._process, self._rows = os.getpid(), None
        if self._in_transaction:
            self._forget_transaction()
            self._lost = "the transaction belongs to the process that has forked this one"

    def _send(self, requests, seconds):
        """Posts once; takes over the baton, the address and the state that the answer has."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.keep()
        answer = self._door.post(PIPELINE, {"baton": self._baton, "requests": requests}, seconds,
                                 self._home)
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

    def _lose(self, why, ends):
        """The node that had the transaction, or the way to it, is gone. Nothing was committed,
        since no COMMIT was sent; or this was the COMMIT."""
        self._forget_transaction()
        self._door.next_node()
        if ends:
            raise UnknownOutcome("the answer to COMMIT did not come, so it is not known whether "
                                 f"the transaction was committed: {why}")
        self._lost = f"the transaction was rolled back: {why}"
        raise TransactionLost(self._lost)

    def request(self, request, repeatable, ends=False):
        """The result of a Hrana REQUEST. What surely was not run is sent again until the time is
        over (in a transaction: to its node, which keeps it); what was perhaps run only if it is
        REPEATABLE. ENDS: it may commit a transaction."""
        requests = [request, {"type": "get_autocommit"}]
        give_up = time.monotonic() + self.timeout
        rest, least = REST_SECONDS[0], min(self.timeout, ATTEMPT_SECONDS)
        was_in = self._in_transaction
        while True:
            try:
                result = self._send(requests, max(give_up - time.monotonic(), least))[0]
                code = (result.get("error") or {}).get("code")
                why = code if repeatable and code in UNKNOWN_CODES else None
                # SQLITE_BUSY: not done, for want of a leader or of a place. A script may have been
                # done in part.
                busy = code == "SQLITE_BUSY" and request["type"] != "sequence"
                if was_in or self._in_transaction or not (busy or why):
                    return result
                if time.monotonic() + rest > give_up:
                    return result
            except NotSent as e:
                why = e
                if self._in_transaction and not isinstance(e, NoRoom):
                    self._lose(e, ends=False)
            except NoAnswer as e:
                why = e
                if self._in_transaction:
                    self._lose(e, ends)
                if not repeatable:
                    self._door.next_node()
                    raise UnknownOutcome("the answer did not come, so it is not known whether the "
                                         f"statement was run: {e}") from e
            except Refused as e:
                self._refused(e)
                why = e
            if why is not None and not self._in_transaction:
                self._door.next_node()
            if time.monotonic() + rest > give_up:
                raise error_of("SQLITE_BUSY", f"no node took it within {self.timeout:g} s: {why}")
            time.sleep(rest)
            rest = min(rest * 2, REST_SECONDS[1])

    def _refused(self, e):
        """Nothing was run. Only without its baton may it be sent again."""
        if self._in_transaction and e.code in ("STREAM_EXPIRED", "BATON_INVALID", "BATON_REUSED"):
            self._lose(e, ends=False)
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
        if statements.is_commit(sql):
            self._lost = None
        raise TransactionLost(why)

    def _take(self, result, was_in, sql):
        """The response in RESULT; an error of the server as an exception."""
        if result.get("type") == "ok":
            return result["response"]
        said = result.get("error") or {}
        code, message = said.get("code"), said.get("message") or "no reason was given"
        kind = None
        if (code in UNKNOWN_CODES and not self._in_transaction
                and not statements.is_repeatable(sql)):
            kind = TransactionLost if was_in and not self._ends(sql) else UnknownOutcome
        error = error_of(code, message, kind)
        # OR ROLLBACK, RAISE(ROLLBACK): that is what the program wanted.
        if (was_in and not self._in_transaction and not isinstance(error, IntegrityError)
                and not self._ends(sql) and not statements.is_rollback(sql)):
            self._lost = str(error)
        raise error

    def _ends(self, sql):
        """May SQL commit the open transaction?"""
        return statements.is_commit(sql) or (self._by_savepoint and statements.is_release(sql))

    def run(self, sql, parameters=(), want_rows=True):
        """The result of one statement, as Hrana has it; None for the ROLLBACK of what is gone."""
        self.check_open()
        if self._check_lost(sql):
            return None
        was_in = self._in_transaction
        stmt = {"sql": sql, "want_rows": want_rows, **arguments(sql, parameters)}
        try:
            result = self.request({"type": "execute", "stmt": stmt},
                                  statements.is_repeatable(sql), was_in and self._ends(sql))
            response = self._take(result, was_in, sql)
        except (TransactionLost, UnknownOutcome):
            if not was_in or not statements.is_rollback(sql):
                raise
            self._lost = None
            return None
        if self._in_transaction and not was_in:
            self._by_savepoint = statements.words(sql, 1) == ["SAVEPOINT"]
        return response["result"]

    def stream(self, sql, parameters):
        """A RowStream of a statement that only reads."""
        stmt = {"sql": sql, **arguments(sql, parameters)}
        if self._in_transaction:
            try:
                rows = RowStream(self._door, self._baton, stmt, self.timeout, self._home)
                self._baton, self._home = rows.baton, rows.base_url or self._home
                self._rows = rows
                return rows.begin()
            except NoRoom as e:  # the transaction is there
                raise error_of("SQLITE_BUSY", str(e)) from e
            except (NotSent, NoAnswer, Refused) as e:
                self._rows = None
                self._lose(e, ends=False)
        # This stream's baton stays what it is: any number of streams may go on from it.
        door, why = self._door.another(), None
        for _ in door.urls:
            try:
                return RowStream(door, self._resting, stmt, self.timeout, own=True).begin()
            except (NotSent, NoAnswer) as e:
                why = e
                door.next_node()
            except Refused as e:
                raise error_of(e.code, str(e)) from e
        raise error_of("SQLITE_BUSY", f"no node answered: {why}")

    def only_reads(self, sql):
        """The server's word."""
        result = self.request({"type": "describe", "sql": sql}, repeatable=True)
        return self._take(result, self._in_transaction, sql)["result"]["is_readonly"]

    def begin_for(self, sql):
        """What sqlite3 does before a change when isolation_level is not None."""
        if self._level is None or self.in_transaction or not statements.is_change(sql):
            return
        self.run(f"BEGIN {self._level}".strip())

    def run_many(self, sql, rows):
        """Runs SQL with each of ROWS; all, or none when no transaction was open. The changes."""
        self.check_open()
        own = not self.in_transaction
        changes, chunk, size = 0, [], 0
        if own:
            self.run("BEGIN IMMEDIATE")
        try:
            for row in rows:
                stmt = {"sql": sql, "want_rows": False, **arguments(sql, row)}
                chunk.append(stmt)
                size += size_of(stmt)
                if len(chunk) == CHUNK or size >= CHUNK_BYTES:
                    changes += self._run_chunk(sql, chunk)
                    chunk, size = [], 0
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
        result = self.request({"type": "batch", "batch": {"steps": steps}}, repeatable=False)
        result = self._take(result, was_in, sql)["result"]
        for said in result["step_errors"]:
            if said is not None:
                self._take({"error": said}, was_in, sql)
        return sum(r["affected_row_count"] for r in result["step_results"])

    def run_script(self, sql):
        self.check_open()
        self.commit()
        result = self.request({"type": "sequence", "sql": sql}, repeatable=False)
        self._take(result, False, sql)
