/* Room: tests. Which pages are named when a database is not what its log says. */
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect_said(struct repl_db *db, const struct replica_log *log,
                        const char *expected) ON_OWNER
{
    char said[200];
    struct repl_compare *c = repl_compare_new(db);
    for (unsigned i = log->n; i-- > 0;)
        EXPECT_OK(repl_compare_entry(c, log->entries[i].bytes, log->entries[i].n));
    repl_compare_end(c, said, sizeof said);
    if (strcmp(said, expected) != 0)
        test_fail(__FILE__, __LINE__, "\"%s\" instead of \"%s\"", said, expected);
}

static void expect_same(struct repl_db *db, const struct replica_log *log) ON_OWNER
{
    char expected[200];
    (void)snprintf(expected, sizeof expected, "0 of the %u pages differ from the log", db->pages);
    expect_said(db, log, expected);
}

/* Page PAGE_NO is damaged, as far as the hashes know. */
static void expect_found(struct repl_db *db, const struct replica_log *log,
                         uint32_t page_no) ON_OWNER
{
    char expected[200];
    uint64_t hash = digest_get(db->digest, page_no);
    (void)snprintf(expected, sizeof expected, "1 of the %u pages differ from the log: page %u",
                   db->pages, page_no);
    digest_set(db->digest, page_no, hash ^ 1);
    expect_said(db, log, expected);
    digest_set(db->digest, page_no, hash);
}

TEST(compare_knows_the_unfinished_parts_of_an_earlier_leader)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    struct repl_txn *lost;
    replica_lead(&l, db);
    replica_write(&l, &log, "CREATE TABLE t(a); CREATE TABLE u(a)");
    EXPECT_EQ(db->pages, 3);
    stock_exec(l.conn, "INSERT INTO u VALUES(randomblob(50000))"); /* pages 1, 3, and new ones */
    EXPECT_OK(repl_view_seal(l.view, 1, NULL, 0, &lost));
    EXPECT(repl_txn_parts(lost) > 3);
    replica_log_add(&log, lost);
    while (log.n > 3) /* two of its parts were ordered */
        free(log.entries[--log.n].bytes);
    repl_txn_free(lost);
    replica_unlead(&l);

    replica_lead(&l, db); /* sequence 2 anew: only page 2 */
    replica_write(&l, &log, "INSERT INTO t VALUES(1)");
    EXPECT_EQ(log.n, 4);
    expect_same(db, &log);
    for (uint32_t p = 1; p <= 3; p++)
        expect_found(db, &log, p);

    unsigned first = log.n; /* a cut transaction that was finished: all its parts count */
    replica_write(&l, &log, "INSERT INTO u VALUES(randomblob(50000))");
    EXPECT(log.n > first + 3);
    expect_same(db, &log);
    for (uint32_t p = 1; p <= db->pages; p++)
        expect_found(db, &log, p);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
    replica_log_free(&log);
}
