"""What Django says in SQL: SQLite's, but for what would ask the server for nothing."""

from django.db.backends.sqlite3.operations import DatabaseOperations as SQLiteOperations

from ..values import BEYOND, decode, encode


def quote(value):
    """A parameter as SQLite's quote() writes it, for logs only."""
    sent = encode(value)
    if sent.get("value") in (BEYOND, -BEYOND):
        return "9.0e+999" if sent["value"] > 0 else "-9.0e+999"
    value = decode(sent)
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return "X'" + value.hex().upper() + "'"
    return str(value)


class DatabaseOperations(SQLiteOperations):
    """SQLite's."""

    def _quote_params_for_last_executed_query(self, params):
        """Django asks SQLite for QUOTE(?), which would be a request for each one that is logged."""
        return tuple(quote(value) for value in params)
