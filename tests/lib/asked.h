/* Room: tests. A node that is nothing but its sessions: what they ask for stays with them until the
 * test answers, as an answer comes from a leader elsewhere. So all of the HTTP door runs above the
 * real sessions, with their windows and their order, and no database. Header only, for a test
 * program or a fuzz target that is linked with -Wl,--wrap=route. Thread: loop. */
#ifndef TESTS_LIB_ASKED_H
#define TESTS_LIB_ASKED_H

#include "base/check.h"
#include "base/clock.h"
#include "base/sizes.h"
#include "node/http/hrana_held.h"
#include "node/http/writer_pool.h"
#include "node/route.h"
#include "node/session.h"

#include <inttypes.h>
#include <string.h>

/* Instead of node/route.c's. */
void __wrap_route(struct session *s, struct request *r);
__attribute__((weak)) void __wrap_route(struct session *s, struct request *r)
{
    r->deadline_ms = clock_mono_ms() + 60000;
    s->at = AT_UPSTREAM;
}

static inline void asked_open(struct node *n, const struct config *c) ON_LOOP
{
    *n = (struct node){.config = c, .leader_id = 1};
    list_init(&n->sessions);
    waiting_init(&n->waiting, c->waiting_bytes, 100);
    list_init(&n->watched);
    list_init(&n->snapshots);
    list_init(&n->hrana_waits);
    list_init(&n->hrana_cancels);
    list_init(&n->hrana_rests);
    list_init(&n->hrana_sockets);
    list_init(&n->wait_leader);
    list_init(&n->wait_seq);
    list_init(&n->wait_reads);
    n->writers = writer_pool_new();
    n->held = hrana_held_new(n);
    n->keys.n = 1;
}

/* All exchanges are over. */
static inline void asked_close(struct node *n) ON_LOOP
{
    hrana_held_free(n->held);
    writer_pool_free(n->writers);
    CHECK(list_empty(&n->sessions) && list_empty(&n->watched) && n->waiting.bytes == 0);
    CHECK(list_empty(&n->hrana_waits) && list_empty(&n->hrana_cancels) &&
          list_empty(&n->hrana_rests));
}

/* The NTH (from 0) of the requests that are not answered yet, by the age of their sessions; NULL:
 * there are no more. */
static inline struct request *asked(struct node *n, unsigned nth) ON_LOOP
{
    LIST_EACH(i, &n->sessions) {
        struct session *s = LIST_ENTRY(i, struct session, link);
        if (s->current != NULL && s->at == AT_UPSTREAM && nth-- == 0)
            return s->current;
    }
    return NULL;
}

static inline bool asked_is_cancelled(const struct request *r)
{
    return atomic_load_explicit(&r->cancelled, memory_order_relaxed);
}

/* Columns, all named `c`, without their rows. */
static inline void asked_columns(struct request *r, uint32_t n) ON_LOOP
{
    size_t begun = wire_begin(&r->answer.out, WIRE_COLUMNS, r->id);
    buf_put_u32(&r->answer.out, n);
    for (uint32_t i = 0; i < n; i++) {
        buf_put_cstr(&r->answer.out, "c");
        buf_put_cstr(&r->answer.out, "");
    }
    wire_end(&r->answer.out, begun);
    session_relay(r->session);
}

/* A frame of N rows of one column, each a text of SIZE bytes. */
static inline void asked_rows(struct request *r, uint32_t n, size_t size) ON_LOOP
{
    size_t begun = wire_begin(&r->answer.out, WIRE_ROWS, r->id);
    buf_put_u32(&r->answer.out, n);
    for (uint32_t i = 0; i < n; i++) {
        buf_put_u8(&r->answer.out, WIRE_TEXT);
        buf_put_u32(&r->answer.out, (uint32_t)size);
        memset(buf_extend(&r->answer.out, size), 'x', size);
    }
    wire_end(&r->answer.out, begun);
    session_relay(r->session);
}

/* The end of a statement of a BATCH. */
static inline void asked_step(struct request *r, int64_t changes) ON_LOOP
{
    struct wire_step w = {.changes = changes};
    wire_put_step(&r->answer.out, r->id, &w);
    session_relay(r->session);
}

static inline void asked_done(struct request *r, int64_t changes, bool in_transaction) ON_LOOP
{
    struct wire_description d = {.flags = WIRE_STATEMENT_READONLY};
    if (r->is_describe)
        wire_put_description(&r->answer.out, r->id, &d);
    r->answer.changes = changes;
    r->answer.last_insert_rowid = changes;
    r->answer.seq = 7;
    r->answer.in_transaction = in_transaction;
    session_answer(r->session, r);
}

/* SQLITE_CODE 0: that of CODE. */
static inline void asked_error(struct request *r, enum err code, int32_t sqlite_code,
                               const char *sentence, bool in_transaction) ON_LOOP
{
    request_fail(r, code, sentence);
    if (sqlite_code != 0)
        r->answer.sqlite_code = sqlite_code;
    r->answer.settled = code == ERR_UNKNOWN; /* for good: the session does not ask again */
    r->answer.in_transaction = in_transaction;
    session_answer(r->session, r);
}

#endif
