/* Room: tests. Hrana over WebSockets: streams beside each other, cursors that are given up, sockets
 * that end at any moment, and clients that take nothing. */
#include "base/mem.h"
#include "tests/lib/asked.h"
#include "tests/lib/test.h"
#include "tests/unit/http/door_stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROW_BYTES 20000u

/* One request; MORE: its fields behind the type. */
static void ask(struct door_stage *d, int fd, int id, const char *type, const char *more)
{
    char *m =
        mem_printf("{\"type\":\"request\",\"request_id\":%d,\"request\":{\"type\":\"%s\",%s}}", id,
                   type, more);
    door_say(d, fd, m);
    free(m);
}

#define EXECUTE(sql) "\"stream_id\":1,\"stmt\":{\"sql\":\"" sql "\",\"want_rows\":true}"
#define CURSOR(sql)                                                                                \
    "\"stream_id\":1,\"cursor_id\":5,\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"" sql "\"}},"      \
    "{\"stmt\":{\"sql\":\"SELECT 2\"}}]}"
#define FETCH "\"cursor_id\":5,\"max_count\":10"

static bool has(const char *p, size_t n, const char *what)
{
    return memmem(p, n, what, strlen(what)) != NULL;
}

/* Hears what has WANTED in it, and not UNWANTED before. */
static void hear(struct door_stage *d, int fd, const char *wanted, const char *unwanted)
{
    size_t n;
    char *a = client_hear(&d->http, fd, wanted, &n);
    if (!has(a, n, wanted) || (unwanted != NULL && has(a, n, unwanted)))
        test_fail(__FILE__, __LINE__, "wanted %s, got %zu bytes without it, or with %s", wanted, n,
                  unwanted == NULL ? "" : unwanted);
    free(a);
}

TEST(hrana_ws_runs_the_requests_of_a_stream_in_order)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = door_socket(&d, "hrana3");
    ask(&d, fd, 1, "open_stream", "\"stream_id\":1");
    ask(&d, fd, 2, "execute", EXECUTE("SELECT 1"));
    ask(&d, fd, 3, "execute", EXECUTE("SELECT 2"));
    ask(&d, fd, 4, "close_stream", "\"stream_id\":1");
    ask(&d, fd, 5, "open_stream", "\"stream_id\":1"); /* its number is free again */
    ask(&d, fd, 6, "execute", EXECUTE("SELECT 3"));
    hear(&d, fd, "\"request_id\":5", "\"request_id\":4");
    struct request *r = door_asked(&d, "SELECT 1");
    EXPECT(asked(&d.node, 1) != NULL && asked(&d.node, 2) == NULL);
    asked_done(asked(&d.node, 1), 0, false);
    hear(&d, fd, "\"request_id\":6", "\"request_id\":2"); /* another stream waits for nobody */
    asked_done(r, 0, false);
    hear(&d, fd, "\"request_id\":2", "\"request_id\":3");
    asked_error(door_asked(&d, "SELECT 2"), ERR_SQL, 1, "no", false);
    hear(&d, fd, "\"request_id\":4", "\"request_id\":5");
    (void)close(fd);
    EXPECT(door_is_quiet(&d));
    door_stage_close(&d);
}

/* Closed while its statement runs, while rows wait, with a fetch that waits before it. */
TEST(hrana_ws_gives_up_a_cursor)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = door_socket(&d, "hrana3");
    ask(&d, fd, 1, "open_stream", "\"stream_id\":1");
    hear(&d, fd, "\"request_id\":1", NULL);
    for (int rows = 0; rows <= 40; rows += 20)
        for (int fetches = 0; fetches < 2; fetches++) {
            ask(&d, fd, 10, "open_cursor", CURSOR("SELECT 1"));
            hear(&d, fd, "\"request_id\":10", NULL);
            struct request *r = door_asked(&d, "SELECT 1");
            asked_columns(r, 1);
            for (int i = 0; i < rows; i++)
                asked_rows(r, 1, ROW_BYTES);
            if (fetches > 0) {
                ask(&d, fd, 11, "fetch_cursor", FETCH);
                if (rows == 0) /* columns are there */
                    hear(&d, fd, "\"request_id\":11", NULL);
            }
            ask(&d, fd, 12, "close_cursor", "\"cursor_id\":5");
            ask(&d, fd, 13, "execute", EXECUTE("SELECT 3"));
            (void)stage_turn(&d.http);
            EXPECT(asked_is_cancelled(r)); /* and no answer before it is over */
            asked_rows(r, 1, ROW_BYTES);   /* on its way: dropped */
            asked_error(r, ERR_CANCELLED, 0, "interrupted", false);
            asked_done(door_asked(&d, "SELECT 3"), 0, false); /* not the cursor's second step */
            hear(&d, fd, "\"request_id\":13", NULL);
        }
    (void)close(fd);
    EXPECT(door_is_quiet(&d));
    door_stage_close(&d);
}

/* The socket ends: in the middle of a statement, of a cursor, of closing it; by the client, by a
 * message that is none, with the node. */
TEST(hrana_ws_ends_at_any_moment)
{
    for (int state = 0; state < 6; state++)
        for (int how = 0; how < 3; how++) {
            struct door_stage d;
            door_stage_open(&d);
            thread_expect_loop();
            int fd = door_socket(&d, "hrana3");
            ask(&d, fd, 1, "open_stream", "\"stream_id\":1");
            ask(&d, fd, 2, "store_sql", "\"sql_id\":1,\"sql\":\"SELECT 1\"");
            if (state == 0)
                ask(&d, fd, 3, "execute", "\"stream_id\":1,\"stmt\":{\"sql_id\":1}");
            else
                ask(&d, fd, 3, "open_cursor", CURSOR("SELECT 1"));
            struct request *r = door_asked(&d, "SELECT 1");
            asked_columns(r, 1);
            for (int i = 0; state > 1 && i < 40; i++)
                asked_rows(r, 1, ROW_BYTES);
            if (state == 3)
                ask(&d, fd, 4, "fetch_cursor", "\"cursor_id\":5,\"max_count\":3");
            if (state == 4)
                ask(&d, fd, 4, "close_cursor", "\"cursor_id\":5");
            if (state == 5)
                ask(&d, fd, 4, "close_stream", "\"stream_id\":1");
            if (how == 0)
                (void)close(fd);
            else if (how == 1)
                door_say(&d, fd, "{}");
            for (int i = 0; how < 2 && i < 20 && asked(&d.node, 0) != NULL; i++)
                stage_turn(&d.http);
            if (how != 0)
                (void)close(fd);
            if (how == 2)
                (void)stage_turn(&d.http);
            EXPECT(door_is_quiet(&d) && list_empty(&d.node.sessions));
            door_stage_close(&d);
        }
}

/* Fetches that wait for rows when their client takes nothing are not all answered into memory. */
TEST(hrana_ws_answers_no_fetch_that_nobody_takes)
{
    struct door_stage d;
    char more[300];
    door_stage_open(&d);
    thread_expect_loop();
    int fd = door_socket(&d, "hrana3");
    for (int i = 0; i < 80; i++) {
        (void)snprintf(more, sizeof more, "\"stream_id\":%d", i);
        ask(&d, fd, i, "open_stream", more);
        (void)snprintf(more, sizeof more,
                       "\"stream_id\":%d,\"cursor_id\":%d,\"batch\":{\"steps\":[{\"stmt\":{"
                       "\"sql\":\"SELECT 1\"}}]}",
                       i, i);
        ask(&d, fd, i, "open_cursor", more);
        (void)snprintf(more, sizeof more, "\"cursor_id\":%d,\"max_count\":100", i);
        ask(&d, fd, 1000 + i, "fetch_cursor", more);
    }
    size_t before = d.http.waiting.bytes;
    for (unsigned i = 0; i < 80; i++) {
        asked_columns(asked(&d.node, i), 1);
        asked_rows(asked(&d.node, i), 10, ROW_BYTES);
        EXPECT(d.http.waiting.bytes < before + MIB(1)); /* 16 MB of answers */
    }
    char *a = door_hear(&d, fd, "\"request_id\":1079"); /* it reads, and the others come */
    free(a);
    (void)close(fd);
    for (int i = 0; i < 20 && asked(&d.node, 0) != NULL; i++)
        stage_turn(&d.http);
    door_stage_close(&d);
}
