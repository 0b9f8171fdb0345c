/* Room: node. Thread: owner.
 *
 * What one request says, on a connection of the lane: one statement, or a batch of them, all or
 * none. The whole answer is in memory when this returns, and nothing of it has left. */
#include "node/lane_state.h"

#include "base/check.h"

/* The current statement of R; its rows are added to the answer. */
static enum err run_statement(struct lane *l, struct sqlconn *c, struct request *r,
                              bool *wrote) ON_OWNER
{
    bool writes;
    r->answer.changes = 0;
    r->answer.last_insert_rowid = r->last_insert_rowid;
    enum err e = sqlconn_run(c, r, l->config->answer_bytes_max, &writes);
    *wrote = *wrote || writes;
    return e;
}

static enum err refuse_vacuum(struct request *r)
{
    if (sql_classify(r->statement.sql, r->statement.sql_len) != SQL_ALONE)
        return ERR_OK;
    request_fail(r, ERR_FORBIDDEN, "VACUUM cannot be a part of a batch");
    return ERR_FORBIDDEN;
}

/* Control of transactions inside a batch would cut it in two; it is refused where it is prepared.
 */
static enum err run_statements(struct lane *l, struct sqlconn *c, struct request *r,
                               bool *wrote) ON_OWNER
{
    int64_t changes = 0;
    do {
        TRY(sqlconn_go_on(c, r)); /* each may be too short to be interrupted itself */
        TRY(refuse_vacuum(r));
        TRY(run_statement(l, c, r, wrote));
        struct wire_step step = {r->answer.changes, r->answer.last_insert_rowid};
        wire_put_step(&r->answer.out, r->id, &step);
        if (r->answer.out.failed != ERR_OK || r->answer.out.len > l->config->answer_bytes_max) {
            request_fail(r, ERR_TOO_BIG, "the batch answers more than a write may (answer-bytes)");
            return ERR_TOO_BIG;
        }
        changes += r->answer.changes;
        r->last_insert_rowid = r->answer.last_insert_rowid; /* what the next one sees */
    } while (request_next_statement(r));
    r->answer.changes = changes;
    return ERR_OK;
}

enum err lane_run(struct lane *l, struct sqlconn *c, struct request *r, bool *wrote)
{
    *wrote = false;
    request_first_statement(r);
    if (!r->is_batch)
        return run_statement(l, c, r, wrote);
    int64_t seen = r->last_insert_rowid; /* for another attempt */
    sqlconn_forbid_transactions(c, true);
    enum err e = run_statements(l, c, r, wrote);
    sqlconn_forbid_transactions(c, c == l->group);
    r->last_insert_rowid = seen;
    r->answer.statement = r->statement_at; /* of use with an error only */
    return e;
}

/* SQLite writes all before it gives the first row (RETURNING): that rows are too many undoes
 * nothing. */
static enum err run_single(struct lane *l, struct sqlconn *c, struct request *r) ON_OWNER
{
    bool wrote;
    enum err e = lane_run(l, c, r, &wrote);
    if (e == ERR_TOO_BIG && wrote && !sqlite3_get_autocommit(sqlconn_handle(c)))
        request_fail(r, e = ERR_ROWS_LOST,
                     "the statement was done, but it returns more than a write may "
                     "(answer-bytes)");
    return e;
}

enum err lane_run_inside(struct lane *l, struct sqlconn *c, struct request *r)
{
    bool wrote;
    if (r->is_describe)
        return sqlconn_describe(c, r);
    if (!r->is_batch || sqlite3_get_autocommit(sqlconn_handle(c)))
        return run_single(l, c, r);
    int rc = sqlconn_exec(c, "SAVEPOINT batch");
    if (rc != SQLITE_OK)
        return sqlconn_fail(c, r, rc);
    enum err e = lane_run(l, c, r, &wrote);
    if (sqlite3_get_autocommit(sqlconn_handle(c)))
        return e; /* ON CONFLICT ROLLBACK and its like: all of the transaction is gone */
    if (e != ERR_OK)
        rc = sqlconn_exec(c, "ROLLBACK TO batch");
    if (rc == SQLITE_OK)
        rc = sqlconn_exec(c, "RELEASE batch");
    if (rc != SQLITE_OK) { /* half of a batch must not stay */
        e = sqlconn_fail(c, r, rc);
        (void)sqlconn_exec(c, "ROLLBACK");
    }
    return e;
}
