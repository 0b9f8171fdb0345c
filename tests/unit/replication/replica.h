/* Room: tests. Databases of a small cluster without a cluster: one leads through a view, the
 * entries that it would give to Raft are kept in a log, the others apply them from there. Limits
 * are small, so that checkpoints, WAL restarts and cut transactions are common. Failures end the
 * test. Thread: owner, unless said. */
#ifndef TESTS_UNIT_REPLICATION_REPLICA_H
#define TESTS_UNIT_REPLICATION_REPLICA_H

#include "base/rng.h"
#include "replication/database.h"

#include <sqlite3.h>

#define REPLICA_DATABASE_ID 0x1ec7e24u

/* This thread is the owner from now on. */
void replica_become_owner(void) THREAD_SHOWS(thread_owner);

/* Configuration for test_dir()/NAME/main.db, whose directory is made; the path lives as long as the
 * test. */
struct repl_config replica_config(const char *name);
/* The same with small pages, entries and WAL: much happens in few transactions. */
struct repl_config replica_small_config(const char *name);
struct repl_db *replica_open(const char *name) ON_OWNER;
/* A public read-only connection, whatever thread asks. */
sqlite3 *replica_reader(const struct repl_db *db);
int64_t replica_read_int(const struct repl_db *db, const char *sql);
/* Checks of one database: pages against hashes, integrity_check, and the public wal-index byte by
 * byte against the one that stock SQLite builds from copies of the files. */
void replica_expect_sound(struct repl_db *db) ON_OWNER;
/* Same position and same content of every page. */
void replica_expect_equal(struct repl_db *a, struct repl_db *b) ON_OWNER;

/* The ordered entries. */
struct replica_entry {
    uint8_t *bytes;
    size_t n;
    uint64_t seq;
};
struct replica_log {
    struct replica_entry *entries;
    unsigned n, cap;
};
void replica_log_add(struct replica_log *log, const struct repl_txn *t) ON_OWNER;
void replica_log_free(struct replica_log *log);
/* Applies the entries from *CURSOR up to END (not included) and moves the cursor. */
void replica_apply(struct repl_db *db, const struct replica_log *log, unsigned *cursor,
                   unsigned end) ON_OWNER;

/* A leader: a view and one connection. */
struct replica_leader {
    struct repl_db *db;
    struct repl_view *view;
    sqlite3 *conn;
};
void replica_lead(struct replica_leader *l, struct repl_db *db) ON_OWNER;
void replica_unlead(struct replica_leader *l) ON_OWNER;
/* Runs SQL in one transaction, seals, logs and publishes it; nothing to seal is a failure. */
void replica_write(struct replica_leader *l, struct replica_log *log, const char *format,
                   ...) ON_OWNER __attribute__((format(printf, 3, 4)));
/* Upkeep in a quiet moment until nothing is wanted. */
void replica_upkeep(struct repl_db *db) ON_OWNER;

#endif
