"""Rows that know the names of their columns."""


class Row:
    """As sqlite3.Row, which takes sqlite3's cursors alone: `db.row_factory = lectern.Row`."""

    __slots__ = ("_names", "_values")

    def __init__(self, cursor, values):
        self._names = [d[0] for d in cursor.description or ()]
        self._values = tuple(values)

    def keys(self):
        return list(self._names)

    def __getitem__(self, key):
        """Of a name: the first such column, whether it is written large or small."""
        if not isinstance(key, str):
            return self._values[key]
        for name, value in zip(self._names, self._values):
            if name == key or (name.isascii() and name.lower() == key.lower()):
                return value
        raise IndexError(f"No item with that key: {key}")

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return iter(self._values)

    def __eq__(self, other):
        if not isinstance(other, Row):
            return NotImplemented
        return self._names == other.keys() and self._values == tuple(other)

    def __hash__(self):
        return hash((tuple(self._names), self._values))

    def __repr__(self):
        return f"<lectern.Row {dict(zip(self._names, self._values))}>"
