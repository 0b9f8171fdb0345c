/* Room: client.   Thread: one.   Owns: texts.
 *
 * Not here: sending (shell_load_db.c).
 *
 * Virtual tables: their shadow tables cannot be written to in a cluster (nor anywhere, with
 * SQLITE_DBCONFIG_DEFENSIVE), so they are made by their CREATE and filled through INSERT, or
 * rebuilt from the table that they index. Which modules that is right for is known of SQLite's own
 * ones; others are refused before anything is written. */
#include "client/shell_load_schema.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static enum err no_memory(void)
{
    return err_fail(ERR_NOMEM, "out of memory");
}

enum err schema_source_failed(sqlite3 *db, const char *file, const char *place)
{
    int code = sqlite3_errcode(db);
    const char *hint = "";
    if (code == SQLITE_NOTADB)
        hint = ": it begins like a SQLite database, but is damaged, or encrypted: decrypt it, or "
               "take another copy";
    else if (code == SQLITE_CORRUPT)
        hint = ": the file is damaged; `sqlite3 FILE .recover` makes SQL of what can still be read";
    return err_fail(ERR_CORRUPT, "%s: %s%s%s%s", file, place, *place == 0 ? "" : ": ",
                    sqlite3_errmsg(db), hint);
}

static char *copy_column(sqlite3_stmt *stmt, int column)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    return text == NULL ? NULL : sqlite3_mprintf("%s", text);
}

/* --- virtual tables --------------------------------------------------------------------------- */

/* The next argument of a list between parentheses: up to a comma that is not inside of quotes or
 * parentheses. False: there is none. */
static bool next_argument(const char **at, const char **begin, const char **end)
{
    int depth = 0;
    char quote = 0;
    const char *p = *at;
    while (isspace((unsigned char)*p))
        p++;
    if (*p == 0 || *p == ')')
        return false;
    *begin = p;
    for (; *p != 0; p++) {
        if (quote != 0) {
            if (*p == quote)
                quote = 0; /* a doubled one begins the next quoted part */
        } else if (*p == '\'' || *p == '"' || *p == '`') {
            quote = *p;
        } else if (*p == '[') {
            quote = ']';
        } else if (*p == '(') {
            depth++;
        } else if (*p == ')' && depth-- == 0) {
            break;
        } else if (*p == ',' && depth == 0) {
            break;
        }
    }
    *end = p;
    *at = *p == ',' ? p + 1 : p;
    return true;
}

/* Does CREATE VIRTUAL TABLE ... USING module(..., NAME = value, ...) have this option? *empty: its
 * value is the empty string. */
static bool has_option(const char *sql, const char *name, bool *empty)
{
    const char *at = sql, *begin, *end;
    size_t n = strlen(name);
    /* The parenthesis behind USING module: one inside of the table's own name is in quotes. */
    for (char quote = 0; *at != 0 && (quote != 0 || *at != '('); at++) {
        if (quote != 0)
            quote = *at == quote ? 0 : quote;
        else if (*at == '\'' || *at == '"' || *at == '`' || *at == '[')
            quote = *at == '[' ? ']' : *at;
    }
    if (*at == 0)
        return false;
    at++;
    while (next_argument(&at, &begin, &end)) {
        if ((size_t)(end - begin) <= n || sqlite3_strnicmp(begin, name, (int)n) != 0)
            continue;
        const char *p = begin + n;
        while (p < end && isspace((unsigned char)*p))
            p++;
        if (p == end || *p != '=')
            continue;
        p++;
        while (p < end && isspace((unsigned char)*p))
            p++;
        while (end > p && isspace((unsigned char)end[-1]))
            end--;
        *empty = p == end || (end - p == 2 && p[0] == p[1]) || (end - p == 2 && p[0] == '[');
        return true;
    }
    return false;
}

/* The word behind USING, in lower case. */
static void module_of(const char *sql, char *to, size_t room)
{
    size_t n = 0;
    char quote = 0;
    to[0] = 0;
    for (const char *p = sql; *p != 0; p++) {
        if (quote != 0) {
            quote = *p == quote ? 0 : quote;
        } else if (*p == '\'' || *p == '"' || *p == '`' || *p == '[') {
            quote = *p == '[' ? ']' : *p;
        } else if (p > sql && isspace((unsigned char)p[-1]) &&
                   sqlite3_strnicmp(p, "using", 5) == 0 && isspace((unsigned char)p[5])) {
            p += 5;
            while (isspace((unsigned char)*p) || *p == '"' || *p == '`' || *p == '[' || *p == '\'')
                p++;
            while ((isalnum((unsigned char)*p) || *p == '_') && n + 1 < room)
                to[n++] = (char)tolower((unsigned char)*p++);
            to[n] = 0;
            return;
        }
    }
}

static enum err judge_full_text(struct object *o, const char *file, bool fts5)
{
    bool empty = false;
    if (has_option(o->sql, "content", &empty)) {
        if (empty)
            return err_fail(
                ERR_FORBIDDEN,
                "%s: %s is a full-text index without content: its texts cannot be read "
                "back. Load a copy of the file in which it is dropped, and fill it anew",
                file, o->name);
        o->kind = OBJECT_REBUILT;
    }
    if (!fts5 && has_option(o->sql, "languageid", &empty))
        return err_fail(ERR_FORBIDDEN,
                        "%s: the full-text index %s has languages, which are not loaded. Load a "
                        "copy of the file in which it is dropped, and fill it anew",
                        file, o->name);
    return ERR_OK;
}

static enum err judge_virtual(struct object *o, const char *file)
{
    static const char *const filled[] = {"rtree", "rtree_i32", "geopoly"};
    char module[64];
    module_of(o->sql, module, sizeof module);
    o->kind = OBJECT_VIRTUAL;
    if (strcmp(module, "fts5") == 0)
        return judge_full_text(o, file, true);
    if (strcmp(module, "fts4") == 0 || strcmp(module, "fts3") == 0)
        return judge_full_text(o, file, false);
    for (size_t i = 0; i < sizeof filled / sizeof filled[0]; i++)
        if (strcmp(module, filled[i]) == 0)
            return ERR_OK;
    return err_fail(ERR_FORBIDDEN,
                    "%s: the virtual table %s is of the module \"%s\", and nothing is known of how "
                    "its rows are copied. Load a copy of the file in which it is dropped",
                    file, o->name, module);
}

/* --- the list --------------------------------------------------------------------------------- */

/* What pragma_table_list says of a table. */
static enum err judge_table(sqlite3 *db, const char *file, struct object *o, bool *without_rowid)
{
    sqlite3_stmt *stmt = NULL;
    enum err e = ERR_OK;
    *without_rowid = false;
    o->kind = OBJECT_TABLE;
    if (sqlite3_strnicmp(o->name, "sqlite_", 7) == 0) {
        o->kind = OBJECT_INTERNAL;
        return ERR_OK;
    }
    if (sqlite3_prepare_v2(db,
                           "SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name "
                           "= ?1 COLLATE NOCASE",
                           -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_bind_text(stmt, 1, o->name, -1, SQLITE_STATIC) != SQLITE_OK)
        e = schema_source_failed(db, file, o->name);
    else if (sqlite3_step(stmt) != SQLITE_ROW)
        e = schema_source_failed(db, file, o->name);
    const char *type = e == ERR_OK ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
    if (e == ERR_OK && type == NULL)
        e = no_memory();
    if (e == ERR_OK && strcmp(type, "virtual") == 0)
        e = judge_virtual(o, file);
    else if (e == ERR_OK && strcmp(type, "shadow") == 0)
        o->kind = OBJECT_SHADOW;
    if (e == ERR_OK)
        *without_rowid = sqlite3_column_int(stmt, 1) != 0;
    (void)sqlite3_finalize(stmt);
    return e;
}

/* Is the rowid a column of its own (INTEGER PRIMARY KEY)? Then it needs no name. A rowid table
 * whose key has an index of its own has another rowid beside it. */
static enum err rowid_is_column(sqlite3 *db, const char *file, const char *name, bool *is)
{
    sqlite3_stmt *stmt = NULL;
    enum err e = ERR_OK;
    if (sqlite3_prepare_v2(db,
                           "SELECT (SELECT count(*) FROM pragma_table_xinfo(?1, 'main') WHERE pk > "
                           "0) = 1 AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') "
                           "WHERE origin = 'pk')",
                           -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        e = schema_source_failed(db, file, name);
    else
        *is = sqlite3_column_int(stmt, 0) != 0;
    (void)sqlite3_finalize(stmt);
    return e;
}

struct names {
    char *columns; /* quoted, with commas */
    int n;
    bool taken[3]; /* a column has that name of the rowid */
};

static const char *const rowids[3] = {"rowid", "_rowid_", "oid"};

/* The columns that can be inserted: no generated and no hidden ones. */
static enum err read_columns(sqlite3 *db, const char *file, const char *name, struct names *names)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(
        db, "SELECT name, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid", -1, &stmt,
        NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *column = (const char *)sqlite3_column_text(stmt, 0);
        rc = column == NULL ? SQLITE_NOMEM : SQLITE_OK;
        for (int i = 0; i < 3 && column != NULL; i++)
            names->taken[i] = names->taken[i] || sqlite3_stricmp(column, rowids[i]) == 0;
        if (column == NULL || sqlite3_column_int(stmt, 1) != 0)
            continue;
        char *longer = sqlite3_mprintf("%s%s\"%w\"", names->n > 0 ? names->columns : "",
                                       names->n > 0 ? "," : "", column);
        sqlite3_free(names->columns);
        names->columns = longer;
        names->n++;
        if (longer == NULL)
            rc = SQLITE_NOMEM;
    }
    (void)sqlite3_finalize(stmt);
    if (rc != SQLITE_DONE)
        return rc == SQLITE_NOMEM ? no_memory() : schema_source_failed(db, file, name);
    if (names->n == 0)
        return err_fail(ERR_CORRUPT, "%s: %s has no columns", file, name);
    return ERR_OK;
}

/* "?1,?2,...": N of them; sqlite3_free it. */
static char *placeholders(int n)
{
    sqlite3_str *s = sqlite3_str_new(NULL);
    for (int i = 1; i <= n; i++)
        sqlite3_str_appendf(s, "%s?%d", i > 1 ? "," : "", i);
    return sqlite3_str_finish(s);
}

/* SELECT and INSERT of all that is to be kept: the rowid too, where it is no column. */
static enum err make_statements(sqlite3 *db, const char *file, struct object *o, bool without_rowid)
{
    struct names names = {0};
    bool is_column = without_rowid;
    enum err e = read_columns(db, file, o->name, &names);
    if (e == ERR_OK && !is_column)
        e = rowid_is_column(db, file, o->name, &is_column);
    const char *rowid = NULL;
    for (int i = 0; i < 3 && !is_column; i++)
        if (rowid == NULL && !names.taken[i])
            rowid = rowids[i];
    if (e == ERR_OK) {
        o->columns = names.n + (rowid != NULL);
        char *values = placeholders(o->columns);
        const char *first = rowid == NULL ? "" : rowid, *comma = rowid == NULL ? "" : ",";
        o->select =
            sqlite3_mprintf("SELECT %s%s%s FROM main.\"%w\"", first, comma, names.columns, o->name);
        o->insert = sqlite3_mprintf("INSERT INTO \"%w\"(%s%s%s) VALUES(%s)", o->name, first, comma,
                                    names.columns, values);
        if (o->select == NULL || o->insert == NULL || values == NULL)
            e = no_memory();
        sqlite3_free(values);
    }
    sqlite3_free(names.columns);
    return e;
}

/* An R-tree's first column is its rowid. */
static bool rowid_is_first_column(const struct object *o)
{
    char module[64];
    module_of(o->sql, module, sizeof module);
    return o->kind == OBJECT_VIRTUAL && strncmp(module, "rtree", 5) == 0;
}

static enum err complete_object(sqlite3 *db, const char *file, struct schema *s, struct object *o)
{
    bool without_rowid;
    o->kind = OBJECT_LATER;
    if (strcmp(o->type, "table") != 0)
        return ERR_OK;
    TRY(judge_table(db, file, o, &without_rowid));
    s->has_sequence = s->has_sequence || sqlite3_stricmp(o->name, "sqlite_sequence") == 0;
    s->has_stat = s->has_stat || sqlite3_stricmp(o->name, "sqlite_stat1") == 0;
    if (o->kind == OBJECT_TABLE || o->kind == OBJECT_VIRTUAL)
        return make_statements(db, file, o, without_rowid || rowid_is_first_column(o));
    return ERR_OK;
}

static enum err add_object(struct schema *s, sqlite3_stmt *stmt)
{
    struct object *more = realloc(s->objects, (s->n + 1) * sizeof *more);
    if (more == NULL)
        return no_memory();
    s->objects = more;
    struct object *o = &s->objects[s->n++];
    *o = (struct object){
        .type = copy_column(stmt, 0), .name = copy_column(stmt, 1), .sql = copy_column(stmt, 2)};
    return o->type == NULL || o->name == NULL ? no_memory() : ERR_OK;
}

static enum err list_objects(sqlite3 *db, const char *file, struct schema *s)
{
    sqlite3_stmt *stmt = NULL;
    enum err e = ERR_OK;
    int rc = sqlite3_prepare_v2(db, "SELECT type, name, sql FROM main.sqlite_schema ORDER BY rowid",
                                -1, &stmt, NULL);
    while (rc == SQLITE_OK && e == ERR_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        e = add_object(s, stmt);
        rc = SQLITE_OK;
    }
    if (e == ERR_OK && rc != SQLITE_DONE)
        e = schema_source_failed(db, file, "");
    (void)sqlite3_finalize(stmt);
    return e;
}

/* --- numbers ---------------------------------------------------------------------------------- */

static enum err read_number(sqlite3 *db, const char *file, const char *name, const char *sql,
                            int64_t *to)
{
    sqlite3_stmt *stmt = NULL;
    enum err e = ERR_OK;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        e = schema_source_failed(db, file, name);
    else
        *to = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return e;
}

static enum err count_rows(sqlite3 *db, const char *file, struct schema *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        struct object *o = &s->objects[i];
        int64_t rows = 0;
        if (o->select == NULL)
            continue;
        char *sql = sqlite3_mprintf("SELECT count(*) FROM main.\"%w\"", o->name);
        enum err e = sql == NULL ? no_memory() : read_number(db, file, o->name, sql, &rows);
        sqlite3_free(sql);
        TRY(e);
        o->rows = (uint64_t)rows;
        s->rows += o->rows;
    }
    return ERR_OK;
}

enum err schema_read(sqlite3 *db, const char *file, struct schema *s)
{
    *s = (struct schema){0};
    TRY(list_objects(db, file, s));
    for (unsigned i = 0; i < s->n; i++)
        TRY(complete_object(db, file, s, &s->objects[i]));
    TRY(read_number(db, file, "user_version", "PRAGMA main.user_version", &s->user_version));
    TRY(read_number(db, file, "application_id", "PRAGMA main.application_id", &s->application_id));
    return count_rows(db, file, s);
}

void schema_fini(struct schema *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        struct object *o = &s->objects[i];
        sqlite3_free(o->type);
        sqlite3_free(o->name);
        sqlite3_free(o->sql);
        sqlite3_free(o->select);
        sqlite3_free(o->insert);
    }
    free(s->objects);
    *s = (struct schema){0};
}
