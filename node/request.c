/* Room: node. Thread: whoever has the request. */
#include "node/request.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/kept.h"

#include <stdlib.h>
#include <string.h>

/* One answer in memory: what is over it streams (readers) or is refused (the lane). */
#define ANSWER_MAX WIRE_ANSWER_MAX
#define END_MAX    KIB(64) /* its last frame */

struct request *request_new(struct session *session, uint64_t session_id, struct wire_id id,
                            const struct wire_query *q, const uint8_t *body, size_t body_len)
{
    struct request *r = MEM_NEW(struct request);
    list_init(&r->letter.link);
    r->session = session;
    r->session_id = session_id;
    r->came_ns = clock_mono_ns();
    r->id = id;
    r->frame = mem_alloc(body_len);
    memcpy(r->frame, body, body_len);
    r->frame_len = r->bytes = body_len;
    r->query = *q;
    /* The query borrows from BODY: the same places in the copy. */
    r->query.statements.p = r->frame + (q->statements.p - body);
    r->query.statements.end = r->frame + (q->statements.end - body);
    request_first_statement(r);
    buf_init(&r->answer.out, ANSWER_MAX);
    r->answer.offset = -1;
    return r;
}

void request_use_kept(struct request *r, struct kept **kept, uint32_t n)
{
    CHECK(r->kept == NULL);
    r->kept = kept;
    r->n_kept = n;
    for (uint32_t i = 0; i < n; i++) {
        size_t len;
        (void)kept_text(kept[i], &len);
        r->bytes += i > 0 && kept[i] == kept[i - 1] ? 0 : len;
    }
    request_first_statement(r);
}

struct request *request_of_frame(struct session *session, uint64_t session_id,
                                 const struct wire_frame *f, const struct wire_query *q,
                                 const uint8_t *body, size_t body_len, struct kept **kept,
                                 uint32_t n_kept)
{
    struct request *r = request_new(session, session_id, f->id, q, body, body_len);
    if (kept != NULL)
        request_use_kept(r, kept, n_kept);
    r->is_batch = f->type == WIRE_BATCH;
    r->is_describe = f->type == WIRE_DESCRIBE;
    r->kind = r->is_batch ? SQL_WRITE : sql_classify(r->statement.sql, r->statement.sql_len);
    r->forwarded = (q->flags & WIRE_FORWARDED) != 0;
    r->foreign_keys = (q->flags & WIRE_FOREIGN_KEYS_OFF) == 0;
    r->last_insert_rowid = q->last_insert_rowid;
    return r;
}

bool request_is_numbered(const struct request *r)
{
    return (r->query.flags & WIRE_NUMBERED) != 0;
}

bool request_is_resolve(const struct request *r)
{
    return (r->query.flags & WIRE_RESOLVE) != 0;
}

/* Takes the next one off those left. */
static void take_statement(struct request *r)
{
    struct wire_statement *s = &r->statement;
    enum err e = wire_get_statement(&r->statements_left, s);
    CHECK(e == ERR_OK); /* wire_get_query checked them all */
    if (s->keep != 0 && s->sql_len == 0 && r->n_kept > 0) {
        CHECK(r->kept_at < r->n_kept);
        s->sql = kept_text(r->kept[r->kept_at++], &s->sql_len);
    }
}

void request_first_statement(struct request *r)
{
    r->statements_left = r->query.statements;
    r->statement_at = r->kept_at = 0;
    if (r->query.n_statements > 0)
        take_statement(r);
}

bool request_next_statement(struct request *r)
{
    if (r->statement_at + 1 >= r->query.n_statements)
        return false;
    r->statement_at++;
    take_statement(r);
    return true;
}

void request_drop_query(struct request *r)
{
    for (uint32_t i = 0; i < r->n_kept; i++)
        kept_unref(r->kept[i]);
    free(r->kept);
    free(r->frame);
    r->kept = NULL;
    r->frame = NULL;
    r->n_kept = 0;
    r->frame_len = r->bytes = 0;
    r->query.n_statements = 0;
    r->statement = (struct wire_statement){0};
}

void request_free(struct request *r)
{
    buf_fini(&r->answer.out);
    free(r->answer.message);
    free(r->cluster);
    free(r->no_room);
    request_drop_query(r);
    free(r);
}

void request_make_room_for_end(struct request *r)
{
    r->answer.out.max = ANSWER_MAX + END_MAX;
}

void request_clear_answer(struct request *r)
{
    free(r->answer.message);
    buf_fini(&r->answer.out); /* it may be long, and the request may wait long for its client */
    r->answer = (struct answer){.offset = -1};
    buf_init(&r->answer.out, ANSWER_MAX);
}

void request_fail(struct request *r, enum err code, const char *sentence)
{
    bool in_transaction = r->answer.in_transaction;
    uint64_t seq = r->answer.seq;
    request_clear_answer(r);
    r->answer.code = code;
    r->answer.message = mem_strdup(sentence);
    r->answer.sqlite_code = err_sqlite_code((int)code);
    r->answer.in_transaction = in_transaction;
    r->answer.seq = seq;
}

void request_fail_text(struct request *r, enum err code)
{
    request_fail(r, code, err_text());
}
