"""What Django says in SQL: SQLite's, but for what would ask the server for nothing."""

import math

from django.db.backends.sqlite3.operations import DatabaseOperations as SQLiteOperations

from ..values import encode


def quote(value):
    """A parameter as SQLite's quote() writes it, for logs only."""
    sent = encode(value)
    kind = sent["type"]
    if kind == "null":
        return "NULL"
    if kind == "text":
        return "'" + sent["value"].replace("'", "''") + "'"
    if kind == "blob":
        return "X'" + bytes(value).hex().upper() + "'"
    if kind == "float" and math.isinf(value):
        return "9.0e+999" if value > 0 else "-9.0e+999"
    return str(sent["value"])


class DatabaseOperations(SQLiteOperations):
    """SQLite's."""

    def _quote_params_for_last_executed_query(self, params):
        """Django asks SQLite for QUOTE(?), which would be a request for each one that is logged."""
        return tuple(quote(value) for value in params)
