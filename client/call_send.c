/* Room: client.   Thread: the loop's.   Owns: nothing: a call's request as bytes of one link.
 *
 * Each attempt is written anew: the session may have moved on, the statement may be kept at one
 * node and not at the other, less time is left. What makes two attempts the same write stays: its
 * number, and `since`. Not here: when, and to whom (call.c). */
#include "client/call_state.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

/* The node shall give up first, and say how it ended. */
#define ANSWER_MARGIN_MS 500u

static uint32_t time_for_node(const struct call *c, uint64_t now_ms)
{
    /* Rows may be taken for as long as the program likes; our deadline moves with them, the node's
     * would not. CANCEL ends it in time. */
    if (c->kind == CALL_READ && c->type == WIRE_QUERY && !c->was_in_txn)
        return 0;
    uint64_t left = c->deadline_ms > now_ms ? c->deadline_ms - now_ms : 1;
    uint64_t margin = left / 10 < ANSWER_MARGIN_MS ? left / 10 : ANSWER_MARGIN_MS;
    left = left - margin;
    return left == 0 ? 1 : left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
}

/* In a transaction only its COMMIT is numbered: all else dies with it. */
static void give_number(struct call *c)
{
    struct stream *s = c->stream;
    bool numbered = c->kind == CALL_COMMIT ||
                    (c->kind == CALL_WRITE && !c->was_in_txn && c->type != WIRE_CLUSTER);
    if (!numbered || c->number != 0)
        return;
    uint64_t newest = s->cluster->newest_seq;
    c->number = ++s->numbered;
    c->since = newest > s->seen ? newest : s->seen; /* not what the program says */
}

/* What the answer must have seen. The leader has the newest state, whatever position the program
 * set: that is for reads, and for a BEGIN that another node may take as one of a read. */
static uint64_t wanted_seq(const struct call *c, struct member *m)
{
    struct stream *s = c->stream;
    bool leads = m == members_leader(&s->cluster->members);
    if (c->level == WIRE_ANY)
        return 0;
    if (call_is_write(c) || c->for_write || (c->kind == CALL_BEGIN && leads))
        return s->seen;
    return s->position;
}

static void put_statements(struct call *c, struct link *k, struct buf *out)
{
    for (uint32_t i = 0; i < c->n_statements; i++) {
        const struct call_statement *t = &c->statements[i];
        const char *sql = (const char *)c->bytes.data + t->sql;
        size_t sql_len = t->sql_len;
        uint32_t keep = t->keep;
        if (keep != 0 && link_keeps(k, keep))
            sql_len = 0;
        else if (keep != 0 && !link_keep(k, keep, sql_len))
            keep = 0;
        size_t begun = wire_begin_statement(out, keep, sql, sql_len);
        buf_put(out, c->bytes.data + t->params, t->params_len);
        wire_end_statement(out, begun, t->n_params);
    }
}

static void put_query(struct call *c, struct member *m, struct wire_id id, uint64_t now_ms)
{
    struct stream *s = c->stream;
    struct buf *out = link_out(m->link);
    struct wire_query q = {.level = c->level,
                           .bound_ms = c->level == WIRE_BOUNDED ? c->bound_ms : 0,
                           .timeout_ms = time_for_node(c, now_ms),
                           .min_seq = wanted_seq(c, m),
                           .last_insert_rowid = s->last_insert_rowid};
    if (s->foreign_keys_off)
        q.flags |= WIRE_FOREIGN_KEYS_OFF;
    if (c->number != 0) {
        q.flags |= c->doubt ? WIRE_NUMBERED | WIRE_AGAIN : WIRE_NUMBERED;
        memcpy(q.number.writer, s->writer, sizeof s->writer);
        q.number.number = c->number;
        q.number.acked = c->number - 1; /* one at a time: all before it have ended */
        q.number.since = c->since;
    }
    if (c->was_in_txn && !c->resolving)
        q.flags |= WIRE_INSIDE;
    if (c->resolving)
        q.flags |= WIRE_RESOLVE;
    else if (c->number != 0 && c->doubt) /* an error, too, is then kept for that attempt */
        q.flags |= WIRE_AGAIN;
    size_t begun = wire_begin_query(out, c->type, id, &q);
    put_statements(c, m->link, out);
    wire_end_query(out, begun, c->n_statements);
}

enum err call_send(struct call *c, struct member *m, uint64_t now_ms)
{
    struct stream *s = c->stream;
    struct buf *out = link_out(m->link);
    TRY(stream_open_at(s, m, now_ms));
    if (++s->last_request == 0)
        s->last_request = 1;
    c->request = s->last_request;
    c->was_in_txn = s->txn != NULL && call_is_of_session(c);
    give_number(c);
    struct wire_id id = {s->number, c->request};
    if (c->type == WIRE_STATUS) {
        wire_put_status(out, id);
    } else if (c->type == WIRE_CLUSTER) {
        CHECK(c->change != NULL);
        c->change->timeout_ms = time_for_node(c, now_ms);
        wire_put_cluster(out, id, c->change);
    } else {
        CHECK(c->n_statements > 0);
        put_query(c, m, id, now_ms);
    }
    enum err e = link_send(m->link);
    if (e != ERR_OK) { /* the node has not heard of what was to be kept */
        for (uint32_t i = 0; i < c->n_statements; i++)
            if (c->statements[i].keep != 0)
                link_forget(m->link, c->statements[i].keep);
        return e;
    }
    call_took(c, UINT32_MAX); /* rows of an attempt before: their window is of no more use */
    c->member = m;
    c->serial = m->serial;
    c->number_of_stream = s->number;
    c->put_end = link_put_total(m->link);
    c->n_columns = c->steps = 0;
    c->skip = c->had_rows ? c->handed : 0;
    if (c->skip == 0)
        c->handed = 0;
    c->attempts++;
    c->sent = true;
    return ERR_OK;
}
