"""Cursor of DB-API 2.0: a statement's rows, one after the other."""

from . import statements
from .errors import DataError, ProgrammingError
from .values import column_name, converter_of, decode_row


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
        self.connection.check_open()

    def close(self):
        self._reset()
        self._closed = True

    def execute(self, sql, parameters=()):
        self._check_open()
        self._reset()
        if statements.is_empty(sql):
            return self
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
