"""What the nodes can. Django asks this machine's SQLite; here it is the server's that counts."""

from django.db.backends.sqlite3.features import DatabaseFeatures as SQLiteFeatures
from django.utils.functional import cached_property


def _since(*version):
    return property(lambda self: self.server_version >= version)


class DatabaseFeatures(SQLiteFeatures):
    """SQLite's, by the version of the node that is asked."""

    # Another database would be another cluster.
    can_clone_databases = False
    # Not one in memory, which threads would have to share.
    test_db_allows_multiple_connections = True
    # Lectern is built with SQLite 3.40 or newer, with JSON.
    can_alter_table_rename_column = True
    can_alter_table_drop_column = True
    supports_atomic_references_rename = True
    supports_pragma_foreign_key_check = True
    can_defer_constraint_checks = True
    supports_functions_in_partial_indexes = True
    supports_over_clause = True
    supports_frame_range_fixed_distance = True
    supports_aggregate_filter_clause = True
    supports_order_by_nulls_modifier = True
    requires_compound_order_by_subquery = False
    supports_update_conflicts = True
    supports_update_conflicts_with_target = True
    supports_json_field = True
    can_introspect_json_field = True
    has_json_object_function = True
    max_query_params = 999  # Django 5.2 asks sqlite3's connection
    # RETURNING: only a Django that knows it (4.0 and newer) has something else than False here.
    can_return_columns_from_insert = SQLiteFeatures.can_return_columns_from_insert is not False
    supports_aggregate_order_by_clause = _since(3, 44, 0)
    supports_uuid7_function = True  # Django 6.1 asks this machine's Python

    @cached_property
    def server_version(self):
        """(3, 40, 1): of the SQLite in the node that answered."""
        with self.connection.temporary_connection() as cursor:
            version = cursor.execute("SELECT sqlite_version()").fetchone()[0]
        return tuple(int(part) for part in version.split("."))
