/* Room: tests. Stock SQLite as the judge of what this room writes: connections that never
 * checkpoint by themselves, and their files through sqlite3_file (opening and closing a database's
 * file a second time would drop SQLite's POSIX locks on it). Failures end the test. Thread: any. */
#ifndef TESTS_UNIT_REPLICATION_STOCK_H
#define TESTS_UNIT_REPLICATION_STOCK_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

/* Opens or creates a database in WAL mode, no checkpoints, no sync. PAGE_SIZE: of a new one. */
sqlite3 *stock_open(const char *path, uint32_t page_size);
void stock_close(sqlite3 *db);
void stock_exec(sqlite3 *db, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The first column of the first row. */
int64_t stock_int(sqlite3 *db, const char *sql);
/* Fails unless integrity_check says ok. */
void stock_expect_intact(sqlite3 *db);
/* SQLITE_FCNTL_FILE_POINTER or SQLITE_FCNTL_JOURNAL_POINTER (the WAL). */
sqlite3_file *stock_file(sqlite3 *db, int which);
/* The whole file, malloc'ed. */
uint8_t *stock_bytes(sqlite3_file *f, size_t *n);
/* Makes the file hold just these bytes; nobody may have it open. */
void stock_write(const char *path, const uint8_t *p, size_t n);
/* The database and its WAL as they are now, under the new path. */
void stock_copy(sqlite3 *db, const char *to);
void stock_copy_files(sqlite3_file *db, sqlite3_file *wal, const char *to);

#endif
