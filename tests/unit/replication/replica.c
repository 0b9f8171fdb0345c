/* Room: tests. Thread: owner, unless said. */
#include "tests/unit/replication/replica.h"

#include "base/check.h"
#include "base/file.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/stock.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void replica_become_owner(void)
{
    thread_become(THREAD_OWNER);
    thread_expect_owner();
}

struct repl_config replica_config(const char *name)
{
    struct repl_config c;
    const char *dir = test_path(name);
    EXPECT_OK(file_make_dirs(dir));
    char *file = mem_printf("%s/main.db", name);
    repl_config_init(&c, test_path(file));
    free(file);
    c.database_id = REPLICA_DATABASE_ID;
    c.page_size = 1024;
    c.entry_bytes_max = 8192;
    c.wal_checkpoint_bytes = 64 * 1024;
    c.wal_restart_bytes = 256 * 1024;
    c.txn_memory_max = 16 * 1024;
    return c;
}

struct repl_config replica_small_config(const char *name)
{
    struct repl_config c = replica_config(name);
    c.page_size = 512;
    c.entry_bytes_max = 2048;
    c.wal_checkpoint_bytes = 4 * 1024;
    c.wal_restart_bytes = 12 * 1024;
    return c;
}

struct repl_db *replica_open(const char *name)
{
    struct repl_config c = replica_config(name);
    struct repl_db *db;
    EXPECT_OK(repl_db_open(&c, &db));
    return db;
}

sqlite3 *replica_reader(const struct repl_db *db)
{
    sqlite3 *c;
    thread_become(THREAD_READER);
    thread_expect_reader();
    EXPECT_OK(repl_reader_open(db, &c));
    thread_become(THREAD_OWNER);
    return c;
}

int64_t replica_read_int(const struct repl_db *db, const char *sql)
{
    sqlite3 *c = replica_reader(db);
    int64_t v = stock_int(c, sql);
    stock_close(c);
    return v;
}

/* --- soundness -------------------------------------------------------------------------------- */

#define BLOCK_BYTES  32768
#define HEADER_BYTES 136

static const uint8_t *block(sqlite3_file *f, int i)
{
    void volatile *p = NULL;
    EXPECT(f->pMethods->xShmMap(f, i, BLOCK_BYTES, 0, &p) == SQLITE_OK && p != NULL);
    return (const uint8_t *)(uintptr_t)p;
}

/* iVersion..nPage but iChange, aFrameCksum, aSalt: all that recovery takes from the WAL. */
static void expect_same_header(const uint8_t *ours, const uint8_t *theirs)
{
    EXPECT(memcmp(ours, theirs, 8) == 0);
    EXPECT(memcmp(ours + 12, theirs + 12, 28) == 0);
    EXPECT(memcmp(ours, ours + 48, 48) == 0);
}

static void expect_index_as_recovered(struct repl_db *db) ON_OWNER
{
    static unsigned n;
    bool wants_quiet;
    while (!db->holds_checkpoint) /* a running one would change the file under the copy */
        EXPECT_OK(repl_db_upkeep(db, false, &wants_quiet));
    if (db->frames == 0)
        return;
    char *name = mem_printf("copy-%d-%u.db", (int)getpid(), n++);
    const char *path = test_path(name);
    stock_copy_files(db->db_file, db->wal_file, path);
    sqlite3 *stock = stock_open(path, db->config.page_size);
    stock_expect_intact(stock);
    sqlite3_file *theirs = stock_file(stock, SQLITE_FCNTL_FILE_POINTER);
    expect_same_header(block(db->db_file, 0), block(theirs, 0));
    for (uint32_t i = 0; i <= (db->frames - 1 + 34) / 4096; i++) {
        size_t skip = i == 0 ? HEADER_BYTES : 0;
        EXPECT(memcmp(block(db->db_file, (int)i) + skip, block(theirs, (int)i) + skip,
                      BLOCK_BYTES - skip) == 0);
    }
    stock_close(stock);
    const char *suffix[] = {"", "-wal", "-shm"};
    for (unsigned i = 0; i < 3; i++) {
        char *file = mem_printf("%s%s", path, suffix[i]);
        (void)unlink(file);
        free(file);
    }
    free(name);
}

void replica_expect_sound(struct repl_db *db)
{
    EXPECT_OK(repl_db_verify(db));
    sqlite3 *c = replica_reader(db);
    stock_expect_intact(c);
    stock_close(c);
    expect_index_as_recovered(db);
}

void replica_expect_equal(struct repl_db *a, struct repl_db *b)
{
    struct repl_position p = repl_db_position(a), q = repl_db_position(b);
    uint32_t page_size = a->config.page_size;
    EXPECT_EQ(p.seq, q.seq);
    EXPECT_EQ(p.checksum, q.checksum);
    EXPECT_EQ(a->pages, b->pages);
    uint8_t *x = mem_alloc(page_size), *y = mem_alloc(page_size);
    for (uint32_t i = 1; i <= a->pages; i++) {
        EXPECT_OK(database_read_page(a, i, x));
        EXPECT_OK(database_read_page(b, i, y));
        if (memcmp(x, y, page_size) != 0)
            test_fail(__FILE__, __LINE__, "page %u differs at sequence %llu", i,
                      (unsigned long long)p.seq);
    }
    free(x);
    free(y);
}

/* --- the log ---------------------------------------------------------------------------------- */

void replica_log_add(struct replica_log *log, const struct repl_txn *t)
{
    for (unsigned i = 0; i < repl_txn_parts(t); i++) {
        size_t n;
        uint8_t *p;
        EXPECT_OK(repl_txn_part(t, i, &p, &n));
        if (log->n == log->cap) {
            log->cap = log->cap == 0 ? 64 : log->cap * 2;
            log->entries = mem_realloc(log->entries, log->cap * sizeof *log->entries);
        }
        struct replica_entry *e = &log->entries[log->n++];
        *e = (struct replica_entry){p, n, repl_txn_seq(t)};
    }
}

void replica_log_free(struct replica_log *log)
{
    for (unsigned i = 0; i < log->n; i++)
        free(log->entries[i].bytes);
    free(log->entries);
    *log = (struct replica_log){0};
}

void replica_apply(struct repl_db *db, const struct replica_log *log, unsigned *cursor,
                   unsigned end)
{
    for (; *cursor < end; (*cursor)++) {
        const struct replica_entry *e = &log->entries[*cursor];
        bool wants_quiet;
        EXPECT_OK(repl_db_apply(db, e->bytes, e->n));
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
        EXPECT(!wants_quiet);
    }
}

/* --- leading ---------------------------------------------------------------------------------- */

void replica_lead(struct replica_leader *l, struct repl_db *db)
{
    l->db = db;
    EXPECT_OK(repl_view_open(db, &l->view));
    EXPECT_OK(repl_view_connect(l->view, &l->conn));
}

void replica_unlead(struct replica_leader *l)
{
    EXPECT(sqlite3_close(l->conn) == SQLITE_OK);
    repl_view_close(l->view);
    *l = (struct replica_leader){0};
}

void replica_write(struct replica_leader *l, struct replica_log *log, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *sql = sqlite3_vmprintf(format, args);
    va_end(args);
    stock_exec(l->conn, "BEGIN; %s; COMMIT", sql);
    sqlite3_free(sql);
    struct repl_txn *t;
    EXPECT_OK(repl_view_seal(l->view, 1, NULL, 0, &t));
    EXPECT(t != NULL);
    if (log != NULL)
        replica_log_add(log, t);
    EXPECT_OK(repl_db_publish(l->db, t));
}

void replica_upkeep(struct repl_db *db)
{
    bool wants_quiet = true;
    while (wants_quiet)
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
}
