/* Room: tests. client/connection against nodes that die, lie and stay silent. */
#include "client/connection.h"

#include "base/clock.h"
#include "client/dial.h"
#include "client/statement_kind.h"
#include "tests/lib/test.h"
#include "tests/unit/client/shell_server.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An answer as text: "a|b;c|d;". */
struct answer {
    char text[4096];
    uint64_t rows;
    uint32_t columns;
    enum err refuse; /* what the row handler says */
};

static enum err on_columns(void *arg, const struct conn_column *columns, uint32_t n)
{
    struct answer *a = arg;
    EXPECT(columns[0].name_len > 0);
    a->columns = n;
    return ERR_OK;
}

static enum err on_row(void *arg, const struct wire_value *v, uint32_t n)
{
    struct answer *a = arg;
    size_t at = strlen(a->text), room = sizeof a->text;
    EXPECT_EQ(n, a->columns);
    a->rows++;
    for (uint32_t i = 0; i < n && at < room - 100; i++) {
        if (v[i].type == WIRE_INTEGER)
            (void)snprintf(a->text + at, room - at, "%lld", (long long)v[i].integer);
        else if (v[i].type == WIRE_FLOAT)
            (void)snprintf(a->text + at, room - at, "%g", v[i].real);
        else if (v[i].type != WIRE_NULL)
            (void)snprintf(a->text + at, room - at, "%.*s", (int)v[i].text.len, v[i].text.bytes);
        at = strlen(a->text);
        (void)snprintf(a->text + at, room - at, "%s", i + 1 < n ? "|" : ";");
        at = strlen(a->text);
    }
    return a->refuse == ERR_OK ? ERR_OK : err_fail(a->refuse, "the reader has enough");
}

static struct answer answer;
static const struct conn_handler handler = {on_columns, on_row, &answer};

static struct conn *open_conn(const char *addresses)
{
    struct conn_options o = {.addresses = addresses, .client = "test", .silence_ms = 20000};
    struct conn *c;
    EXPECT_OK(conn_open(&o, &c));
    return c;
}

static enum err run(struct conn *c, const char *sql)
{
    struct conn_query q = {.sql = sql, .sql_len = strlen(sql), .level = WIRE_SESSION};
    answer = (struct answer){0};
    return conn_query(c, &q, &handler, NULL);
}

static const char *both(const struct server *a, const struct server *b)
{
    static char text[80];
    (void)snprintf(text, sizeof text, "%s,%s", server_address(a), server_address(b));
    return text;
}

/* Two nodes on one file; the first has FAULTS. */
static void start_two(struct server_faults faults, struct server **a, struct server **b)
{
    struct server_options o = {.database = test_path("main.db"), .node_id = 1, .cluster_id = 5};
    o.faults = faults;
    *a = server_start(&o);
    o.node_id = 2;
    o.faults = (struct server_faults){0};
    *b = server_start(&o);
}

TEST(conn_runs_statements_and_follows_the_sequence)
{
    struct server *s = server_start(&(struct server_options){.node_id = 3, .cluster_id = 5});
    struct conn *c = open_conn(server_address(s));
    EXPECT_EQ(conn_node(c), 3);
    EXPECT(strcmp(conn_server_version(c), "0.1-test") == 0);
    EXPECT_OK(run(c, "CREATE TABLE t(a, b)"));
    struct conn_param params[] = {
        {.value = {.type = WIRE_INTEGER, .integer = 7}},
        {.name = ":b", .value = {.type = WIRE_TEXT, .text = {"seven", 5}}}};
    struct conn_query q = {.sql = "INSERT INTO t VALUES (?1, :b), (8, NULL)",
                           .sql_len = 40,
                           .params = params,
                           .n_params = 2};
    struct wire_done done;
    EXPECT_OK(conn_query(c, &q, NULL, &done));
    EXPECT(done.changes == 2 && done.last_insert_rowid == 2 && done.seq == 2);
    EXPECT_EQ(conn_seq(c), 2);
    EXPECT_OK(run(c, "SELECT a, b, 0.5 FROM t ORDER BY a"));
    EXPECT(strcmp(answer.text, "7|seven|0.5;8||0.5;") == 0);
    EXPECT_EQ(server_min_seq(s), 2);
    EXPECT_OK(run(c, "SELECT a FROM t WHERE a = 0"));
    EXPECT(answer.columns == 1 && answer.rows == 0);
    EXPECT_OK(conn_status(c, &handler));
    EXPECT(answer.rows == 2 && answer.columns == 7);
    conn_close(c);
    server_stop(s);
}

TEST(conn_tells_errors_with_all_they_carry)
{
    struct server *s = server_start(&(struct server_options){0});
    struct conn *c = open_conn(server_address(s));
    EXPECT_ERR(ERR_SQL, run(c, "SELECT x FROM nowhere"));
    EXPECT(strcmp(conn_error(c)->message, "no such table: nowhere") == 0);
    EXPECT_EQ(conn_error(c)->sqlite_code, 1);
    EXPECT_OK(run(c, "CREATE TABLE t(a UNIQUE)"));
    EXPECT_OK(run(c, "BEGIN"));
    EXPECT(conn_in_transaction(c));
    EXPECT_OK(run(c, "INSERT INTO t VALUES (1)"));
    EXPECT_ERR(ERR_SQL, run(c, "INSERT INTO t VALUES (1)"));
    EXPECT_EQ(conn_error(c)->sqlite_code, 2067);
    EXPECT(conn_in_transaction(c));
    EXPECT_ERR(ERR_SQL, run(c, "SELECT a, x FROM t"));
    EXPECT_EQ(conn_error(c)->offset, 10);
    EXPECT_OK(run(c, "ROLLBACK"));
    EXPECT(!conn_in_transaction(c));
    conn_close(c);
    server_stop(s);
}

TEST(conn_streams_a_large_answer)
{
    struct server *s = server_start(&(struct server_options){0});
    struct conn *c = open_conn(server_address(s));
    EXPECT_OK(run(c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) "
                     "SELECT i, hex(i) FROM n"));
    EXPECT_EQ(answer.rows, 200000);
    EXPECT_OK(run(c, "SELECT zeroblob(30000000)"));
    EXPECT_EQ(answer.rows, 1);
    conn_close(c);
    server_stop(s);
}

TEST(conn_handler_ends_an_answer_early_and_the_connection_goes_on)
{
    struct server *s = server_start(&(struct server_options){0});
    struct conn *c = open_conn(server_address(s));
    static const char endless[] =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    struct conn_query q = {.sql = endless, .sql_len = strlen(endless)};
    answer = (struct answer){.refuse = ERR_FULL};
    EXPECT_ERR(ERR_FULL, conn_query(c, &q, &handler, NULL));
    EXPECT(strcmp(conn_error(c)->message, "the reader has enough") == 0);
    EXPECT_EQ(answer.rows, 1);
    EXPECT_OK(run(c, "SELECT 1"));
    EXPECT_EQ(server_connections(s), 1);
    conn_close(c);
    server_stop(s);
}

/* --- lost connections ------------------------------------------------------------------------- */

TEST(conn_repeats_a_read_at_the_next_node)
{
    struct server *a, *b;
    start_two((struct server_faults){.drop = "needle"}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_EQ(conn_node(c), 1);
    EXPECT_OK(run(c, "SELECT 'needle'"));
    EXPECT(strcmp(answer.text, "needle;") == 0);
    EXPECT_EQ(conn_node(c), 2);
    conn_close(c);
    server_stop(a);
    server_stop(b);
}

TEST(conn_never_repeats_a_write_that_was_sent)
{
    struct server *a, *b;
    start_two((struct server_faults){.run_and_drop = "INSERT"}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_OK(run(c, "CREATE TABLE t(a)"));
    EXPECT_ERR(ERR_UNKNOWN, run(c, "INSERT INTO t VALUES (1)"));
    EXPECT(strstr(conn_error(c)->message, "may or may not") != NULL);
    EXPECT_OK(run(c, "SELECT count(*) FROM t"));
    EXPECT(strcmp(answer.text, "1;") == 0);
    EXPECT_EQ(server_statements(a) + server_statements(b), 3);
    conn_close(c);
    server_stop(a);
    server_stop(b);
}

TEST(conn_tells_a_lost_transaction)
{
    struct server *a, *b;
    start_two((struct server_faults){.drop = "needle", .run_and_drop = "COMMIT"}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_OK(run(c, "CREATE TABLE t(a)"));
    EXPECT_OK(run(c, "BEGIN"));
    EXPECT_OK(run(c, "INSERT INTO t VALUES (1)"));
    EXPECT_ERR(ERR_TXN_LOST, run(c, "SELECT 'needle'")); /* a read, but in a transaction */
    EXPECT(!conn_in_transaction(c));
    EXPECT_OK(run(c, "SELECT count(*) FROM t"));
    EXPECT(strcmp(answer.text, "0;") == 0);
    conn_close(c);
    c = open_conn(server_address(a));
    EXPECT_OK(run(c, "BEGIN"));
    EXPECT_OK(run(c, "INSERT INTO t VALUES (1)"));
    EXPECT_ERR(ERR_UNKNOWN, run(c, "COMMIT"));
    EXPECT(strstr(conn_error(c)->message, "during COMMIT") != NULL);
    conn_close(c);
    server_stop(a);
    server_stop(b);
}

TEST(conn_does_not_repeat_an_answer_that_was_begun)
{
    struct server *a, *b;
    start_two((struct server_faults){.half_and_drop = "needle"}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_ERR(ERR_CLOSED, run(c, "SELECT 'needle' UNION ALL SELECT 2"));
    EXPECT_EQ(server_statements(b), 0);
    conn_close(c);
    server_stop(a);
    server_stop(b);
}

TEST(conn_connects_again_when_the_node_went_away_in_between)
{
    struct server *a, *b;
    start_two((struct server_faults){0}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_OK(run(c, "CREATE TABLE t(a)"));
    server_stop(a);
    EXPECT_OK(run(c, "INSERT INTO t VALUES (1)")); /* a write, but nothing was sent yet */
    EXPECT_EQ(conn_node(c), 2);
    EXPECT_OK(run(c, "BEGIN"));
    uint16_t port = server_port(b);
    server_stop(b);
    EXPECT_ERR(ERR_TXN_LOST, run(c, "INSERT INTO t VALUES (2)"));
    EXPECT_ERR(ERR_CLOSED, run(c, "SELECT 1"));
    EXPECT(strstr(conn_error(c)->message, "no node can be reached") != NULL);
    EXPECT(conn_address(c)[0] == '\0');
    b = server_start(&(struct server_options){
        .database = test_path("main.db"), .node_id = 2, .cluster_id = 5, .port = port});
    EXPECT_OK(run(c, "SELECT count(*) FROM t"));
    EXPECT(strcmp(answer.text, "1;") == 0);
    conn_close(c);
    server_stop(b);
}

TEST(conn_goes_where_the_leader_may_be)
{
    struct server *a, *b;
    start_two((struct server_faults){.not_leader = "CREATE"}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_OK(run(c, "CREATE TABLE t(a)"));
    EXPECT_EQ(conn_node(c), 2);
    conn_close(c);
    c = open_conn(server_address(a)); /* nowhere else to go: the error is told, after a few tries */
    EXPECT_ERR(ERR_NOT_LEADER, run(c, "CREATE TABLE u(a)"));
    EXPECT(server_statements(a) <= 3);
    conn_close(c);
    server_stop(a);
    server_stop(b);
}

TEST(conn_does_not_trust_a_farewell_about_the_connection)
{
    struct server *a, *b;
    start_two((struct server_faults){.goodbye = "t", .once = true}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_ERR(ERR_UNKNOWN, run(c, "INSERT INTO t VALUES (1)"));
    EXPECT(strstr(conn_error(c)->message, "going down") != NULL);
    conn_close(c);
    server_stop(a);
    server_stop(b);
}

TEST(conn_survives_garbage)
{
    struct server *a, *b;
    start_two((struct server_faults){.garbage = "needle"}, &a, &b);
    struct conn *c = open_conn(both(a, b));
    EXPECT_ERR(ERR_TOO_BIG, run(c, "SELECT 'needle'"));
    EXPECT_OK(run(c, "SELECT 1"));
    conn_close(c);
    server_stop(a);
    server_stop(b);
}

TEST(conn_refuses_a_node_of_another_cluster)
{
    struct server *a = server_start(&(struct server_options){.cluster_id = 5});
    struct server *b = server_start(&(struct server_options){.cluster_id = 6});
    struct conn *c = open_conn(both(a, b));
    server_stop(a);
    EXPECT_ERR(ERR_CONFIG, run(c, "SELECT 1"));
    EXPECT_EQ(server_statements(b), 0);
    conn_close(c);
    server_stop(b);
}

TEST(conn_tells_why_a_node_refuses)
{
    struct server_options o = {.faults = {.refuse = true}};
    struct server *s = server_start(&o);
    struct conn_options options = {.addresses = server_address(s), .client = "test"};
    struct conn *c;
    EXPECT_ERR(ERR_CLOSED, conn_open(&options, &c));
    EXPECT(strstr(conn_error(c)->message, "does not serve") != NULL);
    conn_close(c);
    server_stop(s);
}

TEST(conn_reads_address_lists)
{
    struct server *s = server_start(&(struct server_options){0});
    struct conn_options o = {.client = "test", .connect_ms = 2000};
    struct conn *c;
    char list[200];
    (void)snprintf(list, sizeof list, " 127.0.0.1:1 , ,:%u,", server_port(s));
    o.addresses = list;
    EXPECT_OK(conn_open(&o, &c));
    conn_close(c);
    static const char *const wrong[] = {"", " , ", "host:port", "[::1", "[::1]x", "a:"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        o.addresses = wrong[i];
        EXPECT(conn_open(&o, &c) != ERR_OK);
        EXPECT(conn_error(c)->message[0] != '\0');
        conn_close(c);
    }
    server_stop(s);
}

/* --- deadlines and cancel --------------------------------------------------------------------- */

TEST(conn_gives_up_on_silence)
{
    struct server *s = server_start(&(struct server_options){.faults = {.silent = "needle"}});
    struct conn_options o = {.addresses = server_address(s), .client = "test", .silence_ms = 200};
    struct conn *c;
    EXPECT_OK(conn_open(&o, &c));
    uint64_t begun = clock_mono_ms();
    EXPECT_ERR(ERR_TIMEOUT, run(c, "SELECT 'needle'"));
    EXPECT(clock_mono_ms() - begun < 10000);
    EXPECT_ERR(ERR_UNKNOWN, run(c, "INSERT INTO needle VALUES (1)"));
    EXPECT_OK(run(c, "SELECT 1"));
    conn_close(c);
    server_stop(s);
}

static void *cancel_soon(void *arg)
{
    struct conn *c = arg;
    (void)usleep(50000); /* the statement is endless: only how soon it ends depends on this */
    conn_cancel(c);
    return NULL;
}

TEST(conn_cancel_ends_the_statement_and_keeps_the_connection)
{
    struct server *s = server_start(&(struct server_options){0});
    struct conn *c = open_conn(server_address(s));
    pthread_t t;
    EXPECT(pthread_create(&t, NULL, cancel_soon, c) == 0);
    EXPECT_ERR(ERR_CANCELLED, run(c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM "
                                     "n) SELECT count(*) FROM n"));
    EXPECT(pthread_join(t, NULL) == 0);
    conn_cancel(c); /* nothing runs: must not hit the next one */
    EXPECT_OK(run(c, "SELECT 1"));
    EXPECT_EQ(server_connections(s), 1);
    conn_close(c);
    server_stop(s);
}

static void *cancel_twice(void *arg)
{
    struct conn *c = arg;
    for (int i = 0; i < 2; i++) {
        (void)usleep(100000); /* two are one if they come before the first is seen */
        conn_cancel(c);
    }
    return NULL;
}

TEST(conn_second_cancel_gives_a_dead_server_up)
{
    struct server *s = server_start(&(struct server_options){.faults = {.silent = "needle"}});
    struct conn *c = open_conn(server_address(s));
    pthread_t t;
    uint64_t begun = clock_mono_ms();
    EXPECT(pthread_create(&t, NULL, cancel_twice, c) == 0);
    enum err err = run(c, "SELECT 'needle'");
    EXPECT(pthread_join(t, NULL) == 0);
    EXPECT(err == ERR_CANCELLED || err == ERR_TIMEOUT);
    EXPECT(clock_mono_ms() - begun < CONN_GRACE_MS + 10000);
    conn_close(c);
    server_stop(s);
}

TEST(statement_kinds_never_call_a_write_a_read)
{
    static const struct {
        const char *sql;
        enum statement_kind kind;
    } cases[] = {
        {"SELECT 1", STATEMENT_READ},
        {"  /* x */ -- y\n select 1", STATEMENT_READ},
        {"VALUES (1)", STATEMENT_READ},
        {"EXPLAIN INSERT INTO t VALUES (1)", STATEMENT_READ},
        {"WITH a AS (SELECT 1) SELECT * FROM a", STATEMENT_READ},
        {"WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", STATEMENT_WRITE},
        {"WITH a AS (SELECT 1)delete FROM t", STATEMENT_WRITE},
        {"selection", STATEMENT_WRITE},
        {"PRAGMA user_version = 3", STATEMENT_WRITE},
        {"BEGIN IMMEDIATE", STATEMENT_BEGIN},
        {"SAVEPOINT a", STATEMENT_BEGIN},
        {"COMMIT", STATEMENT_COMMIT},
        {"end;", STATEMENT_COMMIT},
        {"RELEASE a", STATEMENT_COMMIT},
        {"INSERT INTO t SELECT 1", STATEMENT_WRITE},
        {"", STATEMENT_WRITE},
        {"/* open", STATEMENT_WRITE},
        {"-- only", STATEMENT_WRITE},
        {"\xef\xbb\xbf begin", STATEMENT_BEGIN}, /* a byte order mark is a space to SQLite */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        EXPECT_EQ(statement_kind(cases[i].sql, strlen(cases[i].sql)), cases[i].kind);
}
