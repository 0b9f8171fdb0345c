/* Room: tests. Thread: any. */
#include "tests/unit/replication/stock.h"

#include "base/file.h"
#include "base/mem.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

sqlite3 *stock_open(const char *path, uint32_t page_size)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
        test_fail(__FILE__, __LINE__, "open %s: %s", path, sqlite3_errmsg(db));
    EXPECT(sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL) == SQLITE_OK);
    stock_exec(db, "PRAGMA page_size=%u", page_size);
    stock_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0");
    return db;
}

void stock_close(sqlite3 *db)
{
    EXPECT(sqlite3_close(db) == SQLITE_OK);
}

void stock_exec(sqlite3 *db, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *sql = sqlite3_vmprintf(format, args);
    va_end(args);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        test_fail(__FILE__, __LINE__, "%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_free(sql);
}

int64_t stock_int(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
        test_fail(__FILE__, __LINE__, "%s: %s", sql, sqlite3_errmsg(db));
    int64_t v = sqlite3_column_int64(s, 0);
    if (sqlite3_finalize(s) != SQLITE_OK)
        test_fail(__FILE__, __LINE__, "%s: %s", sql, sqlite3_errmsg(db));
    return v;
}

void stock_expect_intact(sqlite3 *db)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) != SQLITE_OK ||
        sqlite3_step(s) != SQLITE_ROW)
        test_fail(__FILE__, __LINE__, "integrity_check: %s", sqlite3_errmsg(db));
    const char *said = (const char *)sqlite3_column_text(s, 0);
    if (strcmp(said, "ok") != 0)
        test_fail(__FILE__, __LINE__, "integrity_check: %s", said);
    EXPECT(sqlite3_finalize(s) == SQLITE_OK);
}

sqlite3_file *stock_file(sqlite3 *db, int which)
{
    sqlite3_file *f = NULL;
    EXPECT(sqlite3_file_control(db, "main", which, &f) == SQLITE_OK);
    EXPECT(f != NULL && f->pMethods != NULL);
    return f;
}

uint8_t *stock_bytes(sqlite3_file *f, size_t *n)
{
    sqlite3_int64 size = 0;
    EXPECT(f->pMethods->xFileSize(f, &size) == SQLITE_OK);
    uint8_t *p = mem_alloc((size_t)size);
    for (sqlite3_int64 at = 0; at < size;) {
        int some = size - at > 1 << 20 ? 1 << 20 : (int)(size - at);
        EXPECT(f->pMethods->xRead(f, p + at, some, at) == SQLITE_OK);
        at += some;
    }
    *n = (size_t)size;
    return p;
}

void stock_write(const char *path, const uint8_t *p, size_t n)
{
    int fd; /* no sync: hundreds of them */
    EXPECT_OK(file_open(path, O_WRONLY | O_CREAT, 0644, &fd));
    EXPECT_OK(file_write_at(fd, path, p, n, 0));
    EXPECT(ftruncate(fd, (off_t)n) == 0);
    EXPECT(close(fd) == 0);
}

void stock_copy_files(sqlite3_file *db, sqlite3_file *wal, const char *to)
{
    size_t n;
    uint8_t *p = stock_bytes(db, &n);
    stock_write(to, p, n);
    free(p);
    p = stock_bytes(wal, &n);
    char *wal_path = mem_printf("%s-wal", to);
    stock_write(wal_path, p, n);
    free(wal_path);
    free(p);
}

void stock_copy(sqlite3 *db, const char *to)
{
    stock_copy_files(stock_file(db, SQLITE_FCNTL_FILE_POINTER),
                     stock_file(db, SQLITE_FCNTL_JOURNAL_POINTER), to);
}
