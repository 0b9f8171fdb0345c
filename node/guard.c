/* Room: node. Thread: the connection's. */
#include "node/guard.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum pragma_rule {
    READ_ONLY, /* may be asked, not set */
    ANY,       /* may be asked and set: lives in the database or in the transaction */
};

struct pragma {
    const char *name;
    enum pragma_rule rule;
    bool argument_is_question; /* the argument names what is asked: table_info(t) */
};

/* What is not here is refused. */
static const struct pragma pragmas[] = {
    {"application_id", ANY, false},
    {"auto_vacuum", READ_ONLY, false},
    {"busy_timeout", READ_ONLY, false},
    {"cache_size", READ_ONLY, false},
    {"collation_list", READ_ONLY, false},
    {"compile_options", READ_ONLY, false},
    {"data_version", READ_ONLY, false},
    {"database_list", READ_ONLY, false},
    {"defer_foreign_keys", ANY, false},
    {"encoding", READ_ONLY, false},
    {"foreign_key_check", READ_ONLY, true},
    {"foreign_key_list", READ_ONLY, true},
    {"foreign_keys", READ_ONLY, false},
    {"freelist_count", READ_ONLY, false},
    {"function_list", READ_ONLY, false},
    {"incremental_vacuum", ANY, false},
    {"index_info", READ_ONLY, true},
    {"index_list", READ_ONLY, true},
    {"index_xinfo", READ_ONLY, true},
    {"integrity_check", READ_ONLY, true},
    {"journal_mode", READ_ONLY, false},
    {"locking_mode", READ_ONLY, false},
    {"max_page_count", READ_ONLY, false},
    {"module_list", READ_ONLY, false},
    {"optimize", ANY, false},
    {"page_count", READ_ONLY, false},
    {"page_size", READ_ONLY, false},
    {"pragma_list", READ_ONLY, false},
    {"quick_check", READ_ONLY, true},
    {"recursive_triggers", READ_ONLY, false},
    {"schema_version", READ_ONLY, false},
    {"synchronous", READ_ONLY, false},
    {"table_info", READ_ONLY, true},
    {"table_list", READ_ONLY, true},
    {"table_xinfo", READ_ONLY, true},
    {"user_version", ANY, false},
};

static int refuse(struct guard *g, const char *what, const char *name, const char *why)
{
    (void)snprintf(g->reason, sizeof g->reason, "%s%s %s", what, name, why);
    return SQLITE_DENY;
}

static int judge_pragma(struct guard *g, const char *name, const char *argument,
                        const char *database)
{
    /* The temporary database belongs to the connection: what is set there meets the next client. */
    if (argument != NULL && database != NULL && strcmp(database, "temp") == 0)
        return refuse(g, "PRAGMA temp.", name, "cannot be set here");
    /* Plainly written it is a setting of the session, and does not come here (node/sqltext). */
    if (argument != NULL && strcasecmp(name, "foreign_keys") == 0)
        return refuse(g, "PRAGMA ", name,
                      "is set only by a statement of its own, with a plain value: ON or OFF");
    for (size_t i = 0; i < sizeof pragmas / sizeof pragmas[0]; i++) {
        const struct pragma *p = &pragmas[i];
        if (strcasecmp(p->name, name) != 0)
            continue;
        if (argument == NULL || p->rule == ANY || p->argument_is_question)
            return SQLITE_OK;
        return refuse(g, "PRAGMA ", name,
                      "cannot be set here: Lectern decides it for all connections");
    }
    return refuse(g, "PRAGMA ", name, "is not allowed here");
}

/* Functions that reach outside the database: native code, addresses of the process, its log. */
static int judge_function(struct guard *g, const char *name)
{
    static const char *const refused[] = {"load_extension", "fts3_tokenizer", "sqlite_log"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (strcasecmp(name, refused[i]) == 0)
            return refuse(g, "", refused[i], "is not allowed here");
    return SQLITE_OK;
}

/* Virtual tables that show what other clients of the connection do, or raw pages. */
static int judge_read(struct guard *g, const char *table)
{
    static const char *const refused[] = {"sqlite_stmt", "sqlite_dbpage"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (strcasecmp(table, refused[i]) == 0)
            return refuse(g, "", refused[i],
                          "may not be read here: connections are shared by clients");
    return SQLITE_OK;
}

static int judge_transaction(struct guard *g, const char *operation)
{
    if (!g->no_transaction_control)
        return SQLITE_OK;
    return refuse(g, "", operation,
                  "is not allowed in a batch, which is one transaction by itself: leave it out, or "
                  "run the statements one by one between BEGIN and COMMIT");
}

/* `CREATE TABLE temp.t` is not a CREATE_TEMP_TABLE to SQLite, and `CREATE TRIGGER temp.x ON main.t`
 * names "main": so what counts is the row every one of them puts into the temporary schema. ALTER
 * TABLE of a lasting table updates that schema too (and finds it empty), which must stay allowed.
 */
static bool makes_temporary(int action, const char *a, const char *database)
{
    switch (action) {
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
        return true;
    case SQLITE_CREATE_INDEX:
    case SQLITE_CREATE_TABLE:
    case SQLITE_CREATE_TRIGGER:
    case SQLITE_CREATE_VIEW:
    case SQLITE_CREATE_VTABLE:
    case SQLITE_DROP_INDEX:
    case SQLITE_DROP_TABLE:
    case SQLITE_DROP_TRIGGER:
    case SQLITE_DROP_VIEW:
    case SQLITE_DROP_VTABLE:
    case SQLITE_ANALYZE:
    case SQLITE_INSERT:
        return database != NULL && strcmp(database, "temp") == 0;
    case SQLITE_ALTER_TABLE: /* the one that names the database first */
        return a != NULL && strcmp(a, "temp") == 0;
    default:
        return false;
    }
}

static int judge(void *arg, int action, const char *a, const char *b, const char *c, const char *d)
{
    struct guard *g = arg;
    (void)d;
    if (makes_temporary(action, a, c))
        return refuse(g, "temporary tables, indexes, views and triggers", "",
                      "are not allowed here: connections are shared by clients");
    switch (action) {
    case SQLITE_ATTACH:
        if (g->vacuum && (a == NULL || a[0] == 0))
            return SQLITE_OK;
        if (g->vacuum)
            return refuse(g, "VACUUM", " INTO",
                          "is not allowed here: it would write a file on the server");
        return refuse(g, "ATTACH", "",
                      "is not allowed here: a transaction of several files cannot be replicated");
    case SQLITE_DETACH:
        return g->vacuum ? SQLITE_OK
                         : refuse(g, "DETACH", "", "is not allowed here: nothing is attached");
    case SQLITE_PRAGMA:
        return judge_pragma(g, a == NULL ? "" : a, b, c);
    case SQLITE_FUNCTION:
        return judge_function(g, b == NULL ? "" : b);
    case SQLITE_READ:
        return judge_read(g, a == NULL ? "" : a);
    case SQLITE_TRANSACTION:
        return judge_transaction(g, a == NULL ? "" : a);
    case SQLITE_SAVEPOINT:
        return judge_transaction(g, "SAVEPOINT");
    default:
        return SQLITE_OK;
    }
}

void guard_install(struct guard *g, sqlite3 *conn)
{
    *g = (struct guard){0};
    (void)sqlite3_set_authorizer(conn, judge, g);
    (void)sqlite3_enable_load_extension(conn, 0);
    (void)sqlite3_db_config(conn, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    (void)sqlite3_db_config(conn, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1, (int *)NULL);
    (void)sqlite3_db_config(conn, SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0, (int *)NULL);
}

void guard_reset(struct guard *g)
{
    g->reason[0] = 0;
}
