/* Room: tests. */
#include "tests/unit/client/both.h"

#include <string.h>

struct both both_open(void)
{
    struct both b = {.node = sql_node_start()};
    EXPECT(sqlite3_open(":memory:", &b.lite) == SQLITE_OK);
    int code = lectern_open(sql_node_url(b.node), &b.db);
    EXPECT_CODE(LECTERN_OK, b.db, code);
    return b;
}

void both_close(struct both *b)
{
    EXPECT_CODE(LECTERN_OK, b->db, lectern_close(b->db));
    EXPECT(sqlite3_close(b->lite) == SQLITE_OK);
    sql_node_stop(b->node);
}

static void same_error(struct both *b, int rc)
{
    if (rc != SQLITE_OK && rc != SQLITE_ROW && rc != SQLITE_DONE) {
        EXPECT_TEXT(sqlite3_errmsg(b->lite), lectern_errmsg(b->db));
        EXPECT(sqlite3_extended_errcode(b->lite) == lectern_extended_errcode(b->db));
    }
    EXPECT(sqlite3_errcode(b->lite) == lectern_errcode(b->db));
    EXPECT(sqlite3_changes(b->lite) == lectern_changes(b->db));
    EXPECT(sqlite3_last_insert_rowid(b->lite) == lectern_last_insert_rowid(b->db));
    EXPECT(sqlite3_get_autocommit(b->lite) == lectern_get_autocommit(b->db));
}

void both_exec(struct both *b, const char *sql)
{
    int rc = sqlite3_exec(b->lite, sql, NULL, NULL, NULL);
    EXPECT_CODE(rc, b->db, lectern_exec(b->db, sql, NULL, NULL, NULL));
    same_error(b, rc);
}

struct both_stmt both_prepare(struct both *b, const char *sql)
{
    struct both_stmt s;
    EXPECT(sqlite3_prepare_v2(b->lite, sql, -1, &s.lite, NULL) == SQLITE_OK);
    EXPECT_CODE(LECTERN_OK, b->db, lectern_prepare(b->db, sql, -1, &s.db, NULL));
    EXPECT((s.lite == NULL) == (s.db == NULL));
    return s;
}

int both_step(struct both *b, struct both_stmt *s)
{
    int rc = sqlite3_step(s->lite);
    EXPECT_CODE(rc, b->db, lectern_step(s->db));
    same_error(b, rc);
    EXPECT(sqlite3_data_count(s->lite) == lectern_data_count(s->db));
    return rc;
}

int both_reset(struct both_stmt *s)
{
    int rc = sqlite3_reset(s->lite);
    EXPECT_EQ(rc, lectern_reset(s->db));
    return rc;
}

void both_finalize(struct both_stmt *s)
{
    EXPECT_EQ(sqlite3_finalize(s->lite), lectern_finalize(s->db));
}
