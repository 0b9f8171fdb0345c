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
    {"foreign_keys", READ_ONLY, false}, /* setting it is the session's, before it comes here */
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

static int judge_pragma(struct guard *g, const char *name, const char *argument)
{
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

static int judge(void *arg, int action, const char *a, const char *b, const char *c, const char *d)
{
    struct guard *g = arg;
    (void)c;
    (void)d;
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
        return judge_pragma(g, a == NULL ? "" : a, b);
    case SQLITE_FUNCTION:
        if (b != NULL && strcasecmp(b, "load_extension") == 0)
            return refuse(g, "", b, "is not allowed here");
        return SQLITE_OK;
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
        return refuse(g, "temporary ", a == NULL ? "" : a,
                      "is not allowed here: connections are shared by clients");
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
}

void guard_reset(struct guard *g)
{
    g->reason[0] = 0;
}
