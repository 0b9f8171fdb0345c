/* Room: tests. What is long is done beside the loop (node/http/aside): others are served meanwhile,
 * the order stays, and nothing is left of whoever goes away, wherever it was. The pool's threads
 * are kept busy by the test until it lets them go, so what is long waits for as long as it wants.
 */
#include "base/mem.h"
#include "node/http/aside.h"
#include "node/http/http_listener.h"
#include "tests/lib/asked.h"
#include "tests/lib/test.h"
#include "tests/unit/http/door_stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROWS      10u
#define ROW_BYTES 10000u
#define EXECUTE   "{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT 1\"}}"
#define PIPELINE  "{\"requests\":[" EXECUTE ",{\"type\":\"close\"}]}"
#define QUICK     "{\"requests\":[{\"type\":\"get_autocommit\"}]}"

/* --- the pool, kept busy --- */

struct blocker {
    struct aside aside;
    uv_sem_t go;
    bool over;
};

static void wait_for_go(struct aside *a)
{
    uv_sem_wait(&LIST_ENTRY(a, struct blocker, aside)->go);
}

static void on_over(struct aside *a)
{
    LIST_ENTRY(a, struct blocker, aside)->over = true;
}

static void block(struct door_stage *d, struct blocker all[ASIDES_MAX])
{
    thread_expect_loop();
    memset(all, 0, ASIDES_MAX * sizeof *all);
    for (unsigned i = 0; i < ASIDES_MAX; i++) {
        EXPECT(uv_sem_init(&all[i].go, 0) == 0);
        aside_do(http_listener_asides(d->http.listener), &all[i].aside, wait_for_go, on_over);
    }
}

static void unblock(struct door_stage *d, struct blocker all[ASIDES_MAX])
{
    for (unsigned i = 0; i < ASIDES_MAX; i++)
        uv_sem_post(&all[i].go);
    for (unsigned i = 0; i < ASIDES_MAX; i++) {
        stage_until(&d->http, &all[i].over);
        uv_sem_destroy(&all[i].go);
    }
}

/* --- what clients see --- */

static bool is_silent(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

static void expect_silence(struct door_stage *d, int fd)
{
    for (int i = 0; i < 5; i++)
        stage_turn(&d->http);
    EXPECT(is_silent(fd));
}

/* Its client is gone, and not only silent. */
static void go_away(struct door_stage *d, int fd)
{
    struct linger at_once = {.l_onoff = 1};
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0 && close(fd) == 0);
    stage_turn(&d->http);
}

/* Somebody else is served. */
static void expect_served(struct door_stage *d)
{
    int fd = client_dial(&d->http);
    door_post(d, fd, "/v3/pipeline", QUICK);
    free(door_answer(d, fd, 200));
    (void)close(fd);
}

/* Answers what is asked with TEXT by many rows. */
static void answer_long(struct door_stage *d, const char *text)
{
    thread_expect_loop();
    struct request *r = door_asked(d, text);
    asked_columns(r, 1);
    asked_rows(r, ROWS, ROW_BYTES);
    asked_done(r, 0, false);
}

/* Whole rows among the N bytes at P; *RUN: x before them. */
static unsigned rows_in(const char *p, size_t n, size_t *run)
{
    unsigned rows = 0;
    for (size_t i = 0; i < n; i++) {
        *run = p[i] == 'x' ? *run + 1 : 0;
        rows += *run == ROW_BYTES;
    }
    return rows;
}

/* The whole next answer of FD, which has STATUS, of whatever bytes: its rows. */
static unsigned hear_rows(struct door_stage *d, int fd, int status)
{
    size_t n, run = 0;
    char *a = client_hear(&d->http, fd, "\r\n\r\n", &n);
    const char *length = strstr(a, "content-length: "), *body = strstr(a, "\r\n\r\n");
    EXPECT(length != NULL && body != NULL && strtol(a + 9, NULL, 10) == status);
    size_t left = (size_t)(body + 4 - a) + strtoul(length + 16, NULL, 10) - n;
    unsigned rows = rows_in(body, n - (size_t)(body - a), &run);
    for (uint64_t begun = clock_mono_ms(); left > 0;) {
        char room[65536];
        stage_turn(&d->http);
        ssize_t got = recv(fd, room, sizeof room, 0);
        EXPECT(got > 0 || (got < 0 && errno == EAGAIN && clock_mono_ms() - begun < TEST_HANG_MS));
        rows += rows_in(room, got > 0 ? (size_t)got : 0, &run);
        left -= got > 0 ? (size_t)got : 0;
    }
    free(a);
    return rows;
}

/* A body of more than ASIDE_MIN; TAIL: a request behind the long one. */
static char *long_body(const char *tail)
{
    char *text = mem_alloc(100001);
    memset(text, 'y', 100000);
    text[100000] = 0;
    char *body = mem_printf("{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT 1\","
                            "\"args\":[{\"type\":\"text\",\"value\":\"%s\"}]}},%s]}",
                            text, tail);
    free(text);
    return body;
}

/* --- answers --- */

static const char protobuf[] = "\x12\x0e\x12\x0c\x0a\x0a\x0a\x08SELECT 1"; /* execute of that */

TEST(long_answer_is_written_beside_the_loop)
{
    static const struct {
        const char *path, *body;
    } forms[] = {{"/v2/pipeline", PIPELINE},
                 {"/v3-protobuf/pipeline", protobuf},
                 {"/v1/execute", "{\"stmt\":{\"sql\":\"SELECT 1\"}}"},
                 {"/", "{\"statements\":[\"SELECT 1\"]}"}};
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct blocker pool[ASIDES_MAX];
        door_post(&d, fd, forms[i].path, forms[i].body);
        block(&d, pool);
        answer_long(&d, "SELECT 1");
        expect_silence(&d, fd);
        expect_served(&d);
        EXPECT(d.node.waiting.bytes > ROWS * ROW_BYTES);
        unblock(&d, pool);
        EXPECT_EQ(hear_rows(&d, fd, 200), ROWS);
    }
    (void)close(fd);
    door_stage_close(&d);
}

TEST(long_answers_keep_their_place)
{
    struct door_stage d;
    struct blocker pool[ASIDES_MAX];
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    door_post(&d, fd, "/v3/pipeline",
              "{\"requests\":[{\"type\":\"get_autocommit\"}," EXECUTE
              ",{\"type\":\"get_autocommit\"},{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT 2\"}"
              "},{\"type\":\"close\"}]}");
    block(&d, pool);
    answer_long(&d, "SELECT 1");
    EXPECT(door_is_quiet(&d)); /* what is behind it waits */
    unblock(&d, pool);
    answer_long(&d, "SELECT 2");
    char *a = door_answer(&d, fd, 200);
    const char *first = strstr(a, "get_autocommit"), *rows = strstr(a, "xxx"),
               *second = rows == NULL ? NULL : strstr(rows, "get_autocommit"),
               *end = second == NULL ? NULL : strstr(second, "\"close\"}}],\"baton\":null");
    EXPECT(first != NULL && first < rows && second != NULL && end != NULL);
    free(a);
    (void)close(fd);
    door_stage_close(&d);
}

TEST(long_answer_that_does_not_fit_is_an_error_in_its_place)
{
    struct door_stage d;
    struct blocker pool[ASIDES_MAX];
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    d.config.http_answer_bytes = ROWS * (ROW_BYTES + 20); /* in frames it fits */
    door_post(&d, fd, "/v2/pipeline", PIPELINE);
    block(&d, pool);
    answer_long(&d, "SELECT 1");
    expect_silence(&d, fd);
    unblock(&d, pool);
    char *a = door_answer(&d, fd, 200);

    EXPECT(strstr(a, "\"type\":\"error\"") != NULL && strstr(a, "(http-answer-bytes)") != NULL &&
           strstr(a, "xxx") == NULL && strstr(a, "\"type\":\"close\"") != NULL);
    free(a);
    (void)close(fd);
    door_stage_close(&d);
}

/* At each place: while it waits for a thread, while a thread has it, when it comes back. */
TEST(long_answer_of_a_client_that_goes_leaves_nothing)
{
    static const char *const paths[] = {"/v2/pipeline", "/v1/execute"};
    static const char *const bodies[] = {PIPELINE, "{\"stmt\":{\"sql\":\"SELECT 1\"}}"};
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    for (unsigned i = 0; i < 12; i++) {
        struct blocker pool[ASIDES_MAX];
        int fd = client_dial(&d.http);
        door_post(&d, fd, paths[i % 2], bodies[i % 2]);
        block(&d, pool);
        answer_long(&d, "SELECT 1");
        if (i % 3 == 0)
            go_away(&d, fd);
        for (unsigned k = 0; k < ASIDES_MAX; k++)
            uv_sem_post(&pool[k].go);
        if (i % 3 == 1)
            stage_until(&d.http, &pool[0].over); /* it has a thread */
        if (i % 3 != 0)
            go_away(&d, fd);
        for (unsigned k = 0; k < ASIDES_MAX; k++) {
            stage_until(&d.http, &pool[k].over);
            uv_sem_destroy(&pool[k].go);
        }
        EXPECT(door_is_quiet(&d) && list_empty(&d.node.sessions));
    }
    door_stage_close(&d);
}

TEST(long_answer_of_a_node_that_stops)
{
    for (int patient = 0; patient < 2; patient++) {
        struct door_stage d;
        struct blocker pool[ASIDES_MAX];
        door_stage_open(&d);
        thread_expect_loop();
        int fd = client_dial(&d.http);
        door_post(&d, fd, "/v2/pipeline", PIPELINE);
        block(&d, pool);
        answer_long(&d, "SELECT 1");
        http_listener_refuse(d.http.listener);
        EXPECT(!http_listener_is_quiet(d.http.listener));
        if (!patient) {
            http_listener_close(d.http.listener);
            d.http.listener = NULL;
        }
        unblock(&d, pool);
        if (patient)
            EXPECT_EQ(hear_rows(&d, fd, 200), ROWS);
        EXPECT(client_is_ended(&d.http, fd));
        (void)close(fd);
        door_stage_close(&d);
    }
}

/* --- requests --- */

TEST(long_request_is_read_beside_the_loop)
{
    struct door_stage d;
    struct blocker pool[ASIDES_MAX];
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    char *good = long_body("{\"type\":\"close\"}"), *bad = long_body("{\"type\":\"open\"}");
    block(&d, pool);
    door_post(&d, fd, "/v2/pipeline", good);
    EXPECT(door_is_quiet(&d));
    expect_served(&d);
    unblock(&d, pool);
    asked_done(door_asked(&d, "SELECT 1"), 0, false);
    free(door_answer(&d, fd, 200));
    block(&d, pool);
    door_post(&d, fd, "/v2/pipeline", bad);
    expect_silence(&d, fd);
    unblock(&d, pool);
    char *a = door_answer(&d, fd, 400);
    EXPECT(strstr(a, "requests[1].type: ") != NULL && door_is_quiet(&d));
    free(a);
    block(&d, pool);
    door_post(&d, fd, "/v2/pipeline", good);
    go_away(&d, fd);
    unblock(&d, pool);
    EXPECT(door_is_quiet(&d));
    free(good);
    free(bad);
    door_stage_close(&d);
}

/* What is answered at once is not run all at once. */
TEST(pipeline_of_many_requests_leaves_the_others_their_turn)
{
    enum { MANY = 7900 };
    static const char one[] = "\x12\x06\x12\x04\x0a\x02\x10\x01"; /* a text that is not stored */
    struct door_stage d;
    struct buf b;
    door_stage_open(&d);
    thread_expect_loop();
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, "POST /v3-protobuf/pipeline HTTP/1.1\r\nHost: h\r\nContent-Length: %u\r\n\r\n",
               MANY * 8);
    for (int i = 0; i < MANY; i++)
        buf_put(&b, one, 8);
    int fd = client_dial(&d.http);
    for (int i = 0; i < 2; i++) {
        client_say(&d.http, fd, b.data, b.len, 0);
        EXPECT(is_silent(fd));
        if (i > 0)
            break; /* and goes away midway */
        expect_served(&d);
        EXPECT(hear_rows(&d, fd, 200) == 0);
    }
    go_away(&d, fd);
    buf_fini(&b);
    door_stage_close(&d);
}

/* --- WebSockets --- */

static char *text_of(size_t n)
{
    char *text = mem_alloc(n + 1);
    memset(text, 'y', n);
    text[n] = 0;
    return text;
}

/* A request of stream 1 that is longer than ASIDE_MIN; END "" breaks it. */
static void frame_long(struct buf *b, int id, const char *end)
{
    char *text = text_of(100000);
    char *m =
        mem_printf("{\"type\":\"request\",\"request_id\":%d,\"request\":{\"type\":\"execute\","
                   "\"stream_id\":1,\"stmt\":{\"sql\":\"SELECT 1\",\"args\":[{\"type\":"
                   "\"text\",\"value\":\"%s\"}]}}%s",
                   id, text, end);
    door_frame(b, m);
    free(m);
    free(text);
}

static void frame_short(struct buf *b, int id, const char *type, int stream)
{
    char *m = mem_printf("{\"type\":\"request\",\"request_id\":%d,\"request\":{\"type\":\"%s\","
                         "\"stream_id\":%d}}",
                         id, type, stream);
    door_frame(b, m);
    free(m);
}

/* A socket with stream 1, on which B is said, which is emptied. */
static int socket_that_says(struct door_stage *d, struct buf *b)
{
    struct buf open;
    int fd = door_socket(d, "hrana3");
    buf_init(&open, SIZE_MAX);
    frame_short(&open, 1, "open_stream", 1);
    client_say(&d->http, fd, open.data, open.len, 0);
    free(door_hear(d, fd, "\"request_id\":1,"));
    client_say(&d->http, fd, b->data, b->len, 0);
    for (int i = 0; i < 5; i++)
        stage_turn(&d->http); /* all of it came */
    buf_fini(&open);
    buf_fini(b);
    buf_init(b, SIZE_MAX);
    return fd;
}

TEST(long_message_keeps_its_place)
{
    struct door_stage d;
    struct blocker pool[ASIDES_MAX];
    struct buf b;
    door_stage_open(&d);
    thread_expect_loop();
    buf_init(&b, SIZE_MAX);
    block(&d, pool);
    frame_long(&b, 2, "}");
    frame_short(&b, 3, "open_stream", 2); /* these come with it */
    frame_short(&b, 4, "get_autocommit", 1);
    int fd = socket_that_says(&d, &b);
    frame_short(&b, 5, "open_stream", 3);
    client_say(&d.http, fd, b.data, b.len, 0);
    buf_fini(&b);
    expect_silence(&d, fd);
    EXPECT(door_is_quiet(&d));
    expect_served(&d);
    EXPECT(d.node.waiting.bytes > 100000);
    unblock(&d, pool);
    char *a = door_hear(&d, fd, "\"request_id\":5,");
    EXPECT(strstr(a, "\"request_id\":3,") != NULL && strstr(a, "\"request_id\":4,") == NULL);
    free(a);
    block(&d, pool);
    answer_long(&d, "SELECT 1");
    expect_silence(&d, fd);
    expect_served(&d);
    unblock(&d, pool);
    size_t n, run = 0;
    a = client_hear(&d.http, fd, "\"request_id\":4,", &n);
    EXPECT_EQ(rows_in(a, n, &run), ROWS);
    free(a);
    (void)close(fd);
    door_stage_close(&d);
}

TEST(long_message_that_is_broken_is_the_last)
{
    struct door_stage d;
    struct buf b;
    door_stage_open(&d);
    thread_expect_loop();
    buf_init(&b, SIZE_MAX);
    frame_long(&b, 2, "");
    frame_short(&b, 3, "get_autocommit", 1);
    int fd = socket_that_says(&d, &b);
    free(door_hear(&d, fd, "\x03\xefnot JSON: ")); /* 1007 */
    EXPECT(door_is_quiet(&d));
    (void)close(fd);
    buf_fini(&b);
    door_stage_close(&d);
}

/* A long message, 0; a long answer, 1: the client goes, or the node stops. */
TEST(long_message_or_answer_of_a_websocket_that_ends)
{
    for (unsigned i = 0; i < 12; i++) {
        struct door_stage d;
        struct blocker pool[ASIDES_MAX];
        struct buf b;
        bool stops = i % 3 == 0, answers = i % 2 == 1;
        door_stage_open(&d);
        thread_expect_loop();
        buf_init(&b, SIZE_MAX);
        if (!answers)
            block(&d, pool);
        frame_long(&b, 2, "}");
        frame_short(&b, 3, "get_autocommit", 1);
        int fd = socket_that_says(&d, &b);
        if (answers) {
            (void)door_asked(&d, "SELECT 1");
            block(&d, pool);
            answer_long(&d, "SELECT 1");
        }
        if (stops)
            http_listener_refuse(d.http.listener);
        else if (i % 3 == 1)
            go_away(&d, fd);
        unblock(&d, pool);
        if (stops && !answers)
            answer_long(&d, "SELECT 1");
        if (stops) {
            char *a = door_hear(&d, fd, "\x03\xe9this node stops"); /* 1001 */
            free(a);
        }
        if (i % 3 != 1)
            go_away(&d, fd);
        buf_fini(&b);
        door_stage_close(&d);
    }
}

/* --- stored texts, which stand in very many steps --- */

#define STORED_BYTES 300000u

/* A socket with stream 1, and the text 1: SQL, and a comment of STORED_BYTES. */
static int socket_with_text(struct door_stage *d, const char *sql)
{
    struct buf b;
    char *text = text_of(STORED_BYTES);
    char *m = mem_printf("{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":"
                         "\"store_sql\",\"sql_id\":1,\"sql\":\"%s/*%s*/\"}}",
                         sql, text);
    buf_init(&b, SIZE_MAX);
    door_frame(&b, m);
    int fd = socket_that_says(d, &b);
    free(door_hear(d, fd, "\"request_id\":2,"));
    buf_fini(&b);
    free(m);
    free(text);
    return fd;
}

/* A batch of BEGIN, N times text 1, COMMIT, each if the one before it was done; or of the N. */
static void frame_batch(struct buf *b, unsigned n, bool atomic)
{
    struct buf m;
    buf_init(&m, SIZE_MAX);
    buf_printf(&m, "{\"type\":\"request\",\"request_id\":3,\"request\":{\"type\":\"batch\","
                   "\"stream_id\":1,\"batch\":{\"steps\":[");
    if (atomic)
        buf_printf(&m, "{\"stmt\":{\"sql\":\"BEGIN\"}}");
    for (unsigned i = 0; i < n; i++) {
        buf_printf(&m, "%s{\"stmt\":{\"sql_id\":1}", i > 0 || atomic ? "," : "");
        if (atomic)
            buf_printf(&m, ",\"condition\":{\"type\":\"ok\",\"step\":%u}", i);
        buf_printf(&m, "}");
    }
    if (atomic)
        buf_printf(
            &m, ",{\"stmt\":{\"sql\":\"COMMIT\"},\"condition\":{\"type\":\"ok\",\"step\":%u}}", n);
    buf_printf(&m, "]}}}");
    buf_put_u8(&m, 0);
    door_frame(b, (const char *)m.data);
    buf_fini(&m);
}

/* What is wrong with each step is known at once, but not for nothing: 100 ms in all. */
TEST(batch_of_very_many_steps_leaves_the_others_their_turn)
{
    struct door_stage d;
    struct buf b;
    door_stage_open(&d);
    thread_expect_loop();
    buf_init(&b, SIZE_MAX);
    for (int goes = 0; goes < 2; goes++) {
        int fd = socket_with_text(&d, "");
        frame_batch(&b, 1000, false);
        client_say(&d.http, fd, b.data, b.len, 0);
        stage_turn(&d.http);
        EXPECT(is_silent(fd));
        expect_served(&d);
        EXPECT(is_silent(fd));
        if (!goes)
            free(door_hear(&d, fd, "\"request_id\":3,"));
        go_away(&d, fd);
        buf_reset(&b);
    }
    buf_fini(&b);
    door_stage_close(&d);
}

/* Nobody looks whether it could be run at once: that alone would take long. */
TEST(batch_of_texts_that_no_body_has_room_for_is_run_step_by_step)
{
    struct door_stage d;
    struct buf b;
    door_stage_open(&d);
    thread_expect_loop();
    for (unsigned n = 3; n <= 4; n++) { /* of a MiB: these have room, those have not */
        buf_init(&b, SIZE_MAX);
        int fd = socket_with_text(&d, "INSERT INTO t VALUES (1) ");
        frame_batch(&b, n, true);
        client_say(&d.http, fd, b.data, b.len, 0);
        stage_turn(&d.http);
        struct request *r = asked(&d.node, 0);
        EXPECT(r != NULL && r->is_batch == (n == 3));
        go_away(&d, fd);
        buf_fini(&b);
    }
    door_stage_close(&d);
}
