/* Room: tests. Thread: the test's, as the loop. */
#include "tests/unit/node/stage.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/replay.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

struct held {
    struct list link;
    uint64_t due_ms, term;
    struct cns_payload *payload;
};

struct logged {
    struct list link;
    uint64_t index, term;
    enum cns_kind kind;
    struct cns_payload *payload;
};

static enum err scan_log(void *log, cns_visit visit, void *ctx)
{
    struct list *all = log;
    for (struct list *i = all->prev; i != all; i = i->prev) {
        const struct logged *e = LIST_ENTRY(i, struct logged, link);
        if (e->kind == CNS_COMMAND &&
            !visit(ctx, e->index, e->term, e->payload->data, e->payload->len))
            break;
    }
    return ERR_OK;
}

/* What the node's start does. */
static void open_lane(struct stage *s) ON_LOOP
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
    EXPECT_OK(lane_open(&s->config, &s->loop, &s->lane));
    thread_become(THREAD_LOOP);
    EXPECT_OK(replay_from(lane_outcomes(s->lane), scan_log, &s->log, s->index,
                          repl_db_published(lane_db(s->lane)), s->replay_bytes_max));
    EXPECT_OK(lane_start(s->lane, s->index));
}

void stage_open(struct stage *s, const char *dir)
{
    enum config_wish wish;
    char *argv[] = {"lecternd",
                    "--id",
                    "1",
                    "--data",
                    (char *)(uintptr_t)dir,
                    "--cluster",
                    "1=127.0.0.1:1",
                    "--transaction-idle-timeout",
                    "300",
                    NULL};
    *s = (struct stage){.replay_bytes_max = REPLAY_BYTES_MAX};
    EXPECT_OK(config_load(&s->config, 9, argv, &wish));
    s->config.leader_wait_ms = TEST_HANG_MS; /* on a loaded machine */
    mail_init(&s->loop, NULL, NULL);
    list_init(&s->outstanding);
    list_init(&s->answers);
    list_init(&s->log);
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    open_lane(s);
}

static void send_entry(struct stage *s, uint64_t term, enum cns_kind kind,
                       struct cns_payload *payload) ON_LOOP
{
    struct lane_entry *e = MEM_NEW(struct lane_entry);
    e->letter.kind = LANE_ENTRY;
    e->index = ++s->index;
    e->term = term;
    e->kind = kind;
    e->payload = payload;
    struct logged *logged = MEM_NEW(struct logged);
    *logged = (struct logged){.index = e->index, .term = term, .kind = kind, .payload = payload};
    if (payload != NULL)
        (void)cns_payload_ref(payload);
    list_push_back(&s->log, &logged->link);
    lane_send(s->lane, &e->letter);
}

static void send_role(struct stage *s, bool leader, uint64_t term) ON_LOOP
{
    struct lane_role *r = MEM_NEW(struct lane_role);
    r->letter.kind = LANE_ROLE;
    r->leader = leader;
    r->term = term;
    lane_send(s->lane, &r->letter);
}

static void on_proposal(struct stage *s, struct lane_proposal *p) ON_LOOP
{
    if (p->term != s->term) { /* consensus refuses it */
        cns_payload_unref(p->payload);
        free(p);
        return;
    }
    struct held *h = MEM_NEW(struct held);
    h->due_ms = clock_mono_ms() + s->delay_ms;
    h->term = p->term;
    h->payload = p->payload;
    p->payload = NULL;
    list_push_back(&s->outstanding, &h->link);
    s->n_outstanding++;
    s->n_proposals++;
    if (s->n_outstanding > s->max_outstanding)
        s->max_outstanding = s->n_outstanding;
    if (p->one_of_many && !s->keeps_proposals) {
        p->letter.kind = LANE_PROPOSED;
        lane_send(s->lane, &p->letter);
    } else {
        free(p);
    }
}

static void handle(struct stage *s, struct letter *l) ON_LOOP
{
    switch (l->kind) {
    case LOOP_PROPOSAL:
        on_proposal(s, (struct lane_proposal *)l);
        return;
    case LOOP_ANSWER:
    case LOOP_CONFIRM: /* the majority says yes, unless it is cut off */
        list_push_back(&s->answers, &l->link);
        s->n_answers++;
        return;
    case LOOP_SERVING:
        s->serving_term = ((struct lane_serving *)l)->term;
        break;
    case LOOP_FAILED:
        (void)printf("lane failed: %s\n", ((struct lane_failed *)l)->text);
        s->failed = true;
        break;
    case LOOP_STOPPED:
        s->stopped = true;
        break;
    case LOOP_APPLIED:
        break;
    case LOOP_ROWS:
    case LANE_REQUEST:
    case LANE_ENTRY:
    case LANE_ROLE:
    case LANE_GONE:
    case LANE_USED:
    case LANE_PROPOSED:
    case LANE_STOP:
    case LANE_CUT:
    case LANE_IMAGE:
    case LOOP_CUT:
    case LOOP_IMAGE:
    case LOOP_IMAGE_READ:
    case LOOP_IMAGE_CLOSED:
    case LOOP_FETCHED:
    case IMAGE_READ:
    case IMAGE_CLOSE:
    case READ_REQUEST:
        test_fail(__FILE__, __LINE__, "a letter that is not for the loop");
    }
    free(l);
}

static void commit_due(struct stage *s) ON_LOOP
{
    LIST_EACH(i, &s->outstanding) {
        struct held *h = LIST_ENTRY(i, struct held, link);
        if (s->cut || clock_mono_ms() < h->due_ms)
            return;
        list_remove(i);
        s->n_outstanding--;
        send_entry(s, h->term, CNS_COMMAND, h->payload);
        free(h);
        if (s->cut_after > 0 && --s->cut_after == 0)
            s->cut = true;
    }
}

void stage_step(struct stage *s, uint64_t ms)
{
    struct list letters, *i;
    list_init(&letters);
    mail_wait(&s->loop, &letters, list_empty(&s->outstanding) || s->cut ? ms : 1);
    while ((i = list_pop_front(&letters)) != NULL)
        handle(s, LIST_ENTRY(i, struct letter, link));
    commit_due(s);
}

void stage_lead(struct stage *s, uint64_t term)
{
    s->term = term;
    s->cut = false;
    send_role(s, true, term);
    send_entry(s, term, CNS_BARRIER, NULL);
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    while (s->serving_term != term && clock_mono_ms() < end)
        stage_step(s, 10);
    EXPECT_EQ(s->serving_term, term);
}

static void drop_outstanding(struct stage *s) ON_LOOP
{
    struct list *i;
    while ((i = list_pop_front(&s->outstanding)) != NULL) {
        struct held *h = LIST_ENTRY(i, struct held, link);
        cns_payload_unref(h->payload);
        free(h);
    }
    s->n_outstanding = 0;
}

void stage_depose(struct stage *s, uint64_t term)
{
    send_role(s, false, term);
    s->term = term;
    drop_outstanding(s);
    send_entry(s, term, CNS_BARRIER, NULL);
}

void stage_copy_log(struct stage *to, const struct stage *from)
{
    LIST_EACH(i, &from->log) {
        const struct logged *e = LIST_ENTRY(i, struct logged, link);
        if (e->index > to->index)
            send_entry(to, e->term, e->kind,
                       e->payload == NULL ? NULL : cns_payload_ref(e->payload));
    }
}

struct request *stage_make(uint64_t session, uint32_t id, enum wire_type type, unsigned flags,
                           const struct wire_number *number, const char *const *sql, unsigned n)
{
    struct buf b;
    struct wire_frame f;
    struct wire_query q = {.level = WIRE_SESSION, .flags = (uint16_t)flags};
    size_t used;
    if (number != NULL)
        q.number = *number;
    buf_init(&b, MIB(4));
    size_t begun = wire_begin_query(&b, type, (struct wire_id){1, id}, &q);
    for (unsigned i = 0; i < n; i++)
        wire_end_statement(&b, wire_begin_statement(&b, 0, sql[i], strlen(sql[i])), 0);
    wire_end_query(&b, begun, n);
    EXPECT_OK(wire_next(b.data, b.len, MIB(4), &f, &used));
    EXPECT(used == b.len);
    const uint8_t *body = f.body.p;
    size_t body_len = rd_left(&f.body);
    EXPECT_OK(wire_get_query(&f, &q));
    struct request *r = request_new(NULL, session, (struct wire_id){1, id}, &q, body, body_len);
    r->kind = sql_classify(r->statement.sql, r->statement.sql_len);
    r->foreign_keys = true;
    r->is_batch = type == WIRE_BATCH;
    buf_fini(&b);
    return r;
}

struct request *stage_request(uint64_t session, uint32_t id, const char *sql)
{
    return stage_make(session, id, WIRE_QUERY, 0, NULL, &sql, 1);
}

void stage_send_request(struct stage *s, struct request *r)
{
    r->deadline_ms = s->timeout_ms == 0 ? 0 : clock_mono_ms() + s->timeout_ms;
    r->letter.kind = LANE_REQUEST;
    lane_send(s->lane, &r->letter);
    lane_flush(s->lane);
}

void stage_send(struct stage *s, uint64_t session, uint32_t id, const char *sql)
{
    stage_send_request(s, stage_request(session, id, sql));
}

void stage_wait_cut(struct stage *s)
{
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    while (!s->cut && clock_mono_ms() < end)
        stage_step(s, 10);
    EXPECT(s->cut);
}

void stage_wait_outstanding(struct stage *s, unsigned n)
{
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    while (s->n_outstanding < n && clock_mono_ms() < end)
        stage_step(s, 10);
    EXPECT(s->n_outstanding >= n);
}

void stage_wait(struct stage *s, unsigned n)
{
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    while (s->n_answers < n && clock_mono_ms() < end)
        stage_step(s, 10);
    EXPECT(s->n_answers >= n);
}

struct request *stage_take(struct stage *s, uint32_t id)
{
    LIST_EACH(i, &s->answers) {
        struct request *r = LIST_ENTRY(i, struct request, letter.link);
        if (r->id.request != id)
            continue;
        list_remove(i);
        s->n_answers--;
        return r;
    }
    return NULL;
}

void stage_expect(struct stage *s, uint64_t session, enum err code, const char *sql)
{
    static uint32_t next_id = 1000000;
    uint32_t id = next_id++;
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    struct request *r = NULL;
    stage_send(s, session, id, sql);
    while ((r = stage_take(s, id)) == NULL && clock_mono_ms() < end)
        stage_step(s, 10);
    if (r == NULL)
        test_fail(__FILE__, __LINE__, "no answer to %s", sql);
    if (r->answer.code != code)
        test_fail(__FILE__, __LINE__, "%s: wanted %s, got %s (%s)", sql, err_name((int)code),
                  err_name((int)r->answer.code),
                  r->answer.message == NULL ? "" : r->answer.message);
    request_free(r);
}

int64_t stage_number(struct stage *s, const char *sql)
{
    sqlite3 *conn;
    sqlite3_stmt *stmt = NULL;
    int64_t n = -1;
    thread_become(THREAD_READER);
    thread_expect_reader();
    EXPECT_OK(repl_reader_open(lane_db(s->lane), &conn));
    thread_become(THREAD_LOOP);
    if (sqlite3_prepare_v2(conn, sql, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        n = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(conn);
    return n;
}

static void tell_to_stop(struct stage *s) ON_LOOP
{
    struct lane_stop *stop = MEM_NEW(struct lane_stop);
    stop->letter.kind = LANE_STOP;
    lane_send(s->lane, &stop->letter);
}

void stage_close(struct stage *s)
{
    tell_to_stop(s);
    stage_end(s);
}

static void end_lane(struct stage *s) ON_LOOP
{
    struct list *i;
    uint64_t end = clock_mono_ms() + TEST_HANG_MS;
    s->cut = true;
    while (!s->stopped && clock_mono_ms() < end)
        stage_step(s, 10);
    EXPECT(s->stopped);
    stage_step(s, 0);
    lane_close(s->lane);
    stage_step(s, 0); /* words of damage that the last checkpoint met */
    while ((i = list_pop_front(&s->answers)) != NULL)
        request_free(LIST_ENTRY(i, struct request, letter.link));
    drop_outstanding(s);
}

void stage_restart(struct stage *s)
{
    tell_to_stop(s);
    end_lane(s);
    s->stopped = s->cut = false;
    s->n_answers = 0;
    s->serving_term = 0;
    open_lane(s);
}

void stage_end(struct stage *s)
{
    struct list *i;
    end_lane(s);
    while ((i = list_pop_front(&s->log)) != NULL) {
        struct logged *e = LIST_ENTRY(i, struct logged, link);
        if (e->payload != NULL)
            cns_payload_unref(e->payload);
        free(e);
    }
    mail_fini(&s->loop);
    config_fini(&s->config);
}
