/* Room: node.   Thread: loop.   Owns: each session's snapshot while no request is under way in it.
 * Invariants: s->snapshot != NULL: the home is HOME_SNAPSHOT, and `snapped` is linked; a request
 *   that is with its reader has a copy of the pointer, and what it brings back is the truth. */
#include "node/read_txn.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>

bool read_txn_begins(const struct request *r)
{
    return r->kind == SQL_TRANSACTION && !r->is_batch &&
           sql_step_of(r->statement.sql, r->statement.sql_len) == SQL_STEP_READONLY;
}

/* A request that no reader is needed for. */
static void fail(struct session *s, struct request *r, enum err code, const char *sentence) ON_LOOP
{
    request_fail(r, code, sentence);
    r->answer.time_up = code == ERR_TXN_LOST && s->snapshot_time_up;
    r->answer.in_transaction = s->home != HOME_NONE;
    session_answer(s, r);
}

/* The client hears of the end at its next request; ROLLBACK is what it would want anyway. */
static void answer_lost(struct session *s, struct request *r) ON_LOOP
{
    char *why = s->snapshot_lost;
    s->snapshot_lost = NULL;
    s->home = HOME_NONE;
    if (!r->is_describe && sql_is_rollback(r->statement.sql, r->statement.sql_len))
        session_answer(s, r);
    else
        fail(s, r, ERR_TXN_LOST, why);
    free(why);
}

void read_txn_route(struct session *s, struct request *r)
{
    CHECK(s->home == HOME_SNAPSHOT);
    if (s->snapshot == NULL) {
        answer_lost(s, r);
    } else if (r->is_batch) {
        fail(s, r, ERR_FORBIDDEN, "a read transaction is open: a batch may write");
    } else {
        r->snapshot = s->snapshot;
        s->at = AT_READER;
        readers_run(s->node->readers, r);
    }
}

void read_txn_note(struct session *s, struct request *r)
{
    uint64_t now = clock_mono_ms();
    if (r->begins_snapshot && r->snapshot != NULL) {
        s->snapshot_began_ms = now;
        list_push_back(&s->node->snapshots, &s->snapped);
    }
    if (s->snapshot != NULL && r->snapshot == NULL)
        list_remove(&s->snapped);
    s->snapshot = r->snapshot;
    s->snapshot_used_ms = now;
    r->snapshot = NULL;
}

void read_txn_leave(struct session *s)
{
    if (s->snapshot != NULL) {
        list_remove(&s->snapped);
        readers_end_snapshot(s->node->readers, s->snapshot);
        s->snapshot = NULL;
    }
    free(s->snapshot_lost);
    s->snapshot_lost = NULL;
}

/* Why S's has to end now; to be freed. NULL: it may stay. */
static char *why_end(const struct session *s, uint64_t now_ms, bool *time_up) ON_LOOP
{
    const struct config *c = s->node->config;
    const char *sentence = snapshot_must_end(s->snapshot);
    *time_up = sentence == NULL;
    if (sentence != NULL)
        return mem_strdup(sentence);
    if (s->snapshot_lasts)
        return NULL;
    if (now_ms > s->snapshot_used_ms + c->txn_idle_ms)
        return mem_printf("the transaction was rolled back: no statement came for %" PRIu64
                          " ms (transaction-idle-timeout)",
                          c->txn_idle_ms);
    if (now_ms > s->snapshot_began_ms + c->txn_total_ms)
        return mem_printf("the transaction was rolled back: it was open for %" PRIu64
                          " ms (transaction-timeout)",
                          c->txn_total_ms);
    return NULL;
}

void read_txns_timer(struct node *n, uint64_t now_ms)
{
    LIST_EACH(i, &n->snapshots) {
        struct session *s = LIST_ENTRY(i, struct session, snapped);
        bool rests = s->current == NULL || s->at == AT_SENDING;
        bool time_up;
        char *why = rests ? why_end(s, now_ms, &time_up) : NULL;
        if (why == NULL)
            continue;
        read_txn_leave(s);
        s->snapshot_lost = why;
        s->snapshot_time_up = time_up;
    }
}
