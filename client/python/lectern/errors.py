"""The exceptions of DB-API 2.0, and which one a server's code becomes.

The classes are told apart as Python's sqlite3 tells them apart, so that a program moves over
without another `except`. `code` is the server's: SQLite's base name (SQLITE_CONSTRAINT), or one of
Hrana's (TRANSACTION_CLOSED).
"""


class Warning(Exception):  # pylint: disable=redefined-builtin
    """Of DB-API; never raised here."""


class Error(Exception):
    """The base of all."""

    code = None

    @property
    def sqlite_errorname(self):
        """The name that sqlite3 has for it."""
        return self.code


class InterfaceError(Error):
    """The module was used wrongly."""


class DatabaseError(Error):
    """The base of what the server says."""


class DataError(DatabaseError):
    """A value, a statement or an answer is over a limit."""


class OperationalError(DatabaseError):
    """Not the program's fault, or not only: busy, unreachable, a lost transaction, bad SQL."""


class UnknownOutcome(OperationalError):
    """A write was sent and its answer did not come: it may be done. It is not sent again, because
    that could do it twice; the program has to look."""


class TransactionLost(OperationalError):
    """An open transaction is gone, and nothing of it was done: it may be begun anew."""


class IntegrityError(DatabaseError):
    """A constraint."""


class InternalError(DatabaseError):
    """The server met something that it should not."""


class ProgrammingError(DatabaseError):
    """Wrong use: a closed cursor, a number of parameters that does not fit."""


class NotSupportedError(DatabaseError):
    """Of DB-API."""


CLASSES = {
    "SQLITE_CONSTRAINT": IntegrityError,
    "SQLITE_MISMATCH": IntegrityError,
    "SQLITE_TOOBIG": DataError,
    "RESPONSE_TOO_LARGE": DataError,
    "SQLITE_INTERNAL": InternalError,
    "SQLITE_NOTFOUND": InternalError,
    "SQLITE_MISUSE": ProgrammingError,
    "SQLITE_RANGE": ProgrammingError,
    "ARGS_INVALID": ProgrammingError,
    "SQL_NO_STATEMENT": ProgrammingError,
    "SQL_MANY_STATEMENTS": ProgrammingError,
    "SQLITE_CORRUPT": DatabaseError,
    "SQLITE_AUTH": DatabaseError,
    "SQLITE_FORMAT": DatabaseError,
    "SQLITE_NOTADB": DatabaseError,
    "TRANSACTION_CLOSED": TransactionLost,
    "TRANSACTION_TIMEOUT": TransactionLost,
    "STREAM_EXPIRED": TransactionLost,
}
PREFIXES = ("SQLite error: ", "SQL input error: ")


def sqlite_text(message):
    """SQLite's own sentence, as sqlite3 raises it, without what the protocol puts around it."""
    for prefix in PREFIXES:
        if message.startswith(prefix):
            message = message[len(prefix):]
            offset = message.rfind(" (at offset ")
            return message[:offset] if offset > 0 else message
    return message


def error_of(code, message, kind=None):
    """The exception for what the server said: of the class that CODE has, or of KIND."""
    error = (kind or CLASSES.get(code, OperationalError))(sqlite_text(message))
    error.code = code
    return error
