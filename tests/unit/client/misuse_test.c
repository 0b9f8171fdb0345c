/* Room: tests. Wrong use ends in a code, and lost memory in LECTERN_NOMEM: never in a crash. */
#include "tests/lib/fail_alloc.h"
#include "tests/unit/client/both.h"

#include <stdlib.h>
#include <string.h>

static int no_row(void *arg, int n, char **values, char **names)
{
    (void)arg;
    (void)n;
    (void)values;
    (void)names;
    return 0;
}

static int no_body(lectern *db, void *arg)
{
    (void)db;
    (void)arg;
    return LECTERN_OK;
}

TEST(misuse_of_null_handles)
{
    lectern_stmt *s;
    lectern_batch *b;
    lectern *db;
    char *text;
    EXPECT(lectern_prepare(NULL, "SELECT 1", -1, &s, NULL) == LECTERN_MISUSE && s == NULL);
    EXPECT(lectern_prepare_v3(NULL, "SELECT 1", -1, 1, &s, NULL) == LECTERN_MISUSE);
    EXPECT(lectern_exec(NULL, "SELECT 1", no_row, NULL, &text) == LECTERN_MISUSE && text == NULL);
    EXPECT(lectern_transaction(NULL, NULL, no_body, NULL) == LECTERN_MISUSE);
    EXPECT(lectern_timeout(NULL, 1) == LECTERN_MISUSE);
    EXPECT(lectern_read_level(NULL, LECTERN_READ_ANY, 0) == LECTERN_MISUSE);
    EXPECT(lectern_errcode(NULL) == LECTERN_NOMEM && lectern_error_offset(NULL) == -1);
    EXPECT_TEXT("out of memory", lectern_errmsg(NULL));
    EXPECT(lectern_changes(NULL) == 0 && lectern_total_changes(NULL) == 0);
    EXPECT(lectern_last_insert_rowid(NULL) == 0 && lectern_get_autocommit(NULL) == 0);
    EXPECT(lectern_prepare_status(NULL, &s) == LECTERN_MISUSE);
    EXPECT(lectern_prepare_member_change(NULL, NULL, &s) == LECTERN_MISUSE);
    EXPECT(lectern_batch_new(NULL, &b) == LECTERN_MISUSE && b == NULL);
    EXPECT(lectern_open_session(NULL, &db) == LECTERN_MISUSE && db == NULL);
    EXPECT(lectern_cluster_open(NULL, NULL) == LECTERN_MISUSE);
    EXPECT(lectern_cluster_close(NULL) == LECTERN_OK && lectern_cluster_of(NULL) == NULL);
    EXPECT(lectern_fd(NULL) == -1 && lectern_poll(NULL, 0) == LECTERN_MISUSE);
    lectern_free(NULL);
}

/* Everything that a statement can be asked, of one that is none: the codes SQLite has for NULL. */
static void ask_all(lectern_stmt *s)
{
    EXPECT(lectern_step(s) == LECTERN_MISUSE);
    EXPECT(lectern_clear_bindings(s) == LECTERN_MISUSE);
    EXPECT(lectern_sql(s) == NULL && lectern_db_handle(s) == NULL);
    EXPECT(lectern_stmt_readonly(s) == 1 && lectern_stmt_isexplain(s) == 0);
    EXPECT(lectern_stmt_busy(s) == 0);
    EXPECT(lectern_bind_null(s, 1) == LECTERN_MISUSE);
    EXPECT(lectern_bind_int(s, 1, 1) == LECTERN_MISUSE);
    EXPECT(lectern_bind_int64(s, 1, 1) == LECTERN_MISUSE);
    EXPECT(lectern_bind_double(s, 1, 1) == LECTERN_MISUSE);
    EXPECT(lectern_bind_text(s, 1, "x", -1, LECTERN_STATIC) == LECTERN_MISUSE);
    EXPECT(lectern_bind_blob(s, 1, "x", 1, LECTERN_TRANSIENT) == LECTERN_MISUSE);
    EXPECT(lectern_bind_blob(s, 1, "x", -1, LECTERN_TRANSIENT) == LECTERN_MISUSE);
    EXPECT(lectern_bind_zeroblob(s, 1, 1) == LECTERN_MISUSE);
    EXPECT(lectern_bind_parameter_count(s) == 0);
    EXPECT(lectern_bind_parameter_index(s, ":x") == 0);
    EXPECT(lectern_bind_parameter_name(s, 1) == NULL);
    EXPECT(lectern_column_count(s) == 0 && lectern_data_count(s) == 0);
    EXPECT(lectern_column_name(s, 0) == NULL && lectern_column_decltype(s, 0) == NULL);
    EXPECT(lectern_column_type(s, 0) == LECTERN_NULL && lectern_column_int(s, 0) == 0);
    EXPECT(lectern_column_int64(s, 0) == 0 && lectern_column_double(s, 0) == 0.0);
    EXPECT(lectern_column_text(s, 0) == NULL && lectern_column_blob(s, 0) == NULL);
    EXPECT(lectern_column_bytes(s, 0) == 0);
    EXPECT(lectern_start(s, NULL, NULL, NULL) == LECTERN_MISUSE);
}

static void ask_all_of_batch(lectern_batch *b, lectern_stmt *s)
{
    lectern_stmt *rows;
    EXPECT(lectern_batch_add(b, s) == LECTERN_MISUSE);
    EXPECT(lectern_batch_add_sql(b, "SELECT 1") == LECTERN_MISUSE);
    EXPECT(lectern_batch_run(b) == LECTERN_MISUSE);
    EXPECT(lectern_batch_start(b, NULL, NULL) == LECTERN_MISUSE);
    EXPECT(lectern_batch_changes(b, 0) == 0 && lectern_batch_last_insert_rowid(b, 0) == 0);
    EXPECT(lectern_batch_rows(b, 0, &rows) == LECTERN_MISUSE && rows == NULL);
    EXPECT(lectern_batch_failed(b) == -1);
    EXPECT(lectern_batch_clear(b) == LECTERN_MISUSE);
}

TEST(misuse_of_finalized_statements_and_batches)
{
    ask_all(NULL);
    EXPECT(lectern_reset(NULL) == LECTERN_OK && lectern_finalize(NULL) == LECTERN_OK);
    ask_all_of_batch(NULL, NULL);
    EXPECT(lectern_batch_free(NULL) == LECTERN_OK);
    struct both b = both_open();
    for (int i = 0; i < 100; i++) { /* the graveyard is bounded */
        lectern_stmt *s, *other;
        lectern_batch *batch;
        EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare(b.db, "SELECT 1", -1, &s, NULL));
        EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare(b.db, "SELECT 2", -1, &other, NULL));
        EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
        EXPECT_CODE(LECTERN_ROW, b.db, lectern_step(s));
        EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_add(batch, s));
        EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s));
        ask_all(s);
        EXPECT(lectern_reset(s) == LECTERN_MISUSE && lectern_finalize(s) == LECTERN_MISUSE);
        EXPECT(lectern_batch_add(batch, s) == LECTERN_MISUSE);
        EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_free(batch));
        ask_all_of_batch(batch, other);
        EXPECT(lectern_batch_free(batch) == LECTERN_MISUSE);
        EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(other));
    }
    both_close(&b);
}

TEST(misuse_of_arguments)
{
    struct both b = both_open();
    lectern_stmt *s;
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare(b.db, NULL, -1, &s, NULL));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare(b.db, "SELECT 1", -1, NULL, NULL));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare_v3(b.db, "SELECT 1", -1, 64, &s, NULL));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, NULL, NULL, NULL, NULL));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_prepare_status(b.db, NULL));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_new(b.db, NULL));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_transaction(b.db, NULL, NULL, NULL));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare_status(b.db, &s));
    lectern_batch *batch;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_add(batch, s)); /* it has no SQL */
    EXPECT_CODE(LECTERN_OK, b.db, lectern_finalize(s));
    lectern *other;
    EXPECT(lectern_open_session(lectern_cluster_of(b.db), &other) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, other,
                lectern_prepare_v3(other, "SELECT 1", -1, LECTERN_PREPARE_LAZY, &s, NULL));
    EXPECT_CODE(LECTERN_MISUSE, b.db, lectern_batch_add(batch, s)); /* of another session */
    EXPECT(lectern_finalize(s) == LECTERN_OK && lectern_close(other) == LECTERN_OK);
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_free(batch));
    both_close(&b);
}

/* --- no memory --- */

/* Either it worked, or there was no memory, and the session says so. */
static bool good(lectern *db, int code, int wanted)
{
    if (code == wanted)
        return true;
    if (code != LECTERN_NOMEM && code != LECTERN_ROWS_LOST)
        test_fail(__FILE__, __LINE__, "wanted %d or no memory, got %d: %s", wanted, code,
                  lectern_errmsg(db));
    return false;
}

static void statements_without_memory(lectern *db)
{
    lectern_stmt *s;
    if (!good(db, lectern_prepare(db, "SELECT ?1, :name, 'text' AS t", -1, &s, NULL), LECTERN_OK)) {
        EXPECT(s == NULL);
        return;
    }
    (void)good(db, lectern_bind_text(s, 1, "transient", -1, LECTERN_TRANSIENT), LECTERN_OK);
    (void)good(db, lectern_bind_double(s, 2, 2.5), LECTERN_OK);
    int code = lectern_step(s);
    if (good(db, code, LECTERN_ROW)) {
        EXPECT(lectern_column_text(s, 1) != NULL || lectern_errcode(db) == LECTERN_NOMEM ||
               lectern_column_type(s, 1) == LECTERN_NULL);
        EXPECT_TEXT("text", lectern_column_text(s, 2));
        (void)good(db, lectern_step(s), LECTERN_DONE);
    }
    (void)lectern_finalize(s);
}

static int some_body(lectern *db, void *arg)
{
    (void)arg;
    return lectern_exec(db, "INSERT INTO t VALUES(7)", NULL, NULL, NULL);
}

static void batches_without_memory(lectern *db)
{
    lectern_batch *b;
    lectern_stmt *rows;
    if (!good(db, lectern_batch_new(db, &b), LECTERN_OK))
        return;
    if (good(db, lectern_batch_add_sql(b, "INSERT INTO t VALUES(2)"), LECTERN_OK) &&
        good(db, lectern_batch_add_sql(b, "SELECT 5 AS five"), LECTERN_OK) &&
        good(db, lectern_batch_run(b), LECTERN_OK) &&
        good(db, lectern_batch_rows(b, 1, &rows), LECTERN_OK)) {
        EXPECT(lectern_step(rows) == LECTERN_ROW && lectern_column_int(rows, 0) == 5);
        EXPECT(lectern_finalize(rows) == LECTERN_OK);
    }
    EXPECT(lectern_batch_free(b) == LECTERN_OK);
}

static int inserts; /* by the test's own count */

static void all_without_memory(lectern *db)
{
    char *message = NULL;
    statements_without_memory(db);
    int code = lectern_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, &message);
    inserts += good(db, code, LECTERN_OK);
    lectern_free(message);
    (void)good(db, lectern_exec(db, "INSERT INTO t VALUES(1) RETURNING a", no_row, NULL, NULL),
               LECTERN_OK);
    code = lectern_exec(db, "SELEC", NULL, NULL, &message);
    EXPECT(code == LECTERN_ERROR || code == LECTERN_NOMEM);
    lectern_free(message);
    batches_without_memory(db);
    (void)good(db, lectern_transaction(db, NULL, some_body, NULL), LECTERN_OK);
}

TEST(misuse_no_memory_anywhere_in_a_session)
{
    if (!fail_alloc_works())
        return;
    struct both b = both_open();
    both_exec(&b, "CREATE TABLE t(a)");
    uint64_t n = 1;
    for (;; n++) {
        fail_alloc_at(n);
        all_without_memory(b.db);
        if (!fail_alloc_end())
            break;
        EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT 1", NULL, NULL, NULL));
        EXPECT(lectern_get_autocommit(b.db) == 1);
    }
    EXPECT(n > 30);
    both_close(&b);
}

TEST(misuse_no_memory_to_open)
{
    if (!fail_alloc_works())
        return;
    struct sql_node *node = sql_node_start();
    for (uint64_t n = 1;; n++) {
        lectern *db;
        fail_alloc_at(n);
        int code = lectern_open(sql_node_url(node), &db);
        bool failed = fail_alloc_end();
        EXPECT(code == LECTERN_OK || code == LECTERN_NOMEM || code == LECTERN_CANTOPEN);
        if (db != NULL && code == LECTERN_OK)
            EXPECT_CODE(LECTERN_OK, db, lectern_exec(db, "SELECT 1", NULL, NULL, NULL));
        EXPECT(lectern_close(db) == LECTERN_OK);
        if (!failed)
            break;
        EXPECT(n < 10000);
    }
    sql_node_stop(node);
}

struct heard {
    int ends, result;
};

static void hear_end(void *arg, lectern_stmt *s, int result)
{
    struct heard *h = arg;
    (void)s;
    h->ends++;
    h->result = result;
}

TEST(misuse_no_memory_without_waiting)
{
    if (!fail_alloc_works())
        return;
    struct sql_node *node = sql_node_start();
    for (uint64_t n = 1;; n++) {
        lectern_cluster *c;
        lectern *db = NULL;
        lectern_stmt *s = NULL;
        struct heard h = {0};
        fail_alloc_at(n);
        int code = lectern_cluster_open(sql_node_url(node), &c);
        if (code == LECTERN_OK)
            code = lectern_open_session(c, &db);
        if (code == LECTERN_OK)
            code = lectern_prepare_v3(db, "SELECT 1", -1, LECTERN_PREPARE_LAZY, &s, NULL);
        if (code == LECTERN_OK)
            code = lectern_start(s, NULL, hear_end, &h);
        if (code == LECTERN_OK)
            while (h.ends == 0)
                EXPECT(lectern_poll(c, -1) == LECTERN_OK);
        bool failed = fail_alloc_end();
        EXPECT(code == LECTERN_OK || code == LECTERN_NOMEM);
        EXPECT(h.ends == (code == LECTERN_OK));
        (void)lectern_finalize(s);
        EXPECT(lectern_close(db) == LECTERN_OK);
        EXPECT(lectern_cluster_close(c) == LECTERN_OK);
        if (!failed)
            break;
    }
    sql_node_stop(node);
}

/* The session can be known as long as the shells are kept, and says what was wrong. */
TEST(misuse_of_what_was_finalized_is_named)
{
    struct both b = both_open();
    lectern_stmt *s;
    lectern_batch *batch;
    EXPECT_CODE(LECTERN_OK, b.db, lectern_prepare(b.db, "SELECT 1", -1, &s, NULL));
    EXPECT_CODE(LECTERN_OK, b.db, lectern_batch_new(b.db, &batch));
    EXPECT(lectern_finalize(s) == LECTERN_OK && lectern_batch_free(batch) == LECTERN_OK);
    for (int round = 0; round < 4; round++) {
        EXPECT_CODE(LECTERN_OK, b.db, lectern_exec(b.db, "SELECT 1", NULL, NULL, NULL));
        EXPECT_TEXT("not an error", lectern_errmsg(b.db));
        EXPECT_EQ(LECTERN_MISUSE, round == 0   ? lectern_finalize(s)
                                  : round == 1 ? lectern_step(s)
                                  : round == 2 ? lectern_bind_int(s, 1, 1)
                                               : lectern_batch_free(batch));
        EXPECT_TEXT("the statement or batch was finalized already", lectern_errmsg(b.db));
        EXPECT(lectern_errcode(b.db) == LECTERN_MISUSE);
    }
    both_close(&b);
}
