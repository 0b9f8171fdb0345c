/* Room: tests. Batches in the writer lane: several statements, all or none. */
#include "base/file.h"
#include "tests/lib/test.h"
#include "tests/unit/node/stage.h"

#include <stdlib.h>
#include <string.h>

#define COUNT "SELECT count(*) FROM t"
#define N(a)  ((unsigned)(sizeof(a) / sizeof *(a)))

static void open_leading(struct stage *s)
{
    EXPECT_OK(file_make_dirs(test_dir()));
    stage_open(s, test_dir());
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    stage_lead(s, 2);
    stage_expect(s, 1, ERR_OK, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE)");
}

static struct request *answer(struct stage *s, uint32_t id) ON_LOOP
{
    struct request *r;
    for (int i = 0; i < 2000; i++) {
        if ((r = stage_take(s, id)) != NULL)
            return r;
        stage_step(s, 10);
    }
    test_fail(__FILE__, __LINE__, "no answer to request %u", id);
}

/* Its answer; request_free it. */
static struct request *batch(struct stage *s, uint64_t session, const char *const *sql,
                             unsigned n) ON_LOOP
{
    static uint32_t id = 3000000;
    struct request *r = stage_make(session, ++id, WIRE_BATCH, 0, NULL, sql, n);
    r->last_insert_rowid = 1000;
    stage_send_request(s, r);
    return answer(s, id);
}

static void expect_batch(struct stage *s, uint64_t session, enum err code, uint32_t statement,
                         const char *const *sql, unsigned n) ON_LOOP
{
    struct request *r = batch(s, session, sql, n);
    if (r->answer.code != code)
        test_fail(__FILE__, __LINE__, "%s: wanted %s, got %s (%s)", sql[0], err_name((int)code),
                  err_name((int)r->answer.code),
                  r->answer.message == NULL ? "" : r->answer.message);
    if (code != ERR_OK) {
        EXPECT_EQ(r->answer.statement, statement);
        EXPECT_EQ(r->answer.out.len, 0);
    }
    request_free(r);
}

/* The kinds of the answer's frames, one letter each, and its STEPs. */
static const char *frames(const struct request *r, struct wire_step *steps)
{
    static char kinds[100];
    size_t n = 0, n_steps = 0, used;
    for (size_t at = 0; at < r->answer.out.len && n + 1 < sizeof kinds; at += used) {
        struct wire_frame f;
        EXPECT_OK(wire_next(r->answer.out.data + at, r->answer.out.len - at, 100000, &f, &used));
        EXPECT(used > 0 && f.id.request == r->id.request);
        kinds[n++] = f.type == WIRE_COLUMNS ? 'C'
                     : f.type == WIRE_ROWS  ? 'R'
                     : f.type == WIRE_STEP  ? 'S'
                                            : '?';
        if (f.type == WIRE_STEP)
            EXPECT_OK(wire_get_step(&f, &steps[n_steps++]));
    }
    kinds[n] = 0;
    return kinds;
}

TEST(batch_answers_each_statement)
{
    struct stage s;
    struct wire_step steps[8];
    open_leading(&s);
    thread_expect_loop();
    static const char *const sql[] = {
        "SELECT last_insert_rowid()", /* the session's */
        "INSERT INTO t(v) VALUES ('a'), ('b'), ('c')",
        "INSERT INTO t(v) VALUES ('r' || last_insert_rowid()) RETURNING v",
        " -- nothing",
        "UPDATE t SET v = v || '!' WHERE id > 2",
    };
    struct request *r = batch(&s, 1, sql, N(sql));
    EXPECT_OK(r->answer.code);
    EXPECT(strcmp(frames(r, steps), "CRSSCRSSS") == 0);
    static const struct wire_step want[] = {{0, 1000}, {3, 3}, {1, 4}, {0, 4}, {2, 4}};
    for (unsigned i = 0; i < N(want); i++) {
        EXPECT_EQ(steps[i].changes, want[i].changes);
        EXPECT_EQ(steps[i].last_insert_rowid, want[i].last_insert_rowid);
    }
    EXPECT_EQ(r->answer.changes, 6);
    EXPECT_EQ(r->answer.last_insert_rowid, 4);
    EXPECT_EQ(r->last_insert_rowid, 1000); /* as it came: it may be run again elsewhere */
    request_free(r);
    EXPECT_EQ(stage_number(&s, "SELECT v = 'r3!' FROM t WHERE id = 4"), 1);
    EXPECT_EQ(s.n_proposals, 2); /* CREATE, and this */
    stage_close(&s);
}

TEST(batch_an_error_takes_all_of_it_back)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    static const char *const sql[] = {"INSERT INTO t(v) VALUES ('a') RETURNING v",
                                      "CREATE TABLE u(a)", "INSERT INTO u VALUES (1)",
                                      "INSERT INTO t(v) VALUES ('a')", "DELETE FROM t"};
    expect_batch(&s, 1, ERR_SQL, 3, sql, N(sql));
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM sqlite_schema WHERE type = 'table'"), 1);
    static const char *const ends[] = {"INSERT INTO t(v) VALUES ('b')",
                                       "INSERT OR ROLLBACK INTO t(v) VALUES ('b')"};
    expect_batch(&s, 1, ERR_SQL, 1, ends, N(ends));
    static const char *const text[] = {"INSERT INTO t(v) VALUES ('c')", "SELECT 1; SELECT 2"};
    expect_batch(&s, 1, ERR_MISUSE, 1, text, N(text));
    static const char *const wrong[] = {"INSERT INTO t(v) VALUES ('d')", "NONSENSE"};
    expect_batch(&s, 1, ERR_SQL, 1, wrong, N(wrong));
    EXPECT_EQ(stage_number(&s, COUNT), 0);
    stage_close(&s);
}

/* Its neighbours of the same transaction are not touched. */
TEST(batch_shares_an_entry_with_others)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    static const char *const good[] = {"INSERT INTO t(v) VALUES ('a')",
                                       "INSERT INTO t(v) VALUES ('b')"};
    static const char *const bad[] = {"INSERT INTO t(v) VALUES ('c')",
                                      "INSERT INTO t(v) VALUES ('a')"};
    s.config.flights_max = 1;
    s.delay_ms = 50;
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES ('first')");
    stage_step(&s, 10);
    stage_send_request(&s, stage_make(2, 2, WIRE_BATCH, 0, NULL, good, N(good)));
    stage_send_request(&s, stage_make(3, 3, WIRE_BATCH, 0, NULL, bad, N(bad)));
    stage_send(&s, 4, 4, "INSERT INTO t(v) VALUES ('d')");
    for (uint32_t i = 1; i <= 4; i++) {
        struct request *r = answer(&s, i);
        EXPECT_EQ(r->answer.code, i == 3 ? ERR_SQL : ERR_OK);
        request_free(r);
    }
    EXPECT_EQ(stage_number(&s, COUNT), 4);
    EXPECT(s.n_proposals <= 4);
    stage_close(&s);
}

TEST(batch_has_no_transactions_inside)
{
    static const char *const forbidden[] = {
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE request",
        "END",
        "RELEASE batch",
        "VACUUM",
        "ROLLBACK TO request",
        "ROLLBACK TO batch",
        "\xef\xbb\xbf COMMIT",
    };
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    for (unsigned round = 0; round < 2; round++) {
        uint64_t session = 10 + round;
        if (round == 1) { /* and inside a transaction, whose connection knows these texts */
            stage_expect(&s, session, ERR_OK, "BEGIN");
            stage_expect(&s, session, ERR_OK, "SAVEPOINT batch");
            stage_expect(&s, session, ERR_OK, "ROLLBACK TO batch");
            stage_expect(&s, session, ERR_OK, "RELEASE batch");
            stage_expect(&s, session, ERR_OK, "COMMIT");
            stage_expect(&s, session, ERR_OK, "BEGIN");
            stage_expect(&s, session, ERR_OK, "INSERT INTO t(v) VALUES ('before')");
        }
        for (unsigned i = 0; i < N(forbidden); i++) {
            const char *const sql[] = {"INSERT INTO t(v) VALUES ('a')", forbidden[i],
                                       "INSERT INTO t(v) VALUES ('b')"};
            expect_batch(&s, session, ERR_FORBIDDEN, 1, sql, N(sql));
            const char *const first[] = {forbidden[i]};
            expect_batch(&s, session, ERR_FORBIDDEN, 0, first, 1);
        }
        EXPECT_EQ(stage_number(&s, COUNT), 0);
    }
    stage_expect(&s, 11, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, COUNT), 1);
    stage_close(&s);
}

TEST(batch_inside_a_transaction_undoes_itself)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    static const char *const good[] = {"INSERT INTO t(v) VALUES ('a')",
                                       "INSERT INTO t(v) VALUES ('b')"};
    static const char *const bad[] = {"INSERT INTO t(v) VALUES ('c')",
                                      "INSERT INTO t(v) VALUES ('a')"};
    stage_expect(&s, 1, ERR_OK, "BEGIN");
    struct request *r = batch(&s, 1, good, N(good));
    EXPECT(r->answer.code == ERR_OK && r->answer.in_transaction && r->answer.changes == 2);
    request_free(r);
    r = batch(&s, 1, bad, N(bad));
    EXPECT(r->answer.code == ERR_SQL && r->answer.in_transaction && r->answer.statement == 1);
    request_free(r);
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, COUNT), 2);
    /* One that ends the transaction: all of it is gone. */
    static const char *const ends[] = {"INSERT INTO t(v) VALUES ('c')",
                                       "INSERT OR ROLLBACK INTO t(v) VALUES ('a')"};
    stage_expect(&s, 1, ERR_OK, "BEGIN");
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES ('d')");
    r = batch(&s, 1, ends, N(ends));
    EXPECT(r->answer.code == ERR_SQL && !r->answer.in_transaction && r->answer.statement == 1);
    request_free(r);
    EXPECT_EQ(stage_number(&s, COUNT), 2);
    /* Another one writes: it waits with all it has, and is run as a whole. */
    stage_expect(&s, 1, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 2, ERR_OK, "BEGIN");
    static const char *const more[] = {"SELECT 1", "INSERT INTO t(v) VALUES ('e')",
                                       "INSERT INTO t(v) VALUES ('f')"};
    stage_send_request(&s, stage_make(2, 1, WIRE_BATCH, 0, NULL, more, N(more)));
    for (int i = 0; i < 10; i++)
        stage_step(&s, 5);
    EXPECT_EQ(s.n_answers, 0);
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    r = answer(&s, 1);
    EXPECT_OK(r->answer.code);
    request_free(r);
    stage_expect(&s, 2, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, COUNT), 4);
    stage_close(&s);
}

TEST(batch_deferred_keys_are_judged_at_its_end)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    stage_expect(&s, 1, ERR_OK, "CREATE TABLE c(a REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)");
    static const char *const good[] = {"INSERT INTO c VALUES (5)", "INSERT INTO t(id) VALUES (5)"};
    static const char *const bad[] = {"INSERT INTO c VALUES (6)", "SELECT 1"};
    expect_batch(&s, 1, ERR_OK, 0, good, N(good));
    expect_batch(&s, 1, ERR_SQL, 1, bad, N(bad));
    EXPECT_EQ(stage_number(&s, "SELECT count(*) FROM c"), 1);
    stage_close(&s);
}

TEST(batch_is_numbered_as_one)
{
    struct stage s;
    struct wire_step a[8], b[8];
    open_leading(&s);
    thread_expect_loop();
    static const char *const sql[] = {"INSERT INTO t(v) VALUES ('a')",
                                      "INSERT INTO t(v) VALUES ('b') RETURNING id"};
    struct wire_number n = {.number = 1, .since = 1};
    stage_send_request(&s, stage_make(1, 1, WIRE_BATCH, WIRE_NUMBERED, &n, sql, N(sql)));
    struct request *first = answer(&s, 1);
    EXPECT_OK(first->answer.code);
    stage_restart(&s);
    stage_lead(&s, 3);
    stage_send_request(&s,
                       stage_make(1, 2, WIRE_BATCH, WIRE_NUMBERED | WIRE_AGAIN, &n, sql, N(sql)));
    struct request *second = answer(&s, 2);
    EXPECT_OK(second->answer.code);
    EXPECT(strcmp(frames(first, a), "SCRS") == 0 && strcmp(frames(second, b), "SCRS") == 0);
    EXPECT(a[0].changes == b[0].changes && a[1].last_insert_rowid == b[1].last_insert_rowid);
    EXPECT(second->answer.changes == 2 && second->answer.last_insert_rowid == 2);
    request_free(first);
    request_free(second);
    EXPECT_EQ(stage_number(&s, COUNT), 2);
    /* One that fails is not noted: the second attempt may do. */
    n.number = 2;
    stage_send_request(&s, stage_make(1, 3, WIRE_BATCH, WIRE_NUMBERED, &n, sql, N(sql)));
    first = answer(&s, 3);
    EXPECT(first->answer.code == ERR_SQL && first->answer.statement == 0);
    request_free(first);
    stage_expect(&s, 5, ERR_OK, "DELETE FROM t");
    stage_send_request(&s,
                       stage_make(1, 4, WIRE_BATCH, WIRE_NUMBERED | WIRE_AGAIN, &n, sql, N(sql)));
    first = answer(&s, 4);
    EXPECT_OK(first->answer.code);
    request_free(first);
    stage_close(&s);
}

TEST(batch_answers_are_bounded)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.answer_bytes_max = 100000;
    static const char *const sql[] = {"INSERT INTO t(v) VALUES ('a')",
                                      "SELECT hex(zeroblob(30000))", "SELECT hex(zeroblob(30000))"};
    expect_batch(&s, 1, ERR_TOO_BIG, 2, sql, N(sql));
    EXPECT_EQ(stage_number(&s, COUNT), 0);
    stage_close(&s);
}

TEST(run_a_write_in_a_transaction_that_returns_too_much_is_done)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.answer_bytes_max = 100000;
    static const char many[] =
        "INSERT INTO t(v) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
        "WHERE i < 300) SELECT i || hex(zeroblob(500)) FROM c RETURNING v";
    stage_expect(&s, 1, ERR_TOO_BIG, many);
    EXPECT_EQ(stage_number(&s, COUNT), 0);
    stage_expect(&s, 1, ERR_OK, "BEGIN");
    stage_expect(&s, 1, ERR_ROWS_LOST, many);
    stage_expect(&s, 1, ERR_OK, "COMMIT");
    EXPECT_EQ(stage_number(&s, COUNT), 300);
    stage_close(&s);
}
