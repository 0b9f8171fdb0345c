"""Rows that come while they are fetched: the answer of POST /v3/cursor.

Outside of a transaction a stream has an HTTP connection of its own, which is closed when nobody
wants the rest. In one, the transaction's connection is the only one: the rest is read, and kept,
before the next statement is sent.
"""

from .door import NoAnswer
from .errors import Error, OperationalError, error_of

CURSOR = "/v3/cursor"


class RowStream:
    """An iterator of rows as Hrana has them. `cols` are known after begin()."""

    def __init__(self, door, baton, stmt, seconds, url=None, own=False):
        self._door, self._own = door, own
        request = {"baton": baton, "batch": {"steps": [{"stmt": stmt}]}}
        self._blocks = door.lines(CURSOR, request, seconds, url)
        self._lines = iter(next(self._blocks, ()))
        self._kept, self._broken = iter(()), None
        self.cols, self.over = [], False
        first = next(self._lines, None)
        if first is None:
            raise NoAnswer(f"{door.url}: an answer without a line")
        self.baton, self.base_url = first.get("baton"), first.get("base_url")

    def begin(self):
        """Takes the columns; an error of the statement is raised."""
        entry = self._entry()
        self.cols = [] if entry is None else entry["cols"]
        return self

    def _line(self):
        """The next one, or None."""
        while True:
            line = next(self._lines, None)
            if line is not None:
                return line
            block = next(self._blocks, None)
            if block is None:
                return None
            self._lines = iter(block)

    def _entry(self):
        """The next row or the columns; None: that was all. An error of the statement is raised."""
        while not self.over:
            entry = self._line()
            if entry is None:
                self.over = True
                raise NoAnswer(f"{self._door.url}: the rows broke off")
            kind = entry["type"]
            if kind in ("row", "step_begin"):
                return entry
            if kind in ("step_error", "error"):
                self._finish()
                raise error_of(entry["error"].get("code"), entry["error"]["message"])
            if kind == "step_end":
                self._finish()
        return None

    def _finish(self):
        """Reads what is behind the end, so that the connection may be used again."""
        self.over = True
        for _ in self._blocks:
            pass
        if self._own:
            self._door.close()

    def __iter__(self):
        return self

    def __next__(self):
        row = next(self._kept, None)
        if row is not None:
            return row
        if self._broken is not None:
            raise self._broken
        try:
            entry = self._entry()
        except NoAnswer as e:
            raise OperationalError(f"not all rows came: {e}") from e
        if entry is None:
            raise StopIteration
        return entry["row"]

    def keep(self):
        """Reads the rest into memory: the connection is wanted. What fails is told to who fetches
        that far."""
        if self.over:
            return
        kept = []
        try:
            kept.extend(self)
        except Error as e:
            self._broken = e
        self._kept = iter(kept)

    def abandon(self):
        """Nobody wants the rest."""
        self._kept, self._broken = iter(()), None
        if self.over:
            return
        if self._own:
            self.over = True
            self._door.close()
        else:  # without its end the node would give the transaction up
            self.keep()
            self._kept, self._broken = iter(()), None
