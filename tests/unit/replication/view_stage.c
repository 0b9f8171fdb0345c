/* Room: tests. */
#include "tests/unit/replication/view_stage.h"

#include "replication/database.h"
#include "replication/view.h"

#include "base/check.h"
#include "base/hash.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/stock.h"

#include <stdlib.h>
#include <string.h>

struct repl_config stage_config(const char *name)
{
    struct repl_config c;
    repl_config_init(&c, test_path(name));
    c.database_id = 7;
    c.txn_memory_max = 16 * 1024;
    return c;
}

void stage_open(struct stage *s, const struct repl_config *c)
{
    *s = (struct stage){0};
    EXPECT_OK(repl_db_open(c, &s->db));
    EXPECT_OK(repl_view_open(s->db, &s->view));
    EXPECT_OK(repl_view_connect(s->view, &s->conn));
}

void stage_drop_view(struct stage *s)
{
    EXPECT_EQ(sqlite3_close(s->conn), SQLITE_OK);
    for (unsigned i = 0; i < s->n_flight; i++)
        repl_txn_free(s->flight[i]);
    s->n_flight = 0;
    s->conn = NULL;
    repl_view_close(s->view);
    s->view = NULL;
}

void stage_open_view(struct stage *s)
{
    EXPECT_OK(repl_view_open(s->db, &s->view));
    EXPECT_OK(repl_view_connect(s->view, &s->conn));
}

void stage_close(struct stage *s)
{
    if (s->view != NULL)
        stage_drop_view(s);
    EXPECT_OK(repl_db_verify(s->db));
    EXPECT_OK(repl_db_close(s->db));
}

bool stage_seal(struct stage *s)
{
    struct repl_txn *t;
    uint64_t before = repl_view_seq(s->view);
    EXPECT_OK(repl_view_seal(s->view, 1234, NULL, 0, &t));
    EXPECT_EQ(repl_view_seq(s->view), before + (t != NULL));
    if (t == NULL)
        return false;
    EXPECT_EQ(repl_txn_seq(t), before + 1);
    EXPECT(s->n_flight < STAGE_FLIGHT_MAX);
    s->flight[s->n_flight++] = t;
    EXPECT_EQ(view_unpublished(s->view), s->n_flight);
    return true;
}

void stage_publish(struct stage *s)
{
    CHECK(s->n_flight > 0);
    uint64_t seq = repl_txn_seq(s->flight[0]);
    EXPECT_OK(repl_db_publish(s->db, s->flight[0]));
    memmove(s->flight, s->flight + 1, --s->n_flight * sizeof *s->flight);
    EXPECT_EQ(repl_db_position(s->db).seq, seq);
}

void stage_publish_all(struct stage *s)
{
    while (s->n_flight > 0)
        stage_publish(s);
}

void stage_commit(struct stage *s, const char *sql)
{
    stock_exec(s->conn, "%s", sql);
    EXPECT(stage_seal(s));
}

uint64_t stage_content(sqlite3 *db)
{
    uint64_t h = 1;
    sqlite3_stmt *tables, *rows;
    EXPECT_EQ(sqlite3_prepare_v2(db, "SELECT name, sql FROM sqlite_schema ORDER BY name", -1,
                                 &tables, NULL),
              SQLITE_OK);
    while (sqlite3_step(tables) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(tables, 0);
        h = hash64(name, strlen(name), h);
        if (strncmp(name, "t", 1) != 0)
            continue;
        char *sql = sqlite3_mprintf("SELECT * FROM \"%w\" ORDER BY 1", name);
        EXPECT_EQ(sqlite3_prepare_v2(db, sql, -1, &rows, NULL), SQLITE_OK);
        int rc;
        while ((rc = sqlite3_step(rows)) == SQLITE_ROW)
            for (int i = 0; i < sqlite3_column_count(rows); i++) {
                const void *p = sqlite3_column_blob(rows, i);
                h = hash64(p, (size_t)sqlite3_column_bytes(rows, i), h + 1);
            }
        EXPECT_EQ(rc, SQLITE_DONE);
        sqlite3_finalize(rows);
        sqlite3_free(sql);
    }
    EXPECT_EQ(sqlite3_finalize(tables), SQLITE_OK);
    return h;
}

uint64_t stage_published_content(const struct stage *s)
{
    thread_become(THREAD_READER);
    thread_expect_reader();
    sqlite3 *reader;
    EXPECT_OK(repl_reader_open(s->db, &reader));
    uint64_t h = stage_content(reader);
    EXPECT_EQ(sqlite3_close(reader), SQLITE_OK);
    thread_become(THREAD_OWNER);
    return h;
}

uint64_t stage_files_hash(const struct stage *s)
{
    uint64_t h = 0;
    sqlite3_file *files[] = {s->db->db_file, s->db->wal_file};
    for (int i = 0; i < 2; i++) {
        size_t n;
        uint8_t *p = stock_bytes(files[i], &n);
        h = hash64(p, n, h);
        free(p);
    }
    return h;
}
