"""Django's SQLite backend with another connection: to the HTTP door of a cluster.

SQL, schema editor, introspection and types are those of django.db.backends.sqlite3; SQLite's
functions that Django registers from Python are in the server. Written for Django 3.2 to 5.x.
"""

import datetime
import decimal
import re
from collections.abc import Mapping

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.sqlite3 import base as sqlite
from django.utils.asyncio import async_unsafe
from django.utils.dateparse import parse_date, parse_datetime, parse_time

from .. import dbapi as Database
from .client import DatabaseClient
from .creation import DatabaseCreation
from .features import DatabaseFeatures
from .operations import DatabaseOperations
from .settings import OF_CONNECTIONS, checked_options, checked_urls


def _text(parse):
    return lambda raw: parse(raw.decode())


# As django.db.backends.sqlite3.base registers them for sqlite3.
Database.register_converter("bool", b"1".__eq__)
Database.register_converter("date", _text(parse_date))
Database.register_converter("time", _text(parse_time))
Database.register_converter("datetime", _text(parse_datetime))
Database.register_converter("timestamp", _text(parse_datetime))
Database.register_adapter(decimal.Decimal, str)
Database.register_adapter(datetime.date, datetime.date.isoformat)
Database.register_adapter(datetime.datetime, lambda value: value.isoformat(" "))

FORMAT_QMARK = re.compile(r"(?<!%)%s")


class DatabaseWrapper(sqlite.DatabaseWrapper):
    """One connection of one thread."""

    display_name = "Lectern"
    Database = Database
    client_class = DatabaseClient
    creation_class = DatabaseCreation
    features_class = DatabaseFeatures
    ops_class = DatabaseOperations

    def get_connection_params(self):
        options = checked_options(self.settings_dict["OPTIONS"])
        # A deferred transaction that reads, and then writes after another one did, cannot go on.
        self.begin = f"BEGIN {options.get('transaction_mode', 'IMMEDIATE').upper()}"
        return {"url": checked_urls("NAME", self.settings_dict["NAME"]), "isolation_level": None,
                "detect_types": Database.PARSE_DECLTYPES | Database.PARSE_COLNAMES,
                **{name: options[name] for name in OF_CONNECTIONS if name in options}}

    @async_unsafe
    def get_new_connection(self, conn_params):
        connection = Database.connect(**conn_params)
        for sql in (self.settings_dict["OPTIONS"].get("init_command") or "").split(";"):
            if sql.strip():
                connection.execute(sql.strip())
        return connection

    def create_cursor(self, name=None):
        return self.connection.cursor(factory=CursorWrapper)

    @async_unsafe
    def close(self):
        self.validate_thread_sharing()
        BaseDatabaseWrapper.close(self)

    def _start_transaction_under_autocommit(self):
        self.cursor().execute(self.begin)

    def get_database_version(self):
        """The SQLite of the node, not this machine's."""
        return self.features.server_version

    def is_in_memory_db(self):
        return False

    def is_usable(self):
        """No node is asked: a connection finds another one by itself."""
        return not self.connection.closed


class CursorWrapper(Database.Cursor):
    """Django writes %s (and, since 4.2, %(name)s), SQLite wants ? and :name."""

    def execute(self, query, params=None):  # pylint: disable=arguments-differ,arguments-renamed
        if params is None:
            return super().execute(query)
        names = list(params) if isinstance(params, Mapping) else None
        return super().execute(self.convert_query(query, names), params)

    def executemany(self, query, param_list):  # pylint: disable=arguments-renamed
        rows = iter(param_list)
        first = next(rows, None)
        if first is None:
            return self
        names = list(first) if isinstance(first, Mapping) else None
        return super().executemany(self.convert_query(query, names), [first, *rows])

    def convert_query(self, query, param_names=None):
        if param_names is None:
            return FORMAT_QMARK.sub("?", query).replace("%%", "%")
        return query % {name: f":{name}" for name in param_names}
