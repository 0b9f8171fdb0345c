/* Room: node. Thread: loop. Owns: nothing.
 * What a leader said of a request, and what is said when the leader was lost.
 *
 * What was at the leader when it was lost:
 *   not sent                      ERR_NOT_LEADER: run it elsewhere
 *   numbered                      in doubt, ERR_NOT_LEADER: run it elsewhere, under its number
 *   part of its answer is here    ERR_ROWS_LOST: it is done (answers follow the commit)
 *   a BEGIN                       ERR_NOT_LEADER: it wrote nothing and died with its connection
 *   another write                 ERR_UNKNOWN
 *   in a transaction              ERR_TXN_LOST
 *   its COMMIT                    numbered: in doubt, asked for at the next leader (WIRE_RESOLVE)
 *                                 else: ERR_UNKNOWN */
#include "base/mem.h"
#include "node/upstream_state.h"

#include <stdlib.h>

/* --- a leader that is lost --- */

static bool is_commit(const struct request *r) ON_LOOP
{
    return r->kind == SQL_TRANSACTION && !sql_is_rollback(r->statement.sql, r->statement.sql_len);
}

/* The leader does not know what became of a COMMIT, or none leads there any more: the next one is
 * asked. */
static void ask_again(struct request *r) ON_LOOP
{
    r->query.flags = (uint16_t)((r->query.flags & ~WIRE_INSIDE) | WIRE_RESOLVE);
    r->in_doubt = true;
    request_fail(r, ERR_NOT_LEADER, "the leader was lost before it answered a COMMIT");
}

static void answer_lost_transaction(struct session *s, struct request *r, bool sent) ON_LOOP
{
    s->home = HOME_NONE;
    r->answer.in_transaction = false;
    if (!sent || !is_commit(r)) {
        request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader was lost");
    } else if (request_is_numbered(r)) {
        ask_again(r);
    } else {
        request_fail(r, ERR_UNKNOWN,
                     "the leader was lost before it answered: look whether this was written before "
                     "you repeat it");
    }
    session_answer(s, r);
}

void upstream_answer_lost(struct session *s, bool sent, bool answered)
{
    struct request *r = s->current;
    if (s->home == HOME_UPSTREAM) {
        answer_lost_transaction(s, r, sent);
        return;
    }
    r->answer.in_transaction = false;
    if (!sent) {
        request_fail(r, ERR_NOT_LEADER, "the leader cannot be reached");
    } else if (answered) {
        request_fail(r, ERR_ROWS_LOST,
                     "the statement was done, but the leader was lost with a part of its rows");
    } else if (request_is_numbered(r)) {
        r->in_doubt = true;
        request_fail(r, ERR_NOT_LEADER, "the leader was lost before it answered");
    } else if (r->kind == SQL_TRANSACTION) {
        request_fail(r, ERR_NOT_LEADER, "the leader was lost before it began a transaction");
    } else {
        request_fail(r, ERR_UNKNOWN,
                     "the leader was lost before it answered: look whether this was written before "
                     "you repeat it");
    }
    session_answer(s, r);
}

/* --- frames of an answer --- */

/* The request's last frame came, and is in its answer. */
static void end_answer(struct session *s) ON_LOOP
{
    s->upstream->sent = false;
    session_answer(s, s->current);
}

static enum err take_done(struct request *r, struct wire_frame *f) ON_LOOP
{
    struct wire_done d;
    TRY(wire_get_done(f, &d));
    r->answer.seq = d.seq;
    r->answer.changes = d.changes;
    r->answer.last_insert_rowid = d.last_insert_rowid;
    r->answer.in_transaction = (d.flags & WIRE_IN_TRANSACTION) != 0;
    return ERR_OK;
}

static enum err take_error(struct session *s, struct request *r, struct wire_frame *f) ON_LOOP
{
    struct wire_error e;
    TRY(wire_get_error(f, &e));
    char *message = mem_printf("%.*s", (int)e.message_len, e.message);
    bool was_open = s->home == HOME_UPSTREAM;
    r->answer.in_transaction = (e.flags & WIRE_IN_TRANSACTION) != 0;
    r->answer.seq = e.seq;
    if (was_open && !r->answer.in_transaction)
        s->home = HOME_NONE;
    if (was_open && e.code == ERR_NOT_LEADER) {
        request_fail(r, ERR_TXN_LOST, "the transaction was rolled back: the leader changed");
    } else if (was_open && e.code == ERR_UNKNOWN && is_commit(r) && request_is_numbered(r)) {
        ask_again(r);
    } else {
        request_fail(r, e.code, message);
        r->answer.sqlite_code = e.sqlite_code;
        r->answer.offset = e.offset;
        r->answer.statement = e.statement;
        r->answer.settled = (e.flags & WIRE_SETTLED) != 0;
        r->answer.time_up = (e.flags & WIRE_TIME_UP) != 0;
    }
    free(message);
    return ERR_OK;
}

/* COLUMNS, ROWS, STEP, DESCRIPTION: passed on as they are. */
static enum err take_part(struct upstream *u, struct request *r, struct wire_frame *f) ON_LOOP
{
    size_t begun = wire_begin(&r->answer.out, f->type, r->id);
    buf_put(&r->answer.out, f->body.p, rd_left(&f->body));
    wire_end(&r->answer.out, begun);
    u->answered = true;
    if (f->type == WIRE_ROWS)
        u->took += (uint32_t)(WIRE_HEAD_BYTES + rd_left(&f->body));
    return buf_status(&r->answer.out);
}

enum err upstream_take_frame(struct session *s, struct wire_frame *f)
{
    struct upstream *u = s->upstream;
    struct request *r = s->current;
    if (f->type == WIRE_DONE && !r->is_describe) {
        TRY(take_done(r, f));
        end_answer(s);
    } else if (f->type == WIRE_ERROR) {
        TRY(take_error(s, r, f));
        end_answer(s);
    } else if (f->type == WIRE_DESCRIPTION && r->is_describe) {
        TRY(take_part(u, r, f));
        r->answer.in_transaction = s->home == HOME_UPSTREAM;
        end_answer(s);
    } else if (f->type == WIRE_COLUMNS || f->type == WIRE_ROWS || f->type == WIRE_STEP) {
        TRY(take_part(u, r, f));
        upstream_resume(s);
    } else {
        return err_fail(ERR_PROTOCOL, "a frame that a server does not send here");
    }
    return ERR_OK;
}
