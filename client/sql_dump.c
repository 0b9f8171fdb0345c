/* Room: client.   Thread: any, one at a time.   Owns: nothing.
 * Not here: who reads the database, and when (shell_dump.c, node/http/dump.c); how a value is
 * written (sql_literal.c). */
#include "client/sql_dump.h"

#include "client/sql_literal.h"

#include <string.h>

#define CREATE_TABLE "CREATE TABLE "

static void put(struct sql_dump *d, const char *text)
{
    buf_put(d->out, text, strlen(text));
}

static bool starts(const struct sql_text *text, const char *with)
{
    size_t n = strlen(with);
    return text->n >= n && memcmp(text->p, with, n) == 0;
}

void sql_dump_begin(struct sql_dump *d, struct buf *out)
{
    *d = (struct sql_dump){.out = out};
    put(d, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
}

static void put_virtual(struct sql_dump *d, const struct sql_text *sql)
{
    if (!d->virtual_tables)
        put(d, "PRAGMA writable_schema=ON;\n");
    d->virtual_tables = true;
    put(d, "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table',");
    sql_put_text(d->out, d->table.p, d->table.n);
    put(d, ",");
    sql_put_text(d->out, d->table.p, d->table.n);
    put(d, ",0,");
    sql_put_text(d->out, sql->p, sql->n);
    put(d, ");\n");
}

bool sql_dump_table(struct sql_dump *d, struct sql_text name, struct sql_text sql)
{
    d->table = name;
    if (starts(&name, "sqlite_sequence") && name.n == strlen("sqlite_sequence")) {
        put(d, "DELETE FROM sqlite_sequence;\n");
    } else if (starts(&name, "sqlite_stat") && name.n == strlen("sqlite_stat1")) {
        put(d, "ANALYZE sqlite_schema;\n");
    } else if (starts(&name, "sqlite_")) {
        return false;
    } else if (starts(&sql, "CREATE VIRTUAL TABLE")) {
        put_virtual(d, &sql);
        return false;
    } else if (starts(&sql, CREATE_TABLE "'") || starts(&sql, CREATE_TABLE "\"")) {
        /* A shadow table may be there already when its virtual table made it. */
        put(d, CREATE_TABLE "IF NOT EXISTS ");
        sql.p += strlen(CREATE_TABLE);
        sql.n -= strlen(CREATE_TABLE);
        sql_dump_other(d, sql);
    } else {
        sql_dump_other(d, sql);
    }
    return true;
}

void sql_dump_value(struct sql_dump *d, uint32_t column, const struct wire_value *v)
{
    if (column == 0) {
        put(d, "INSERT INTO ");
        sql_put_name(d->out, d->table.p, d->table.n);
    }
    put(d, column == 0 ? " VALUES(" : ",");
    sql_put_literal(d->out, v, true);
}

void sql_dump_end_row(struct sql_dump *d)
{
    put(d, ");\n");
}

void sql_dump_other(struct sql_dump *d, struct sql_text sql)
{
    buf_put(d->out, sql.p, sql.n);
    put(d, ";\n");
}

void sql_dump_end(struct sql_dump *d, bool whole)
{
    if (d->virtual_tables)
        put(d, "PRAGMA writable_schema=OFF;\n");
    put(d, whole ? "COMMIT;\n" : "ROLLBACK; -- due to errors\n");
}
