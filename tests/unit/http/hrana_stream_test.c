/* Room: tests. Streams over pipelines: what is asked of the session for a request, in which order,
 * and what the client hears when it went wrong. */
#include "base/mem.h"
#include "tests/lib/asked.h"
#include "tests/lib/test.h"
#include "tests/unit/http/door_stage.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXECUTE(sql) "{\"type\":\"execute\",\"stmt\":{\"sql\":\"" sql "\"}}"
#define CLOSE        "{\"type\":\"close\"}"

static void expect_in(const char *body, const char *wanted)
{
    if (strstr(body, wanted) == NULL)
        test_fail(__FILE__, __LINE__, "wanted %s in %s", wanted, body);
}

/* REQUESTS on the stream of *BATON, which may be NULL. */
static void post(struct door_stage *d, int fd, const char *baton, const char *requests)
{
    const char *quote = baton == NULL ? "" : "\"";
    char *body = mem_printf("{\"baton\":%s%s%s,\"requests\":[%s]}", quote,
                            baton == NULL ? "null" : baton, quote, requests);
    door_post(d, fd, "/v2/pipeline", body);
    free(body);
}

/* The answer, of which *BATON (freed) is the next. */
static char *hear(struct door_stage *d, int fd, char **baton)
{
    char *body = door_answer(d, fd, 200);
    free(*baton);
    *baton = door_find(body, "baton");
    return body;
}

static void begin_transaction(struct door_stage *d, int fd, char **baton)
{
    post(d, fd, *baton, EXECUTE("BEGIN"));
    thread_expect_loop();
    asked_done(door_asked(d, "BEGIN"), 0, true);
    free(hear(d, fd, baton));
}

/* A transaction that ends by an error that is not its statement's own: what the program sends
 * behind it is not run by itself, each its own transaction, before the program has ended it. */
TEST(transaction_ended_by_an_error)
{
    static const struct {
        enum err code;
        int32_t sqlite_code;
        bool is_lost;
    } how[] = {{ERR_TXN_LOST, 0, true},    {ERR_TIMEOUT, 9, true}, {ERR_CANCELLED, 9, true},
               {ERR_UNKNOWN, 0, true},     {ERR_IO, 0, true},      {ERR_STOPPED, 0, true},
               {ERR_SQL, 13, true},        {ERR_SQL, 10, true},    {ERR_NOMEM, 0, true},
               {ERR_SQL, 19 | 256, false}, {ERR_SQL, 19, false}};
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    for (size_t i = 0; i < sizeof how / sizeof how[0]; i++) {
        char *baton = NULL, *a;
        begin_transaction(&d, fd, &baton);
        post(&d, fd, baton, EXECUTE("INSERT 1") "," EXECUTE("INSERT 2"));
        asked_error(door_asked(&d, "INSERT 1"), how[i].code, how[i].sqlite_code, "why", false);
        if (!how[i].is_lost) /* ON CONFLICT ROLLBACK: as SQLite's users know it */
            asked_done(door_asked(&d, "INSERT 2"), 1, false);
        a = hear(&d, fd, &baton);
        expect_in(a, "why");
        EXPECT((strstr(a, "TRANSACTION_CLOSED\"") != NULL) == how[i].is_lost);
        free(a);
        post(&d, fd, baton, EXECUTE("ROLLBACK") "," EXECUTE("INSERT 3") "," CLOSE);
        if (!how[i].is_lost)
            asked_error(door_asked(&d, "ROLLBACK"), ERR_SQL, 1, "no transaction is active", false);
        asked_done(door_asked(&d, "INSERT 3"), 1, false);
        free(door_answer(&d, fd, 200));
        free(baton);
    }
    char *baton = NULL; /* "begin it again", says the node: that needs no ROLLBACK before */
    begin_transaction(&d, fd, &baton);
    post(&d, fd, baton, EXECUTE("INSERT 1") "," EXECUTE("BEGIN") "," EXECUTE("INSERT 2") "," CLOSE);
    asked_error(door_asked(&d, "INSERT 1"), ERR_TXN_LOST, 0, "why", false);
    asked_done(door_asked(&d, "BEGIN"), 0, true);
    EXPECT((door_asked(&d, "INSERT 2")->query.flags & WIRE_INSIDE) != 0);
    asked_done(door_asked(&d, "INSERT 2"), 1, true);
    free(door_answer(&d, fd, 200));
    free(baton);
    (void)close(fd);
    door_stage_close(&d);
}

/* What a request says of its reads wins; for one that says nothing the node's setting decides. */
TEST(reads_have_the_level_of_the_node_unless_the_request_says_its_own)
{
    static const struct {
        const char *setting, *path;
        enum wire_level level;
        uint32_t bound_ms;
    } how[] = {{"session", "/v2/pipeline", WIRE_SESSION, 0},
               {"strong", "/v2/pipeline", WIRE_STRONG, 0},
               {"bounded:70", "/v2/pipeline", WIRE_BOUNDED, 70},
               {"bounded:70", "/v2/pipeline?read=bounded:5", WIRE_BOUNDED, 5},
               {"bounded:70", "/v2/pipeline?read=strong", WIRE_STRONG, 0},
               {"strong", "/v2/pipeline?read=any", WIRE_ANY, 0}};
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    for (size_t i = 0; i < sizeof how / sizeof how[0]; i++) {
        char setting[32];
        (void)snprintf(setting, sizeof setting, "%s", how[i].setting);
        d.config.http_read = setting;
        door_post(&d, fd, how[i].path,
                  "{\"baton\":null,\"requests\":[" EXECUTE("SELECT 1") "," CLOSE "]}");
        struct request *r = door_asked(&d, "SELECT 1");
        EXPECT_EQ(r->query.level, how[i].level);
        EXPECT_EQ(r->query.bound_ms, how[i].bound_ms);
        asked_done(r, 0, false);
        free(door_answer(&d, fd, 200));
    }
    (void)close(fd);
    door_stage_close(&d);
}

/* --- batches --- */

#define STEP(sql) "{\"stmt\":{\"sql\":\"" sql "\",\"want_rows\":true}}"
#define STEP_IF(step, sql)                                                                         \
    ",{\"condition\":{\"type\":\"ok\",\"step\":" #step "},"                                        \
    "\"stmt\":{\"sql\":\"" sql "\",\"want_rows\":true}}"
#define ROLLBACK_IF_NOT(step)                                                                      \
    ",{\"condition\":{\"type\":\"not\",\"cond\":{\"type\":\"ok\",\"step\":" #step "}},"            \
    "\"stmt\":{\"sql\":\"ROLLBACK\"}}"
#define BATCH(steps) "{\"type\":\"batch\",\"batch\":{\"steps\":[" steps "]}}"

#define ATOMIC                                                                                     \
    BATCH(STEP("BEGIN IMMEDIATE") STEP_IF(0, "INSERT 1") STEP_IF(1, "INSERT 2")                    \
              STEP_IF(2, "COMMIT") ROLLBACK_IF_NOT(3))

/* Whatever is not the fault of its statements is told once, as the failure of BEGIN, and nothing is
 * asked again: it may be done, or is to be tried later. */
TEST(atomic_batch_that_fails_as_a_whole_is_not_run_again)
{
    static const struct {
        enum err code;
        const char *told;
    } how[] = {{ERR_UNKNOWN, "SQLITE_IOERR"},  {ERR_ROWS_LOST, "SQLITE_IOERR"},
               {ERR_EXPIRED, "SQLITE_IOERR"},  {ERR_CLOSED, "SQLITE_IOERR"},
               {ERR_STOPPED, "SQLITE_IOERR"},  {ERR_TIMEOUT, "SQLITE_BUSY"},
               {ERR_NO_LEADER, "SQLITE_BUSY"}, {ERR_BUSY, "SQLITE_BUSY"},
               {ERR_FULL, "SQLITE_FULL"},      {ERR_CANCELLED, "SQLITE_INTERRUPT"}};
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    for (size_t i = 0; i < sizeof how / sizeof how[0]; i++) {
        char *told = mem_printf("\"step_results\":[null,null,null,null,null],\"step_errors\":"
                                "[{\"message\":\"why\",\"code\":\"%s\"},null,null,null,null]",
                                how[i].told);
        post(&d, fd, NULL, ATOMIC "," CLOSE);
        struct request *r = door_asked(&d, "INSERT 1");
        EXPECT(r->is_batch && r->query.n_statements == 2 && request_is_numbered(r));
        asked_error(r, how[i].code, 0, "why", false);
        EXPECT(door_is_quiet(&d));
        char *a = door_answer(&d, fd, 200);
        expect_in(a, told);
        free(a);
        free(told);
    }
    (void)close(fd);
    door_stage_close(&d);
}

/* Its statements' own fault: nothing was done, and each step's error is told by running them. */
TEST(atomic_batch_with_a_wrong_statement_is_run_step_by_step)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    post(&d, fd, NULL, ATOMIC "," CLOSE);
    asked_error(door_asked(&d, "INSERT 1"), ERR_SQL, 19, "UNIQUE", false);
    asked_done(door_asked(&d, "BEGIN IMMEDIATE"), 0, true);
    struct request *r = door_asked(&d, "INSERT 1");
    EXPECT(!r->is_batch && !request_is_numbered(r)); /* its COMMIT would be */
    asked_done(r, 1, true);
    asked_error(door_asked(&d, "INSERT 2"), ERR_SQL, 19, "UNIQUE", true);
    asked_done(door_asked(&d, "ROLLBACK"), 0, false);
    char *a = door_answer(&d, fd, 200);
    expect_in(a, "[null,null,{\"message\":\"SQLite error: UNIQUE\",\"code\":\"SQLITE_CONSTRAINT\"},"
                 "null,null]");
    free(a);
    (void)close(fd);
    door_stage_close(&d);
}

/* A leader that says less, more, or something else than it was asked. */
TEST(atomic_batch_answered_by_a_broken_leader)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    for (int steps = 0; steps <= 5; steps++) {
        post(&d, fd, NULL, ATOMIC "," CLOSE);
        struct request *r = door_asked(&d, "INSERT 1");
        for (int i = 0; i < steps; i++)
            asked_step(r, 1);
        asked_done(r, 1, false);
        EXPECT(door_is_quiet(&d)); /* it is done: not again */
        char *a = door_answer(&d, fd, 200);
        expect_in(a, steps < 2 ? "is not complete" : "\"step_errors\":[null,null,null,null,null]");
        free(a);
    }
    (void)close(fd);
    door_stage_close(&d);
}

#define READ_BATCH(begin, sql, end)                                                                \
    BATCH(STEP(begin) STEP_IF(0, "SELECT 1") STEP_IF(1, sql) STEP_IF(2, "COMMIT") end)

/* A batch that seems to read is a read transaction here; that one of its statements writes after
 * all is seen when it runs, and the batch begins again at the writer. */
TEST(atomic_batch_that_only_seems_to_read)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    post(&d, fd, NULL, READ_BATCH("BEGIN", "PRAGMA user_version=1", ROLLBACK_IF_NOT(3)) "," CLOSE);
    asked_done(door_asked(&d, "BEGIN READONLY"), 0, true);
    struct request *r = door_asked(&d, "SELECT 1");
    asked_columns(r, 1);
    asked_rows(r, 1, 1000);
    asked_done(r, 0, true);
    asked_error(door_asked(&d, "PRAGMA user_version=1"), ERR_FORBIDDEN, 8, "readonly", true);
    asked_done(door_asked(&d, "ROLLBACK"), 0, false);
    r = door_asked(&d, "SELECT 1");
    EXPECT(r->is_batch);
    asked_columns(r, 1);
    asked_rows(r, 1, 3);
    asked_step(r, 0);
    asked_step(r, 0);
    asked_done(r, 0, false);
    char *a = door_answer(&d, fd, 200);
    expect_in(a, "\"rows\":[[{\"type\":\"text\",\"value\":\"xxx\"}]]");
    expect_in(a, "\"step_errors\":[null,null,null,null,null]");
    EXPECT(strstr(a, "xxxx") == NULL); /* what was told before is void */
    free(a);
    /* Asked for as one that only reads: the write is refused. */
    post(&d, fd, NULL, READ_BATCH("BEGIN READONLY", "PRAGMA user_version=1", "") "," CLOSE);
    asked_done(door_asked(&d, "BEGIN READONLY"), 0, true);
    asked_done(door_asked(&d, "SELECT 1"), 0, true);
    asked_error(door_asked(&d, "PRAGMA user_version=1"), ERR_FORBIDDEN, 8, "readonly", true);
    a = door_answer(&d, fd, 200);
    expect_in(a, "SQLITE_READONLY");
    free(a);
    /* What a failure would leave open is to be the transaction that was begun: it may write. */
    post(&d, fd, NULL, READ_BATCH("BEGIN", "SELECT 2", "") "," CLOSE);
    EXPECT(door_asked(&d, "SELECT 1")->is_batch);
    (void)close(fd);
    (void)door_is_quiet(&d);
    door_stage_close(&d);
}

/* --- memory --- */

/* Columns and texts of errors take as much room as rows, and a batch asks for 10,000 of them. */
TEST(batch_of_long_columns_or_errors_is_bounded)
{
    struct door_stage d;
    struct buf b;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    char *sentence = mem_alloc(30001);
    memset(sentence, 'e', 30000);
    sentence[30000] = 0;
    size_t before = d.node.waiting.bytes;
    for (int errors = 0; errors < 2; errors++) {
        buf_init(&b, SIZE_MAX);
        buf_printf(&b, "{\"type\":\"batch\",\"batch\":{\"steps\":[");
        int n = errors ? 50 : 1000;
        for (int i = 0; i < n; i++)
            buf_printf(&b, "%s" STEP("SELECT 1"), i == 0 ? "" : ",");
        buf_printf(&b, "]}}," CLOSE "%c", 0);
        post(&d, fd, NULL, (const char *)b.data);
        for (int i = 0; i < n; i++) {
            struct request *r = door_asked(&d, "SELECT 1");
            if (errors) {
                asked_error(r, ERR_SQL, 1, sentence, false);
            } else {
                asked_columns(r, 2000); /* 18,000 bytes */
                asked_done(r, 0, false);
            }
            EXPECT(d.node.waiting.bytes < before + MIB(5)); /* the answer: 1 MiB */
        }
        char *a = door_answer(&d, fd, 200);
        expect_in(a, errors ? "eee ..." : "RESPONSE_TOO_LARGE");
        free(a);
        buf_fini(&b);
    }
    free(sentence);
    (void)close(fd);
    door_stage_close(&d);
}

/* SQLITE_BUSY means that it may be sent again: what was done may not. */
TEST(batch_whose_rows_have_no_room_is_one_error)
{
    struct door_stage d;
    size_t taken = 0;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    for (int writes = 0; writes < 2; writes++) {
        const char *last = writes ? "DELETE FROM t" : "SELECT 2";
        char *m = mem_printf("{\"type\":\"batch\",\"batch\":{\"steps\":[" STEP("SELECT 1") "," STEP(
                                 "%s") "]}}," CLOSE,
                             last);
        post(&d, fd, NULL, m);
        struct request *r = door_asked(&d, "SELECT 1");
        waiting_set(&d.node.waiting, &taken, d.node.waiting.last);
        asked_columns(r, 1);
        waiting_set(&d.node.waiting, &taken, 0);
        asked_done(r, 0, false);
        asked_done(door_asked(&d, last), 1, false);
        char *a = door_answer(&d, fd, 200);
        expect_in(a, writes ? "{\"type\":\"error\",\"error\":{\"message\":\"it was done, but "
                            : "{\"type\":\"error\",\"error\":{\"message\":\"this node has no");
        expect_in(a, writes ? "\"code\":\"RESPONSE_TOO_LARGE\"" : "\"code\":\"SQLITE_BUSY\"");
        free(a);
        free(m);
    }
    (void)close(fd);
    door_stage_close(&d);
}

/* Its client hears no baton, so nobody could end the transaction that it began. */
TEST(pipeline_whose_answer_does_not_fit_keeps_no_stream)
{
    struct door_stage d;
    struct buf b;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = client_dial(&d.http);
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, EXECUTE("BEGIN"));
    d.config.http_answer_bytes = 20000;
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, ",{\"type\":\"close_sql\",\"sql_id\":1}");
    buf_put_u8(&b, 0);
    post(&d, fd, NULL, (const char *)b.data);
    asked_done(door_asked(&d, "BEGIN"), 0, true);
    char *a = door_answer(&d, fd, 500);
    expect_in(a, "RESPONSE_TOO_LARGE");
    free(a);
    EXPECT(list_empty(&d.node.sessions));
    buf_fini(&b);
    (void)close(fd);
    door_stage_close(&d);
}
