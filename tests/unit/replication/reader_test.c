/* Room: tests. Readers beside the owner: threads of this process and foreign processes with stock
 * SQLite see whole published states only, through checkpoints and WAL restarts.
 *
 * The table `account` always sums up to TOTAL; `mark` holds the sequence of the transaction that
 * wrote it, so a reader knows which state it saw. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACCOUNTS 200
#define TOTAL    (ACCOUNTS * 100)
#define READERS  2

static void begin_accounts(struct replica_leader *l, struct replica_log *log) ON_OWNER
{
    replica_write(l, log,
                  "CREATE TABLE account(id INTEGER PRIMARY KEY, v INT, pad BLOB);"
                  "CREATE TABLE mark(seq INT);"
                  "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                  "INSERT INTO account SELECT i, 100, zeroblob(100) FROM n;"
                  "INSERT INTO mark VALUES(1)",
                  ACCOUNTS - 1);
}

static void transfer(struct replica_leader *l, struct replica_log *log, struct rng *r) ON_OWNER
{
    unsigned from = (unsigned)rng_below(r, ACCOUNTS), to = (unsigned)rng_below(r, ACCOUNTS);
    replica_write(l, log,
                  "UPDATE account SET v = v - 7 WHERE id = %u;"
                  "UPDATE account SET v = v + 7, pad = randomblob(100) WHERE id = %u;"
                  "UPDATE mark SET seq = %llu",
                  from, to, (unsigned long long)repl_view_seq(l->view) + 1);
}

/* --- threads ---------------------------------------------------------------------------------- */

struct reader {
    pthread_t thread;
    const struct repl_db *db;
    _Atomic bool *stop;
    uint64_t reads, states;
};

static void read_once(struct reader *r, sqlite3 *c, int64_t *newest)
{
    uint64_t at_least = repl_db_published(r->db);
    stock_exec(c, "BEGIN");
    int64_t seq = stock_int(c, "SELECT seq FROM mark");
    uint64_t at_most = repl_db_published_upper(r->db);
    EXPECT((uint64_t)seq >= at_least && (uint64_t)seq <= at_most);
    EXPECT(seq >= *newest);
    EXPECT_EQ(stock_int(c, "SELECT sum(v) FROM account"), TOTAL);
    EXPECT_EQ(stock_int(c, "SELECT count(*) FROM account"), ACCOUNTS);
    EXPECT_EQ(stock_int(c, "SELECT seq FROM mark"), seq); /* the state stands still */
    stock_exec(c, "COMMIT");
    r->reads++;
    r->states += seq != *newest;
    *newest = seq;
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    int64_t newest = 0;
    sqlite3 *c;
    thread_become(THREAD_READER);
    thread_expect_reader();
    EXPECT_OK(repl_reader_open(r->db, &c));
    while (!atomic_load(r->stop))
        read_once(r, c, &newest);
    stock_close(c);
    return NULL;
}

static void start_readers(struct reader *r, unsigned n, const struct repl_db *db,
                          _Atomic bool *stop)
{
    for (unsigned i = 0; i < n; i++) {
        r[i] = (struct reader){.db = db, .stop = stop};
        EXPECT_OK(thread_start(&r[i].thread, "reader", reader_main, &r[i]));
    }
}

static uint64_t join_readers(struct reader *r, unsigned n)
{
    uint64_t reads = 0;
    for (unsigned i = 0; i < n; i++) {
        EXPECT(pthread_join(r[i].thread, NULL) == 0);
        EXPECT(r[i].reads > 0);
        reads += r[i].reads;
    }
    return reads;
}

TEST(reader_threads_see_whole_published_states)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    struct reader on_a[READERS], on_b[READERS];
    struct replica_leader l;
    struct rng rng = {test_seed()};
    _Atomic bool stop = false;
    unsigned cursor = 0;
    replica_lead(&l, a);
    begin_accounts(&l, &log);
    replica_apply(b, &log, &cursor, log.n);
    start_readers(on_a, READERS, a, &stop);
    start_readers(on_b, READERS, b, &stop);
    struct repl_stats s, t;
    uint64_t wanted = test_rounds(20), until = clock_mono_ms() + 60000;
    do {
        transfer(&l, &log, &rng);
        replica_upkeep(a);
        replica_apply(b, &log, &cursor, log.n);
        repl_db_stats(a, &s);
        repl_db_stats(b, &t);
    } while ((s.wal_restarts < wanted || t.wal_restarts < wanted) && clock_mono_ms() < until);
    atomic_store(&stop, true);
    uint64_t reads = join_readers(on_a, READERS) + join_readers(on_b, READERS);
    (void)printf("%llu transactions, %llu reads, restarts %llu and %llu\n",
                 (unsigned long long)s.published_seq, (unsigned long long)reads,
                 (unsigned long long)s.wal_restarts, (unsigned long long)t.wal_restarts);
    EXPECT(s.wal_restarts >= wanted && t.wal_restarts >= wanted);
    replica_expect_sound(a);
    replica_expect_sound(b);
    replica_expect_equal(a, b);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}

/* --- a reader that stays ---------------------------------------------------------------------- */

TEST(reader_that_stays_keeps_its_state_and_costs_no_stop)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    struct rng rng = {test_seed()};
    struct repl_stats s;
    replica_lead(&l, db);
    begin_accounts(&l, NULL);
    transfer(&l, NULL, &rng);
    sqlite3 *c = replica_reader(db);
    stock_exec(c, "BEGIN");
    EXPECT_EQ(stock_int(c, "SELECT seq FROM mark"), 2);
    uint64_t waited = 0, began = test_felt_ms();
    for (unsigned i = 0; i < 1000; i++) {
        transfer(&l, NULL, &rng);
        uint64_t before = test_felt_ms();
        replica_upkeep(db);
        waited += test_felt_ms() - before;
    }
    repl_db_stats(db, &s);
    EXPECT_EQ(s.wal_restarts, 0);
    EXPECT(s.wal_bytes > 1000000);
    /* Attempts are bounded, and rare. */
    EXPECT(waited <= 500 + (test_felt_ms() - began) / 2);
    EXPECT_EQ(stock_int(c, "SELECT seq FROM mark"), 2);
    EXPECT_EQ(stock_int(c, "SELECT sum(v) FROM account"), TOTAL);
    stock_exec(c, "COMMIT");
    EXPECT_EQ(stock_int(c, "SELECT seq FROM mark"), 1002);
    uint64_t until = clock_mono_ms() + 60000;
    while (s.wal_restarts == 0 && clock_mono_ms() < until) {
        replica_upkeep(db);
        transfer(&l, NULL, &rng);
        repl_db_stats(db, &s);
    }
    EXPECT_EQ(s.wal_restarts, 1);
    EXPECT_EQ(stock_int(c, "SELECT sum(v) FROM account"), TOTAL);
    stock_close(c);
    replica_unlead(&l);
    replica_expect_sound(db);
    EXPECT_OK(repl_db_close(db));
}

/* All is copied, and a reader that came before is still inside the WAL: it reads frames there. */
TEST(reader_inside_the_wal_keeps_it_from_being_overwritten)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *db[2] = {replica_open("a"), replica_open("b")};
    struct replica_leader l;
    struct rng rng = {test_seed()};
    sqlite3 *c[2];
    unsigned cursor = 0;
    struct repl_stats s;
    replica_lead(&l, db[0]);
    begin_accounts(&l, &log);
    while (db[0]->frames * 1048 < db[0]->config.wal_restart_bytes + 50000)
        transfer(&l, &log, &rng); /* no upkeep: nothing is copied yet */
    for (unsigned i = cursor; i < log.n; i++)
        EXPECT_OK(repl_db_apply(db[1], log.entries[i].bytes, log.entries[i].n));
    cursor = log.n;
    int64_t seq = (int64_t)repl_db_published(db[0]);
    for (unsigned i = 0; i < 2; i++) {
        c[i] = replica_reader(db[i]);
        stock_exec(c[i], "PRAGMA cache_size=1; BEGIN"); /* reads the file again and again */
        EXPECT_EQ(stock_int(c[i], "SELECT seq FROM mark"), seq);
    }
    uint64_t began = clock_mono_ms();
    do {
        replica_upkeep(db[0]);
        replica_upkeep(db[1]);
        repl_db_stats(db[1], &s);
    } while (s.wal_backfilled_bytes < s.wal_bytes && clock_mono_ms() < began + 60000);
    EXPECT(s.wal_backfilled_bytes == s.wal_bytes);
    for (unsigned n = 0; n < 300; n++) {
        transfer(&l, &log, &rng);
        replica_upkeep(db[0]);
        replica_apply(db[1], &log, &cursor, log.n);
        for (unsigned i = 0; i < 2; i++) {
            EXPECT_EQ(stock_int(c[i], "SELECT seq FROM mark"), seq);
            EXPECT_EQ(stock_int(c[i], "SELECT sum(v) FROM account"), TOTAL);
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        repl_db_stats(db[i], &s);
        EXPECT_EQ(s.wal_restarts, 0);
        stock_expect_intact(c[i]);
        stock_exec(c[i], "COMMIT");
        stock_close(c[i]);
    }
    replica_unlead(&l);
    for (unsigned i = 0; i < 2; i++) {
        replica_expect_sound(db[i]);
        EXPECT_OK(repl_db_close(db[i]));
    }
    replica_log_free(&log);
}

TEST(reader_cannot_write)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    sqlite3 *c = replica_reader(db);
    EXPECT((sqlite3_exec(c, "CREATE TABLE t(a)", NULL, NULL, NULL) & 0xff) == SQLITE_READONLY);
    EXPECT_EQ(stock_int(c, "PRAGMA foreign_keys"), 1);
    stock_close(c);
    EXPECT_OK(repl_db_close(db));
}

/* --- foreign processes ------------------------------------------------------------------------ */

/* Starts the stock shell on PATH with standard input from IN and both outputs to OUT. */
static pid_t start_shell(const char *path, const char *in, const char *out)
{
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid > 0)
        return pid;
    int from = open(in, O_RDONLY), to = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (from < 0 || to < 0 || dup2(from, 0) < 0 || dup2(to, 1) < 0 || dup2(to, 2) < 0)
        _exit(126);
    (void)execlp("sqlite3", "sqlite3", "-batch", path, (char *)NULL);
    _exit(127);
}

static void write_script(const char *path, const char *line, unsigned n)
{
    struct buf b;
    buf_init(&b, 16 << 20);
    for (unsigned i = 0; i < n; i++)
        buf_printf(&b, "%s\n", line);
    EXPECT_OK(buf_status(&b));
    stock_write(path, b.data, b.len);
    buf_fini(&b);
}

static char *read_text(const char *path)
{
    struct buf b;
    buf_init(&b, 16 << 20);
    EXPECT_OK(file_read_all(path, &b));
    buf_put_u8(&b, 0);
    EXPECT_OK(buf_status(&b));
    size_t n;
    return (char *)buf_take(&b, &n);
}

static bool exited(pid_t pid, int *status)
{
    pid_t got = waitpid(pid, status, WNOHANG);
    EXPECT(got >= 0);
    return got == pid;
}

TEST(reader_processes_see_whole_published_states)
{
    replica_become_owner();
    struct replica_log log = {0};
    struct repl_db *a = replica_open("a"), *b = replica_open("b");
    struct replica_leader l;
    struct rng rng = {test_seed()};
    struct repl_stats s = {0}, t = {0};
    unsigned cursor = 0, n = 2000;
    replica_lead(&l, a);
    begin_accounts(&l, &log);
    replica_apply(b, &log, &cursor, log.n);
    write_script(test_path("in"), "SELECT sum(v), count(*) FROM account;", n);
    /* On the follower another program also checkpoints as hard as it is let. */
    write_script(test_path("in2"),
                 "SELECT sum(v), count(*) FROM account; PRAGMA wal_checkpoint(TRUNCATE);", n);
    pid_t p = start_shell(test_path("a/main.db"), test_path("in"), test_path("out"));
    pid_t q = start_shell(test_path("b/main.db"), test_path("in2"), test_path("out2"));
    int status_p = -1, status_q = -1;
    bool p_done = false, q_done = false;
    uint64_t until = clock_mono_ms() + 60000;
    while ((!p_done || !q_done || s.wal_restarts == 0 || t.wal_restarts == 0) &&
           clock_mono_ms() < until) {
        transfer(&l, &log, &rng);
        replica_upkeep(a);
        replica_apply(b, &log, &cursor, log.n);
        p_done = p_done || exited(p, &status_p);
        q_done = q_done || exited(q, &status_q);
        repl_db_stats(a, &s);
        repl_db_stats(b, &t);
    }
    EXPECT(p_done && q_done && status_p == 0 && status_q == 0);
    (void)printf("%llu transactions, restarts %llu and %llu\n", (unsigned long long)s.published_seq,
                 (unsigned long long)s.wal_restarts, (unsigned long long)t.wal_restarts);
    EXPECT(s.wal_restarts > 0 && t.wal_restarts > 0);
    const char *out[] = {test_path("out"), test_path("out2")};
    for (unsigned i = 0; i < 2; i++) {
        char *text = read_text(out[i]), *rest = text;
        unsigned sums = 0;
        for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
            if (strcmp(line, "20000|200") == 0)
                sums++;
            else if (*line != 0 && (i == 0 || strspn(line, "-0123456789|") != strlen(line)))
                test_fail(__FILE__, __LINE__, "the foreign process said: %s", line);
        }
        EXPECT_EQ(sums, n);
        free(text);
    }
    replica_unlead(&l);
    replica_expect_sound(a);
    replica_expect_sound(b);
    replica_expect_equal(a, b);
    EXPECT_OK(repl_db_close(a));
    EXPECT_OK(repl_db_close(b));
    replica_log_free(&log);
}

TEST(reader_process_that_writes_is_told_that_it_is_locked)
{
    replica_become_owner();
    struct repl_db *db = replica_open("a");
    struct replica_leader l;
    replica_lead(&l, db);
    begin_accounts(&l, NULL);
    write_script(test_path("in"), "UPDATE account SET v = 0;", 1);
    int status = 0;
    pid_t p = start_shell(test_path("a/main.db"), test_path("in"), test_path("out"));
    EXPECT(waitpid(p, &status, 0) == p);
    EXPECT(status != 0);
    char *text = read_text(test_path("out"));
    EXPECT(strstr(text, "database is locked") != NULL);
    free(text);
    EXPECT_EQ(replica_read_int(db, "SELECT sum(v) FROM account"), TOTAL);
    replica_unlead(&l);
    EXPECT_OK(repl_db_close(db));
}
