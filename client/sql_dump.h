/* Room: client. The text of a dump, in the form of sqlite3's .dump: for the shell, and for GET
 * /dump of a node. It comes piece by piece into a buffer, which whoever reads the database empties
 * as it likes, and which keeps what went wrong. No part of the library. Thread: any, one at a time.
 *
 *     sql_dump_begin -> each row of SQL_DUMP_TABLES: sql_dump_table, and its rows
 *                    -> each row of SQL_DUMP_OTHERS: sql_dump_other -> sql_dump_end
 *
 * Tables with their rows come first (sqlite_sequence last), then indexes, triggers and views, so
 * that rows are loaded fast and without side effects. A virtual table is written into the schema as
 * it stands, and its shadow tables with their rows: that is the only way back for all kinds of
 * them, and needs sqlite3, not Lectern (writable_schema). */
#ifndef CLIENT_SQL_DUMP_H
#define CLIENT_SQL_DUMP_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_value;

struct sql_text {
    const char *p;
    size_t n;
};

struct sql_dump {
    struct buf *out;
    struct sql_text table; /* whose rows come */
    bool virtual_tables;   /* writable_schema is on in the text */
};

/* Name, text, and the SELECT of all columns that can be inserted (no generated and no hidden ones);
 * a virtual table has none: its rows are its shadow tables'. WANTED: "" or "AND ..." about `o`. */
#define SQL_DUMP_TABLES(wanted)                                                                    \
    "SELECT name, sql, CASE WHEN sql LIKE 'CREATE VIRTUAL TABLE%' THEN '' ELSE 'SELECT ' || "      \
    "(SELECT group_concat('\"' || replace(name, '\"', '\"\"') || '\"') FROM (SELECT name FROM "    \
    "pragma_table_info(o.name) ORDER BY cid)) || ' FROM \"' || replace(name, '\"', '\"\"') || "    \
    "'\"' END FROM sqlite_schema AS o WHERE type = 'table' AND sql NOT NULL " wanted               \
    " ORDER BY tbl_name = 'sqlite_sequence', rowid"
/* The texts of all others. */
#define SQL_DUMP_OTHERS(wanted)                                                                    \
    "SELECT sql FROM sqlite_schema AS o WHERE sql NOT NULL AND type IN ('index', 'trigger', "      \
    "'view') " wanted " ORDER BY rowid"

void sql_dump_begin(struct sql_dump *d, struct buf *out);
/* NAME is borrowed until the next table. False: its rows are not wanted. */
bool sql_dump_table(struct sql_dump *d, struct sql_text name, struct sql_text sql);
/* A row of that table, value by value: COLUMN is 0, 1, ... */
void sql_dump_value(struct sql_dump *d, uint32_t column, const struct wire_value *v);
void sql_dump_end_row(struct sql_dump *d);
void sql_dump_other(struct sql_dump *d, struct sql_text sql);
/* WHOLE: all of it could be read. Else what reads the text takes nothing. */
void sql_dump_end(struct sql_dump *d, bool whole);

#endif
