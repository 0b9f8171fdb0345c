/* Room: tests. Cursors over HTTP: rows that stream, a client that does not take them, one that goes
 * away in the middle, and what becomes of the stream. */
#include "base/clock.h"
#include "base/mem.h"
#include "tests/lib/asked.h"
#include "tests/lib/test.h"
#include "tests/unit/http/door_stage.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP(sql)  "{\"stmt\":{\"sql\":\"" sql "\",\"want_rows\":true}}"
#define IF_OK(n)   "{\"condition\":{\"type\":\"ok\",\"step\":" #n "},\"stmt\":{\"sql\":"
#define ROW_BYTES  20000u
#define ROWS       400
#define ROWS_BYTES ((size_t)ROWS * ROW_BYTES)

static void post(struct door_stage *d, int fd, const char *baton, const char *steps)
{
    const char *quote = baton == NULL ? "" : "\"";
    char *body = mem_printf("{\"baton\":%s%s%s,\"batch\":{\"steps\":[%s]}}", quote,
                            baton == NULL ? "null" : baton, quote, steps);
    door_post(d, fd, "/v3/cursor", body);
    free(body);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

/* 400 rows of 20,000 bytes: more than all windows and buffers together. */
static void say_many_rows(struct request *r)
{
    thread_expect_loop();
    asked_columns(r, 1);
    for (int i = 0; i < ROWS; i++)
        asked_rows(r, 1, ROW_BYTES);
}

TEST(cursor_holds_a_window_of_rows_and_counts_it)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    size_t before = d.node.waiting.bytes;
    post(&d, fd, NULL, STEP("SELECT 1") "," STEP("SELECT 2"));
    struct request *r = door_asked(&d, "SELECT 1");
    say_many_rows(r);
    /* In the session and the cursor, but for what the connection took. */
    stage_turn(&d.http);
    EXPECT(d.node.waiting.bytes > before + ROWS_BYTES / 4);
    size_t held = LIST_ENTRY(d.node.sessions.next, struct session, link)->counted;
    EXPECT(d.node.waiting.bytes - before > held + WIRE_WINDOW * 3 / 4); /* the cursor's */
    asked_done(r, 0, false);
    EXPECT(d.node.waiting.bytes < before + 2 * ROWS_BYTES);
    struct buf all;
    buf_init(&all, SIZE_MAX);
    while (asked(&d.node, 0) == NULL) { /* as it reads, the first one comes to its end */
        char *a = door_hear(&d, fd, "\"row\"");
        buf_put(&all, a, strlen(a));
        free(a);
    }
    asked_done(door_asked(&d, "SELECT 2"), 0, false);
    char *a = door_hear(&d, fd, "\r\n0\r\n\r\n");
    buf_put(&all, a, strlen(a) + 1);
    EXPECT_EQ(count((const char *)all.data, "\"type\":\"row\""), ROWS);
    EXPECT_EQ(count((const char *)all.data, "\"type\":\"step_end\""), 2);
    free(a);
    buf_fini(&all);
    (void)close(fd);
    EXPECT(door_is_quiet(&d));
    EXPECT(d.node.waiting.bytes <= before + KIB(8)); /* the stream rests under its baton */
    door_stage_close(&d);
}

/* It is the connection that ends a client which takes less than 1 KiB in 30 s: one that is faster,
 * if only a little, has all the time it needs. */
TEST(cursor_waits_for_a_client_that_takes_slowly)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    post(&d, fd, NULL, STEP("SELECT 1"));
    struct request *r = door_asked(&d, "SELECT 1");
    say_many_rows(r);
    stage_turn(&d.http);
    EXPECT(!list_empty(&d.node.watched));
    sessions_timer(&d.node, clock_mono_ms() + 50000);
    EXPECT(!asked_is_cancelled(r));
    asked_done(r, 0, false);
    char *all = door_hear(&d, fd, "\r\n0\r\n\r\n");
    EXPECT_EQ(count(all, "\"type\":\"row\""), ROWS);
    EXPECT_EQ(count(all, "\"type\":\"step_end\""), 1);
    free(all);
    (void)close(fd);
    door_stage_close(&d);
}

/* Client gone while rows wait, while the answer is under way, and between two steps. */
TEST(cursor_ends_with_its_client)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    for (int when = 0; when < 4; when++) {
        int fd = client_dial(&d.http);
        post(&d, fd, NULL, STEP("SELECT 1") "," STEP("SELECT 2"));
        struct request *r = door_asked(&d, "SELECT 1");
        if (when == 1)
            asked_columns(r, 1);
        if (when >= 2)
            say_many_rows(r);
        if (when == 3)
            asked_done(r, 0, true); /* in a transaction, whatever it was */
        (void)close(fd);
        for (int i = 0; i < 20 && asked(&d.node, 0) != NULL; i++)
            stage_turn(&d.http);
        EXPECT(door_is_quiet(&d)); /* its session is gone, and with it the transaction */
        EXPECT(list_empty(&d.node.sessions));
    }
    door_stage_close(&d);
}

/* What was told cannot be taken back, so what may turn out to write is not run as a read. */
TEST(cursor_runs_no_read_batch_that_may_write)
{
    static const char *const statements[] = {"SELECT 1", "VALUES(1)", "PRAGMA user_version=1",
                                             "EXPLAIN SELECT 1"};
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    for (int i = 0; i < 4; i++) {
        int fd = client_dial(&d.http);
        char *steps = mem_printf(
            STEP("BEGIN") "," IF_OK(0) "\"%s\"}}," IF_OK(
                1) "\"COMMIT\"}},"
                   "{\"condition\":{\"type\":\"not\",\"cond\":{\"type\":\"ok\",\"step\":2}},"
                   "\"stmt\":{\"sql\":\"ROLLBACK\"}}",
            statements[i]);
        post(&d, fd, NULL, steps);
        free(steps);
        struct request *r = door_asked(&d, i < 2 ? "BEGIN READONLY" : statements[i]);
        EXPECT_EQ(r->is_batch, i >= 2);
        if (i >= 2) {
            asked_step(r, 0);
            asked_done(r, 0, false);
        } else { /* it writes after all? then it is refused, and the batch ends as it says */
            asked_done(r, 0, true);
            r = door_asked(&d, statements[i]);
            asked_columns(r, 1);
            asked_rows(r, 1, 10);
            asked_error(r, ERR_FORBIDDEN, 8, "readonly", true);
            asked_done(door_asked(&d, "ROLLBACK"), 0, false);
        }
        char *a = door_hear(&d, fd, "\r\n0\r\n\r\n");
        EXPECT_EQ(count(a, "SQLITE_READONLY"), i < 2);
        EXPECT_EQ(count(a, "step_begin"), 3);
        free(a);
        (void)close(fd);
    }
    door_stage_close(&d);
}

/* An answer that cannot be read is the end of the cursor, and of what runs. */
TEST(cursor_of_a_broken_leader)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    for (int how = 0; how < 3; how++) {
        int fd = client_dial(&d.http);
        post(&d, fd, NULL, STEP("SELECT 1") "," STEP("SELECT 2"));
        struct request *r = door_asked(&d, "SELECT 1");
        if (how == 0)
            asked_rows(r, 3, 100); /* of no columns */
        asked_columns(r, how == 1 ? 100000 : 2);
        asked_rows(r, 3, 100); /* of one */
        (void)door_is_quiet(&d);
        EXPECT(asked_is_cancelled(r));
        asked_error(r, ERR_CANCELLED, 0, "interrupted", false);
        EXPECT(door_is_quiet(&d)); /* nothing else is run */
        char *a = door_hear(&d, fd, "\r\n0\r\n\r\n");
        EXPECT_EQ(count(a, "{\"type\":\"error\""), 1);
        free(a);
        (void)close(fd);
    }
    door_stage_close(&d);
}
