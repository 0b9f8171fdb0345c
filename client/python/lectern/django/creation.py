"""Databases for tests. A cluster holds one database, so that of the tests is another cluster: a
node in a temporary directory, or the one that TEST["NAME"] names."""

import contextlib
import sys

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.creation import BaseDatabaseCreation
from django.db.backends.sqlite3.creation import DatabaseCreation as SQLiteCreation

from .. import dbapi
from .settings import checked_options, checked_urls
from .temporary import NotStarted, TemporaryNode

EVERYTHING = ("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'table') "
              "AND name NOT LIKE 'sqlite_%' ORDER BY type DESC")


def _drop(connection):
    """Empties the database, in one transaction."""
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN IMMEDIATE")
    for kind, name in connection.execute(EVERYTHING).fetchall():
        name = name.replace('"', '""')
        connection.execute(f'DROP {kind} IF EXISTS "{name}"')
    connection.commit()


class DatabaseCreation(SQLiteCreation):
    """Of the database for tests."""

    _node = None

    @staticmethod
    def is_in_memory_db(database_name):
        return False

    def _wanted(self):
        return self.connection.settings_dict["TEST"]["NAME"]

    def _get_test_db_name(self):
        if self._wanted():
            return self._wanted()
        if self._node is None:
            options = checked_options(self.connection.settings_dict["OPTIONS"])
            try:
                self._node = TemporaryNode(options.get("lecternd") or "lecternd")
            except NotStarted as e:
                raise ImproperlyConfigured(str(e)) from e
        return self._node.url

    def _create_test_db(self, verbosity, autoclobber, keepdb=False):
        name = self._get_test_db_name()
        if self._node is not None or keepdb:
            return name
        real = set(checked_urls("NAME", self.connection.settings_dict["NAME"]))
        if real & set(checked_urls("TEST['NAME']", name)):
            raise ImproperlyConfigured(
                "TEST['NAME'] is the cluster of NAME: tests would destroy its data. Name another "
                "one, or none: then a temporary node is started.")
        with contextlib.closing(dbapi.connect(name, isolation_level=None)) as connection:
            if connection.execute(EVERYTHING).fetchone() is not None:
                self._ask(name, autoclobber)
                _drop(connection)
        return name

    def _ask(self, name, autoclobber):
        if autoclobber:
            return
        if input(f"The cluster {name} has tables. Type 'yes' to delete all of them, or 'no' to "
                 "cancel: ") != "yes":
            self.log("Tests cancelled.")
            sys.exit(1)

    def _destroy_test_db(self, test_database_name, verbosity):
        if self._node is not None:
            self._node.stop()
            self._node = None
            return
        with contextlib.closing(dbapi.connect(test_database_name,
                                              isolation_level=None)) as connection:
            _drop(connection)

    def get_test_db_clone_settings(self, suffix):
        return BaseDatabaseCreation.get_test_db_clone_settings(self, suffix)

    def _clone_test_db(self, suffix, verbosity, keepdb=False):
        """Says that tests cannot run in parallel."""
        return BaseDatabaseCreation._clone_test_db(self, suffix, verbosity, keepdb)

    def test_db_signature(self):
        return (self.connection.settings_dict["NAME"], self._wanted() or self.connection.alias)
