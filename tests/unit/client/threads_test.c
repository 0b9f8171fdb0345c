/* Room: tests. Several threads on one cluster: whoever waits keeps nobody from his own call, and
 * each call from ending in its time. */
#include "tests/unit/client/both.h"

#include "base/clock.h"
#include "client/handle.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>
#include <string.h>

/* A call that has nothing to do but to give up is late by no more than this. */
#define SLACK_MS 1500

struct scene {
    struct sql_node *node;
    lectern_cluster *cluster;
    lectern *one, *other; /* sessions */
};

static struct scene begin(void)
{
    struct scene s = {.node = sql_node_start()};
    EXPECT(lectern_cluster_open(sql_node_url(s.node), &s.cluster) == LECTERN_OK);
    EXPECT(lectern_open_session(s.cluster, &s.one) == LECTERN_OK);
    EXPECT(lectern_open_session(s.cluster, &s.other) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, s.one, lectern_exec(s.one, "SELECT 1", NULL, NULL, NULL));
    return s;
}

static void end(struct scene *s)
{
    EXPECT_CODE(LECTERN_OK, s->one, lectern_close(s->one));
    EXPECT_CODE(LECTERN_OK, s->other, lectern_close(s->other));
    EXPECT(lectern_cluster_close(s->cluster) == LECTERN_OK);
    sql_node_stop(s->node);
}

/* One statement on a thread of its own. */
struct caller {
    pthread_t thread;
    lectern *db;
    lectern_stmt *stmt; /* NULL: exec */
    int code;
    uint64_t took_ms, felt_ms;
};

static void *call(void *arg)
{
    struct caller *c = arg;
    uint64_t began_ms = clock_mono_ms(), felt_ms = test_felt_ms();
    if (c->stmt != NULL)
        c->code = lectern_step(c->stmt);
    else
        c->code = lectern_exec(c->db, "SELECT 1", NULL, NULL, NULL);
    c->took_ms = clock_mono_ms() - began_ms;
    c->felt_ms = test_felt_ms() - felt_ms;
    return NULL;
}

static void call_begin(struct caller *c)
{
    EXPECT(pthread_create(&c->thread, NULL, call, c) == 0);
}

static void call_end(struct caller *c)
{
    EXPECT(pthread_join(c->thread, NULL) == 0);
}

/* Its limit was kept, from both sides. */
static void expect_timeout(const struct caller *c, uint64_t limit_ms)
{
    EXPECT(c->code == LECTERN_TIMEOUT);
    EXPECT(c->took_ms >= limit_ms - 1);
    EXPECT(c->felt_ms < limit_ms + SLACK_MS);
}

static unsigned queries(const struct scene *s)
{
    return fake_node_frames(sql_node_fake(s->node), WIRE_QUERY);
}

static lectern_stmt *lazy(lectern *db, const char *sql)
{
    lectern_stmt *s;
    unsigned flags = LECTERN_PREPARE_LAZY | LECTERN_PREPARE_ONCE;
    EXPECT_CODE(LECTERN_OK, db, lectern_prepare_v3(db, sql, -1, flags, &s, NULL));
    return s;
}

TEST(threads_each_call_obeys_its_own_limit)
{
    struct scene s = begin();
    unsigned before = queries(&s);
    sql_node_hold(s.node, true);
    EXPECT(lectern_timeout(s.one, 8000) == LECTERN_OK);
    EXPECT(lectern_timeout(s.other, 300) == LECTERN_OK);
    struct caller slow = {.db = s.one}, quick = {.db = s.other};
    call_begin(&slow);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, before + 1);
    call_begin(&quick);
    call_end(&quick);
    expect_timeout(&quick, 300);
    lectern_interrupt(s.one); /* it still waits, and hears that */
    call_end(&slow);
    EXPECT(slow.code == LECTERN_INTERRUPT);
    end(&s);
}

/* The first to wait turns the loop; when its time is over, the next one has to. */
TEST(threads_the_one_that_goes_hands_the_loop_on)
{
    struct scene s = begin();
    unsigned before = queries(&s);
    sql_node_hold(s.node, true);
    EXPECT(lectern_timeout(s.one, 200) == LECTERN_OK);
    EXPECT(lectern_timeout(s.other, 500) == LECTERN_OK);
    struct caller first = {.db = s.one}, second = {.db = s.other};
    call_begin(&first);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, before + 1);
    call_begin(&second);
    call_end(&first);
    call_end(&second);
    expect_timeout(&first, 200);
    expect_timeout(&second, 500);
    end(&s);
}

TEST(threads_of_one_session_obey_their_limits)
{
    struct scene s = begin();
    unsigned before = queries(&s);
    sql_node_hold(s.node, true);
    EXPECT(lectern_timeout(s.one, 8000) == LECTERN_OK);
    struct caller slow = {.db = s.one}, quick = {.db = s.one};
    call_begin(&slow);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, before + 1);
    EXPECT(lectern_timeout(s.one, 300) == LECTERN_OK); /* of the calls from now on */
    call_begin(&quick);
    call_end(&quick);
    expect_timeout(&quick, 300);
    lectern_interrupt(s.one);
    call_end(&slow);
    EXPECT(slow.code == LECTERN_INTERRUPT);
    end(&s);
}

TEST(threads_step_of_a_statement_that_is_stepped)
{
    struct scene s = begin();
    unsigned before = queries(&s);
    sql_node_hold(s.node, true);
    struct caller c = {.stmt = lazy(s.one, "SELECT 1")};
    call_begin(&c);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, before + 1);
    EXPECT_CODE(LECTERN_MISUSE, s.one, lectern_step(c.stmt));
    EXPECT_CODE(LECTERN_MISUSE, s.one, lectern_bind_int(c.stmt, 1, 1));
    EXPECT_CODE(LECTERN_MISUSE, s.one, lectern_start(c.stmt, NULL, NULL, NULL));
    EXPECT(lectern_column_type(c.stmt, 0) == LECTERN_NULL);
    lectern_interrupt(s.one);
    call_end(&c);
    EXPECT(c.code == LECTERN_INTERRUPT);
    EXPECT(lectern_finalize(c.stmt) == LECTERN_INTERRUPT);
    end(&s);
}

static void end_it_while_it_waits(int (*how)(lectern_stmt *s), const char *sql)
{
    struct scene s = begin();
    unsigned before = queries(&s);
    sql_node_hold(s.node, true);
    struct caller c = {.stmt = lazy(s.one, sql)}, other = {.db = s.other};
    call_begin(&c);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, before + 1);
    call_begin(&other);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, before + 2);
    EXPECT_CODE(LECTERN_OK, s.one, how(c.stmt));
    call_end(&c);
    EXPECT(c.code == LECTERN_MISUSE);
    EXPECT(c.felt_ms < 5000);
    lectern_interrupt(s.other);
    call_end(&other);
    EXPECT(other.code == LECTERN_INTERRUPT);
    if (how == lectern_reset) {
        sql_node_hold(s.node, false);
        EXPECT_CODE(LECTERN_ROW, s.one, lectern_step(c.stmt));
        EXPECT_CODE(LECTERN_OK, s.one, lectern_finalize(c.stmt));
    }
    end(&s);
}

TEST(threads_finalize_while_another_waits)
{
    end_it_while_it_waits(lectern_finalize, "SELECT 1");
    end_it_while_it_waits(lectern_finalize, "CREATE TABLE t(a)");
}

TEST(threads_reset_while_another_waits)
{
    end_it_while_it_waits(lectern_reset, "SELECT 1");
}

TEST(threads_close_while_another_waits)
{
    struct scene s = begin();
    unsigned before = queries(&s);
    sql_node_hold(s.node, true);
    struct caller c = {.db = s.one};
    call_begin(&c);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, before + 1);
    EXPECT(lectern_close(s.one) == LECTERN_BUSY);
    EXPECT(lectern_cluster_close(s.cluster) == LECTERN_BUSY);
    lectern_interrupt(s.one);
    call_end(&c);
    EXPECT(c.code == LECTERN_INTERRUPT);
    end(&s);
}

/* So many calls wait on C now. */
static void await_waiters(lectern_cluster *c, unsigned n)
{
    uint64_t limit = clock_mono_ms() + TEST_HANG_MS;
    for (unsigned now = 0; now != n;) {
        (void)sched_yield();
        EXPECT(clock_mono_ms() < limit);
        cluster_lock(c);
        now = face_of(c)->turns.waiters;
        cluster_unlock(c);
    }
}

static void *poll_for_ever(void *arg)
{
    EXPECT(lectern_poll(arg, -1) == LECTERN_OK);
    return NULL;
}

/* lectern_open's own cluster goes with its session: not while another thread polls it. */
TEST(threads_close_of_a_cluster_that_is_polled)
{
    struct sql_node *n = sql_node_start();
    lectern *db;
    EXPECT(lectern_open(sql_node_url(n), &db) == LECTERN_OK);
    pthread_t t;
    EXPECT(pthread_create(&t, NULL, poll_for_ever, lectern_cluster_of(db)) == 0);
    await_waiters(lectern_cluster_of(db), 1);
    EXPECT_CODE(LECTERN_BUSY, db, lectern_close(db));
    lectern_interrupt(db); /* ends that wait */
    EXPECT(pthread_join(t, NULL) == 0);
    EXPECT_CODE(LECTERN_OK, db, lectern_close(db));
    sql_node_stop(n);
}

/* --- functions of the program ------------------------------------------------------------------
 */

/* Runs while a function of the program does: returns when another thread's call on the same cluster
 * is over. With the lock held it would never be. */
struct visit {
    lectern *other;
    int calls, ends, result;
};

static int let_another_call(struct visit *v)
{
    struct caller c = {.db = v->other};
    v->calls++;
    call_begin(&c);
    call_end(&c);
    EXPECT(c.code == LECTERN_OK);
    return 0;
}

static int visit_body(lectern *db, void *arg)
{
    EXPECT_CODE(LECTERN_OK, db, lectern_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL));
    return let_another_call(arg);
}

static int visit_exec(void *arg, int n, char **values, char **names)
{
    (void)n, (void)values, (void)names;
    return let_another_call(arg);
}

static int visit_row(void *arg, lectern_stmt *s)
{
    (void)s;
    return let_another_call(arg);
}

static void visit_end(void *arg, lectern_stmt *s, int result)
{
    (void)s;
    struct visit *v = arg;
    v->result = result;
    (void)let_another_call(v);
    v->ends++;
}

TEST(threads_call_while_a_function_of_the_program_runs)
{
    struct scene s = begin();
    struct visit v = {.other = s.other};
    EXPECT_CODE(LECTERN_OK, s.one, lectern_exec(s.one, "CREATE TABLE t(a)", NULL, NULL, NULL));
    EXPECT_CODE(LECTERN_OK, s.one, lectern_transaction(s.one, NULL, visit_body, &v));
    EXPECT_CODE(LECTERN_OK, s.one, lectern_exec(s.one, "SELECT * FROM t", visit_exec, &v, NULL));
    EXPECT(v.calls == 2);
    lectern_stmt *stmt = lazy(s.one, "VALUES(1),(2)");
    EXPECT_CODE(LECTERN_OK, s.one, lectern_start(stmt, visit_row, visit_end, &v));
    while (v.ends == 0)
        EXPECT(lectern_poll(s.cluster, -1) == LECTERN_OK);
    EXPECT(v.calls == 5 && v.result == LECTERN_DONE);
    EXPECT_CODE(LECTERN_OK, s.one, lectern_finalize(stmt));
    lectern_batch *b;
    EXPECT_CODE(LECTERN_OK, s.one, lectern_batch_new(s.one, &b));
    EXPECT_CODE(LECTERN_OK, s.one, lectern_batch_add_sql(b, "INSERT INTO t VALUES(2)"));
    EXPECT_CODE(LECTERN_OK, s.one, lectern_batch_start(b, visit_end, &v));
    while (v.ends == 1)
        EXPECT(lectern_poll(s.cluster, -1) == LECTERN_OK);
    EXPECT(v.calls == 6 && v.result == LECTERN_DONE);
    EXPECT(lectern_batch_free(b) == LECTERN_OK);
    end(&s);
}

/* A callback that waits itself, while other threads wait beside it. */
struct waiting_callback {
    struct scene *s;
    unsigned queries;
    int ends, code;
    struct caller beside;
};

static void wait_in_end(void *arg, lectern_stmt *stmt, int result)
{
    struct waiting_callback *w = arg;
    (void)stmt;
    EXPECT(result == LECTERN_DONE);
    EXPECT(lectern_poll(w->s->cluster, 0) == LECTERN_MISUSE);
    EXPECT(lectern_cluster_close(w->s->cluster) == LECTERN_BUSY);
    sql_node_hold(w->s->node, true);
    call_begin(&w->beside);
    w->code = lectern_exec(w->s->one, "SELECT 1", NULL, NULL, NULL);
    w->ends++;
}

TEST(threads_beside_a_callback_that_waits)
{
    struct scene s = begin();
    lectern *third;
    EXPECT(lectern_open_session(s.cluster, &third) == LECTERN_OK);
    EXPECT(lectern_timeout(s.one, 600) == LECTERN_OK);
    EXPECT(lectern_timeout(s.other, 200) == LECTERN_OK);
    struct waiting_callback w = {.s = &s, .beside = {.db = s.other}};
    lectern_stmt *stmt = lazy(third, "SELECT 1");
    EXPECT_CODE(LECTERN_OK, third, lectern_start(stmt, NULL, wait_in_end, &w));
    while (w.ends == 0)
        EXPECT(lectern_poll(s.cluster, -1) == LECTERN_OK);
    EXPECT(w.code == LECTERN_TIMEOUT);
    call_end(&w.beside);
    expect_timeout(&w.beside, 200);
    EXPECT_CODE(LECTERN_OK, third, lectern_finalize(stmt));
    EXPECT_CODE(LECTERN_OK, third, lectern_close(third));
    end(&s);
}

/* Two threads wait, one of them turns the loop and is called back: the other one's limit is kept
 * while that lasts. */
struct long_callback {
    atomic_int calls_ended;
    bool ended_beside;
};

static void last_until_one_ended(void *arg, lectern_stmt *stmt, int result)
{
    struct long_callback *l = arg;
    (void)stmt;
    EXPECT(result == LECTERN_TIMEOUT);
    uint64_t limit = clock_mono_ms() + TEST_HANG_MS;
    while (atomic_load(&l->calls_ended) == 0 && clock_mono_ms() < limit)
        (void)sched_yield();
    l->ended_beside = atomic_load(&l->calls_ended) != 0;
}

struct counted_call {
    struct caller c;
    struct long_callback *l;
};

static void *call_and_count(void *arg)
{
    struct counted_call *c = arg;
    (void)call(&c->c);
    atomic_fetch_add(&c->l->calls_ended, 1);
    return NULL;
}

TEST(threads_beside_a_callback_that_lasts)
{
    struct scene s = begin();
    lectern *third;
    struct long_callback l = {0};
    struct counted_call one = {.c = {.db = s.one}, .l = &l},
                        other = {.c = {.db = s.other}, .l = &l};
    EXPECT(lectern_open_session(s.cluster, &third) == LECTERN_OK);
    EXPECT(lectern_timeout(s.one, 1500) == LECTERN_OK);
    EXPECT(lectern_timeout(s.other, 1500) == LECTERN_OK);
    EXPECT(lectern_timeout(third, 100) == LECTERN_OK);
    sql_node_hold(s.node, true);
    EXPECT(pthread_create(&one.c.thread, NULL, call_and_count, &one) == 0);
    EXPECT(pthread_create(&other.c.thread, NULL, call_and_count, &other) == 0);
    await_waiters(s.cluster, 2);
    lectern_stmt *stmt = lazy(third, "SELECT 1");
    EXPECT_CODE(LECTERN_OK, third, lectern_start(stmt, NULL, last_until_one_ended, &l));
    call_end(&one.c);
    call_end(&other.c);
    EXPECT(l.ended_beside);
    EXPECT(one.c.code == LECTERN_TIMEOUT && other.c.code == LECTERN_TIMEOUT);
    (void)lectern_finalize(stmt);
    EXPECT_CODE(LECTERN_OK, third, lectern_close(third));
    end(&s);
}

/* One thread's turn of the loop swallows the wake-up of the turner, and then it is away in a
 * function of the program: the turner comes back all the same. On one processor, which the turner
 * gets only when nobody else wants it, it cannot have seen the wake-up before. */
static void *step_when_idle(void *arg)
{
    EXPECT(sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}) == 0);
    return call_and_count(arg);
}

static void last_until_another_ended(void *arg, lectern_stmt *stmt, int result)
{
    (void)stmt;
    EXPECT(result == LECTERN_INTERRUPT);
    struct long_callback *l = arg;
    for (int i = 0; i < 20000 && atomic_load(&l->calls_ended) == 0; i++) /* it is idle */
        EXPECT(usleep(1000) == 0);
    l->ended_beside = atomic_load(&l->calls_ended) != 0;
}

TEST(threads_turner_comes_back_beside_a_callback)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    EXPECT(sched_setaffinity(0, sizeof one, &one) == 0);
    struct scene s = begin();
    sql_node_hold(s.node, true);
    struct long_callback l = {0};
    struct counted_call turner = {.c = {.stmt = lazy(s.one, "SELECT 1")}, .l = &l};
    EXPECT(pthread_create(&turner.c.thread, NULL, step_when_idle, &turner) == 0);
    await_waiters(s.cluster, 1);
    fake_node_wait(sql_node_fake(s.node), WIRE_QUERY, 1);
    lectern_stmt *first = lazy(s.other, "SELECT 1"), *second = lazy(s.other, "SELECT 2");
    EXPECT_CODE(LECTERN_OK, s.other, lectern_start(first, NULL, NULL, NULL));
    EXPECT_CODE(LECTERN_OK, s.other,
                lectern_start(second, NULL, last_until_another_ended, &l)); /* waits for FIRST */
    fake_node_mute(sql_node_fake(s.node), true); /* nor does it hear anything else */
    cluster_lock(s.cluster);
    EXPECT(lectern_finalize(turner.c.stmt) == LECTERN_OK); /* ends the turner's wait */
    lectern_interrupt(s.other);
    EXPECT(lectern_poll(s.cluster, 0) == LECTERN_OK); /* heeded: told in the next turn */
    EXPECT(lectern_poll(s.cluster, 0) == LECTERN_OK);
    cluster_unlock(s.cluster);
    call_end(&turner.c);
    EXPECT(l.ended_beside);
    fake_node_mute(sql_node_fake(s.node), false);
    (void)lectern_finalize(first);
    (void)lectern_finalize(second);
    end(&s);
}

/* --- many --------------------------------------------------------------------------------------
 */

#define THREADS    6
#define STATEMENTS 60

struct crowd {
    struct scene s;
    atomic_int running;
    atomic_uint done, interrupted;
};

static void *run_many(void *arg)
{
    struct crowd *c = arg;
    lectern *db;
    EXPECT(lectern_open_session(c->s.cluster, &db) == LECTERN_OK);
    lectern_stmt *own, *shared;
    EXPECT_CODE(LECTERN_OK, db,
                lectern_prepare(db, "INSERT INTO t VALUES(1) RETURNING a", -1, &own, NULL));
    for (int i = 0; i < STATEMENTS; i++) {
        EXPECT_CODE(LECTERN_ROW, db, lectern_step(own));
        EXPECT_CODE(LECTERN_OK, db, lectern_reset(own));
        /* A session that all use, and that is interrupted. */
        shared = lazy(c->s.other, "SELECT 1");
        int code = lectern_step(shared);
        EXPECT(code == LECTERN_ROW || code == LECTERN_INTERRUPT);
        atomic_fetch_add(code == LECTERN_ROW ? &c->done : &c->interrupted, 1);
        (void)lectern_finalize(shared);
    }
    EXPECT_CODE(LECTERN_OK, db, lectern_finalize(own));
    EXPECT_CODE(LECTERN_OK, db, lectern_close(db));
    atomic_fetch_sub(&c->running, 1);
    return NULL;
}

static void *poll_many(void *arg)
{
    struct crowd *c = arg;
    while (atomic_load(&c->running) != 0)
        EXPECT(lectern_poll(c->s.cluster, 20) == LECTERN_OK);
    return NULL;
}

static void *interrupt_many(void *arg)
{
    struct crowd *c = arg;
    while (atomic_load(&c->running) != 0) {
        lectern_interrupt(c->s.other);
        (void)lectern_position(c->s.one);
    }
    return NULL;
}

TEST(threads_many_beside_poll_and_interrupt)
{
    struct crowd c = {.s = begin(), .running = THREADS};
    EXPECT_CODE(LECTERN_OK, c.s.one, lectern_exec(c.s.one, "CREATE TABLE t(a)", NULL, NULL, NULL));
    pthread_t threads[THREADS], poller, interrupter;
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], NULL, run_many, &c) == 0);
    EXPECT(pthread_create(&poller, NULL, poll_many, &c) == 0);
    EXPECT(pthread_create(&interrupter, NULL, interrupt_many, &c) == 0);
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(pthread_join(poller, NULL) == 0);
    EXPECT(pthread_join(interrupter, NULL) == 0);
    EXPECT(atomic_load(&c.done) + atomic_load(&c.interrupted) == THREADS * STATEMENTS);
    end(&c.s);
}
