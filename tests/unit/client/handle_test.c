/* Room: tests. Sessions: opening, closing, errors, limits, positions, interrupts. */
#include "tests/unit/client/both.h"

#include "base/clock.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

TEST(handle_open_tells_whom_it_found)
{
    struct both b = both_open();
    EXPECT_TEXT(sql_node_url(b.node) + strlen("lectern://"),
                lectern_info(b.db, LECTERN_INFO_ADDRESS));
    EXPECT_TEXT("1", lectern_info(b.db, LECTERN_INFO_NODE));
    EXPECT_TEXT("0000000000000001", lectern_info(b.db, LECTERN_INFO_CLUSTER));
    EXPECT(lectern_info(b.db, LECTERN_INFO_SERVER)[0] != '\0');
    EXPECT(lectern_info(b.db, LECTERN_INFO_SQLITE)[0] != '\0');
    EXPECT_TEXT("", lectern_info(b.db, 99));
    EXPECT_TEXT("", lectern_info(NULL, LECTERN_INFO_NODE));
    /* The answer is the session's own: other sessions' turns learn other addresses of the node. */
    lectern *other;
    EXPECT(lectern_open_session(lectern_cluster_of(b.db), &other) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, other, lectern_exec(other, "SELECT 1", NULL, NULL, NULL));
    EXPECT(lectern_info(b.db, LECTERN_INFO_ADDRESS) != lectern_info(other, LECTERN_INFO_ADDRESS));
    EXPECT_CODE(LECTERN_OK, other, lectern_close(other));
    EXPECT_TEXT("0.1.0", lectern_libversion());
    both_close(&b);
}

TEST(handle_open_failures_have_codes_and_sentences)
{
    lectern *db;
    EXPECT(lectern_open("lectern://127.0.0.1:1?timeout=400", &db) == LECTERN_CANTOPEN);
    EXPECT(db != NULL && lectern_errcode(db) == LECTERN_CANTOPEN);
    EXPECT(strstr(lectern_errmsg(db), "127.0.0.1:1") != NULL);
    EXPECT(lectern_close(db) == LECTERN_OK);
    static const char *const wrong[] = {"",
                                        "lectern://",
                                        "http://x",
                                        "lectern://h:p",
                                        "lectern://h?timeout=x",
                                        "lectern://h?nonsense=1",
                                        "lectern://h/other/db"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (lectern_open(wrong[i], &db) != LECTERN_CANTOPEN)
            test_fail(__FILE__, __LINE__, "%s: %s", wrong[i], lectern_errmsg(db));
        EXPECT(db != NULL && strlen(lectern_errmsg(db)) > 10);
        /* good for its sentence, and nothing else */
        EXPECT(lectern_exec(db, "SELECT 1", NULL, NULL, NULL) == LECTERN_MISUSE);
        EXPECT(lectern_cluster_of(db) == NULL && lectern_changes(db) == 0);
        lectern_interrupt(db);
        EXPECT(lectern_close(db) == LECTERN_OK);
    }
    EXPECT(lectern_open(NULL, &db) == LECTERN_MISUSE && db != NULL);
    EXPECT(lectern_close(db) == LECTERN_OK);
    EXPECT(lectern_open("lectern://x", NULL) == LECTERN_MISUSE);

    struct fake_node *n =
        fake_node_start(&(struct fake_options){.raw = "HTTP/1.1 400 Bad\r\n\r\n"});
    char url[80];
    (void)snprintf(url, sizeof url, "lectern://%s?timeout=1000", fake_node_address(n));
    EXPECT_CODE(LECTERN_PROTOCOL, db, lectern_open(url, &db));
    EXPECT(strstr(lectern_errmsg(db), "Lectern") != NULL);
    EXPECT(lectern_close(db) == LECTERN_OK);
    fake_node_stop(n);
}

TEST(handle_close_waits_for_what_was_not_finalized)
{
    struct both b = both_open();
    lectern_stmt *s;
    lectern_batch *batch;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare(b.db, "SELECT 1", -1, &s, NULL));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
    EXPECT_CODE(LECTERN_BUSY, b.db, lectern_close(b.db));
    EXPECT(lectern_errcode(b.db) == LECTERN_BUSY);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s));
    EXPECT_CODE(LECTERN_BUSY, b.db, lectern_close(b.db));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_free(batch));
    both_close(&b);
    EXPECT(lectern_close(NULL) == LECTERN_OK);
}

TEST(handle_codes_are_those_of_sqlite)
{
    static const int same[] = {0,  1,  3,  4,  5,  6,  7,  8,   9,   11,  13,   17,
                               18, 19, 20, 21, 23, 25, 26, 100, 101, 516, 99999};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        EXPECT_TEXT(sqlite3_errstr(same[i]), lectern_errstr(same[i]));
    for (int code = LECTERN_UNKNOWN; code <= LECTERN_ROWS_LOST; code++)
        EXPECT(strlen(lectern_errstr(code)) > 20);
    EXPECT_TEXT("constraint failed", lectern_errstr(SQLITE_CONSTRAINT_UNIQUE));
}

TEST(handle_errors_of_the_node_keep_their_meaning)
{
    static const struct {
        enum err e;
        int code;
    } all[] = {{ERR_FORBIDDEN, LECTERN_AUTH},      {ERR_UNKNOWN, LECTERN_UNKNOWN},
               {ERR_ROWS_LOST, LECTERN_ROWS_LOST}, {ERR_FULL, LECTERN_FULL},
               {ERR_TOO_BIG, LECTERN_TOOBIG},      {ERR_TIMEOUT, LECTERN_TIMEOUT},
               {ERR_CANCELLED, LECTERN_INTERRUPT}};
    struct both b = both_open();
    EXPECT_CODE(LECTERN_OK, b.db, lectern_timeout(b.db, 300));
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        sql_node_fail_next(b.node, all[i].e, "what happened");
        int code = lectern_exec(b.db, "UPDATE t SET a = 1", NULL, NULL, NULL);
        if (all[i].e == ERR_UNKNOWN) /* is asked for again, and then runs: there is no such table */
            EXPECT_CODE(LECTERN_ERROR, b.db, code);
        else
            EXPECT_CODE(all[i].code, b.db, code);
        if (all[i].e != ERR_UNKNOWN)
            EXPECT(strncmp(lectern_errmsg(b.db), "what happened", 13) == 0);
        EXPECT(lectern_error_offset(b.db) == -1 || all[i].e == ERR_UNKNOWN);
    }
    char *text = NULL;
    sql_node_fail_next(b.node, ERR_FULL, "what happened");
    EXPECT_CODE(LECTERN_FULL, b.db, lectern_exec(b.db, "DELETE FROM t", NULL, NULL, &text));
    EXPECT_TEXT("what happened", text);
    lectern_free(text);
    both_close(&b);
}

TEST(handle_limits_and_levels_are_checked)
{
    struct both b = both_open();
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_timeout(b.db, 0));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_timeout(b.db, -5));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_timeout(b.db, 86400001));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_timeout(b.db, 86400000));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_read_level(b.db, 4, 0));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_read_level(b.db, -1, 0));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_read_level(b.db, LECTERN_READ_BOUNDED, -1));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_read_level(b.db, LECTERN_READ_BOUNDED, 1ll << 32));
    for (int level = LECTERN_READ_ANY; level <= LECTERN_READ_STRONG; level++) {
        EXPECT_CODE(LECTERN_OK, b.db, lectern_read_level(b.db, level, 500));
        EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT 1", NULL, NULL, NULL));
    }
    both_close(&b);
}

TEST(handle_position_is_what_the_program_says_or_newer)
{
    struct both b = both_open();
    uint64_t first = lectern_position(b.db);
    both_exec(&b, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    EXPECT(lectern_position(b.db) > first);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_set_position(b.db, 1000));
    EXPECT(lectern_position(b.db) == 1000);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_set_position(b.db, 0));
    EXPECT(lectern_position(b.db) == 0);
    both_exec(&b, "INSERT INTO t VALUES(2)");
    EXPECT(lectern_position(b.db) > first && lectern_position(b.db) < 1000);
    EXPECT(lectern_position(NULL) == 0 && lectern_set_position(NULL, 1) == LECTERN_MISUSE);
    both_close(&b);
}

static lectern *to_interrupt;

static void on_alarm(int signal_number)
{
    (void)signal_number;
    lectern_interrupt(to_interrupt);
}

static void *interrupt_soon(void *arg)
{
    struct both *b = arg;
    fake_node_wait(sql_node_fake(b->node), WIRE_QUERY, 1);
    lectern_interrupt(b->db);
    return NULL;
}

TEST(handle_interrupt_from_a_thread_and_a_signal)
{
    struct both b = both_open();
    /* Nothing runs: as in SQLite, nothing happens. */
    lectern_interrupt(b.db);
    lectern_interrupt(NULL);
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare(b.db, "SELECT 1", -1, &s, NULL));
    sql_node_hold(b.node, true);
    pthread_t t;
    uint64_t before = test_felt_ms();
    EXPECT(pthread_create(&t, NULL, interrupt_soon, &b) == 0);
    EXPECT_CODE(LECTERN_INTERRUPT, b.db, lectern_step(s));
    EXPECT(pthread_join(t, NULL) == 0);
    to_interrupt = b.db;
    EXPECT(signal(SIGALRM, on_alarm) != SIG_ERR);
    /* Again and again: the first may come before there is anything to end. */
    struct itimerval soon = {.it_value = {.tv_usec = 20000}, .it_interval = {.tv_usec = 20000}};
    EXPECT(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    EXPECT_CODE(LECTERN_INTERRUPT, b.db, lectern_step(s));
    EXPECT(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL) == 0);
    EXPECT(test_felt_ms() - before < 5000);
    sql_node_hold(b.node, false);
    EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s));
    lectern_interrupt(b.db); /* between two steps */
    EXPECT_CODE(LECTERN_INTERRUPT, b.db, lectern_step(s));
    EXPECT_CODE(LECTERN_INTERRUPT, b.db, lectern_finalize(s));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT 1", NULL, NULL, NULL));
    both_close(&b);
}

/* Statements of one session from several threads: one call at a time, none is lost. */
static void *insert_many(void *arg)
{
    lectern_stmt *s;
    EXPECT(lectern_prepare(arg, "INSERT INTO t VALUES(?)", -1, &s, NULL) == LECTERN_OK);
    for (int i = 0; i < 50; i++) {
        EXPECT(lectern_bind_int(s, 1, i) == LECTERN_OK);
        EXPECT(lectern_step(s) == LECTERN_DONE);
        EXPECT(lectern_reset(s) == LECTERN_OK);
    }
    EXPECT(lectern_finalize(s) == LECTERN_OK);
    return NULL;
}

TEST(handle_is_for_many_threads)
{
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_create(&t[i], NULL, insert_many, b.db) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(t[i], NULL) == 0);
    EXPECT(lectern_total_changes(b.db) == 200);
    both_close(&b);
}

TEST(handle_status_and_members)
{
    struct both b = both_open();
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare_status(b.db, &s));
    EXPECT(lectern_sql(s) == NULL && lectern_stmt_readonly(s) == 1);
    EXPECT_CODE(LECTERN_DONE, b.db, lectern_step(s)); /* the fake node has no members to tell */
    EXPECT_CODE(LECTERN_OK, b.db, lectern_reset(s));
    EXPECT_CODE(LECTERN_RANGE, b.db, lectern_bind_int(s, 1, 1));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s));
    struct lectern_member_change change = {.change = LECTERN_MEMBER_ADD, .address = "h:1"};
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare_member_change(b.db, &change, &s));
    EXPECT_CODE(LECTERN_DONE, b.db, lectern_step(s));
    EXPECT(fake_node_frames(sql_node_fake(b.node), WIRE_CLUSTER) == 1);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s));
    change.address = NULL;
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare_member_change(b.db, &change, &s));
    change = (struct lectern_member_change){.change = 9};
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare_member_change(b.db, &change, &s));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare_member_change(b.db, NULL, &s));
    change = (struct lectern_member_change){.change = LECTERN_MEMBER_REMOVE, .role = 3};
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare_member_change(b.db, &change, &s));
    both_close(&b);
}

/* The cluster of a session of lectern_open goes with it: not while others use it. */
TEST(handle_close_of_a_session_whose_cluster_is_used)
{
    struct both b = both_open();
    lectern *other;
    EXPECT(lectern_open_session(lectern_cluster_of(b.db), &other) == LECTERN_OK);
    EXPECT_CODE(LECTERN_BUSY, b.db, lectern_close(b.db));
    EXPECT_CODE(LECTERN_OK, other, lectern_exec(other, "SELECT 1", NULL, NULL, NULL));
    sql_node_hold(b.node, true);
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_OK, other,
                lectern_prepare_v3(other, "SELECT 2", -1, LECTERN_PREPARE_LAZY, &s, NULL));
    EXPECT_CODE(LECTERN_OK, other, lectern_start(s, NULL, NULL, NULL));
    EXPECT(lectern_poll(lectern_cluster_of(b.db), 100) == LECTERN_OK);
    EXPECT(lectern_finalize(s) == LECTERN_OK);
    EXPECT(lectern_close(other) == LECTERN_OK); /* what it asked ends a little later */
    both_close(&b);
}

static void *poll_for_ever(void *arg)
{
    EXPECT(lectern_poll(arg, -1) == LECTERN_OK);
    return NULL;
}

/* Nothing happens on this cluster, and so the thread that waits has no end of its own. */
TEST(handle_a_thread_that_polls_lets_others_in)
{
    struct sql_node *n = sql_node_start();
    lectern_cluster *c;
    lectern *db;
    pthread_t t;
    EXPECT(lectern_cluster_open(sql_node_url(n), &c) == LECTERN_OK);
    EXPECT(lectern_open_session(c, &db) == LECTERN_OK);
    EXPECT(pthread_create(&t, NULL, poll_for_ever, c) == 0);
    (void)poll(NULL, 0, 50); /* either order is right; this one is the harder */
    EXPECT_CODE(LECTERN_OK, db, lectern_exec(db, "SELECT 1", NULL, NULL, NULL));
    EXPECT(pthread_join(t, NULL) == 0);
    EXPECT_CODE(LECTERN_OK, db, lectern_close(db));
    EXPECT(lectern_cluster_close(c) == LECTERN_OK);
    sql_node_stop(n);
}

static bool closes_on_change(void *arg, struct fake_peer *p, struct wire_frame *f)
{
    (void)arg;
    if (f->type == WIRE_QUERY) /* BEGIN */
        wire_put_done(fake_out(p), f->id,
                      &(struct wire_done){.seq = 2, .flags = WIRE_IN_TRANSACTION});
    else if (f->type == WIRE_CLUSTER)
        fake_peer_close(p);
    return f->type == WIRE_QUERY || f->type == WIRE_CLUSTER;
}

/* It is in no transaction: "nothing was done" would be a lie. */
TEST(handle_lost_member_change_amid_a_transaction_is_unknown)
{
    struct fake_node *n =
        fake_node_start(&(struct fake_options){.node_id = 1, .answer = closes_on_change});
    lectern *db;
    lectern_stmt *s;
    EXPECT(lectern_open(fake_node_address(n), &db) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, db, lectern_exec(db, "BEGIN", NULL, NULL, NULL));
    EXPECT(lectern_get_autocommit(db) == 0);
    struct lectern_member_change change = {.change = LECTERN_MEMBER_REMOVE, .id = 3};
    EXPECT_CODE(LECTERN_OK, db, lectern_prepare_member_change(db, &change, &s));
    EXPECT_CODE(LECTERN_UNKNOWN, db, lectern_step(s));
    (void)lectern_finalize(s);
    EXPECT(lectern_get_autocommit(db) == 1); /* it went with the connection, and is told of */
    EXPECT_CODE(LECTERN_TXN_LOST, db,
                lectern_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL));
    EXPECT_CODE(LECTERN_OK, db, lectern_close(db));
    fake_node_stop(n);
}
