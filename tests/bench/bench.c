/* Room: tests. The load generator: many clients in one process, each with one request under way.
 *
 *     bench [--clients N] [--seconds S] [--level L] insert|select HOST:PORT
 *     bench [--seconds S] [--sync full|normal] sqlite FILE
 *
 * `insert` writes one row a request, autocommit; `select` reads one row by its key. `sqlite` does
 * the insert on a local file with stock SQLite, to compare with. One line of key=value is printed:
 * operations a second, latency in microseconds, and the processor time that the generator took from
 * the nodes beside it.
 *
 * Thread: one. Owns: the connections. The first fifth of the time warms up and is not counted. An
 * error answer ends the run: a number with errors inside would mean nothing. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "client/dial.h"
#include "client/wire.h"
#include "tests/bench/latencies.h"

#include <errno.h>
#include <getopt.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX 4096
#define RECV_BYTES  65536
#define TEXT_BYTES  100
#define DIAL_MS     5000
#define SILENCE_MS  30000 /* a cluster that says nothing for so long has failed the benchmark */
#define ROWS_READ   10000 /* `select` reads keys 1..ROWS_READ: run.py puts them there */

#define SQL_INSERT "INSERT INTO bench(client, n, text) VALUES (?, ?, ?)"
#define SQL_SELECT "SELECT client, n, text FROM bench WHERE id = ?"

struct bench_client {
    int fd;
    uint32_t number, request;
    uint32_t taken; /* bytes of ROWS since the last CREDIT */
    uint64_t sent_ns, seq;
    struct buf in, out;
};

struct bench {
    bool reads;
    enum wire_level level;
    unsigned n_clients;
    double seconds;
    struct bench_client clients[CLIENTS_MAX];
    uint64_t count_from_ns, end_ns;
    char text[TEXT_BYTES];
    struct rng rng;
    struct latencies latency;
};

static struct bench bench;

_Noreturn static void fail(const char *what)
{
    (void)fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static void flush(struct bench_client *c)
{
    /* A request is small and the last one was answered: the socket has room. */
    ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
    if (n != (ssize_t)c->out.len)
        fail(n < 0 ? strerror(errno) : "the socket took half a request");
    buf_reset(&c->out);
}

static void put_integer(struct buf *b, int64_t v)
{
    wire_put_param(b, "", &(struct wire_value){.type = WIRE_INTEGER, .integer = v});
}

static void send_request(struct bench_client *c)
{
    const char *sql = bench.reads ? SQL_SELECT : SQL_INSERT;
    if (c->taken >= WIRE_WINDOW / 2) { /* an answer is smaller than the other half */
        wire_put_credit(&c->out, 1, c->taken);
        c->taken = 0;
    }
    struct wire_query q = {.level = bench.level, .min_seq = c->seq};
    size_t begun = wire_begin_query(&c->out, WIRE_QUERY, (struct wire_id){1, ++c->request}, &q);
    size_t statement = wire_begin_statement(&c->out, 0, sql, strlen(sql));
    if (bench.reads) {
        put_integer(&c->out, (int64_t)rng_below(&bench.rng, ROWS_READ) + 1);
        wire_end_statement(&c->out, statement, 1);
    } else {
        put_integer(&c->out, c->number);
        put_integer(&c->out, c->request);
        struct wire_value text = {.type = WIRE_TEXT,
                                  .text = {.bytes = bench.text, .len = TEXT_BYTES}};
        wire_put_param(&c->out, "", &text);
        wire_end_statement(&c->out, statement, 3);
    }
    wire_end_query(&c->out, begun, 1);
    if (buf_status(&c->out) != ERR_OK)
        fail("a request over its limit");
    c->sent_ns = clock_mono_ns();
    flush(c);
}

static void answered(struct bench_client *c, struct wire_frame *f)
{
    struct wire_done done;
    if (wire_get_done(f, &done) != ERR_OK)
        fail("a bad DONE");
    if (done.seq > c->seq)
        c->seq = done.seq;
    uint64_t now = clock_mono_ns();
    if (c->sent_ns >= bench.count_from_ns && now < bench.end_ns)
        latencies_add(&bench.latency, (now - c->sent_ns) / 1000);
    if (now < bench.end_ns)
        send_request(c);
}

static void refused(struct wire_frame *f)
{
    struct wire_error e;
    if (wire_get_error(f, &e) != ERR_OK)
        fail("a bad ERROR");
    (void)fprintf(stderr, "bench: the server answered %s: %.*s\n", err_name((int)e.code),
                  (int)e.message_len, e.message);
    exit(1);
}

static void receive(struct bench_client *c)
{
    size_t before = c->in.len;
    uint8_t *room = buf_extend(&c->in, RECV_BYTES);
    if (room == NULL)
        fail("an answer over its limit");
    ssize_t n = recv(c->fd, room, RECV_BYTES, 0);
    c->in.len = before + (n > 0 ? (size_t)n : 0);
    if (n == 0)
        fail("the server closed a connection");
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        fail(strerror(errno));
    size_t at = 0;
    for (;;) {
        struct wire_frame f;
        size_t used;
        if (wire_next(c->in.data + at, c->in.len - at, WIRE_FRAME_MAX, &f, &used) != ERR_OK)
            fail(err_text());
        if (used == 0)
            break;
        at += used;
        if (f.type == WIRE_DONE || f.type == WIRE_WELCOME) {
            if (f.type == WIRE_WELCOME)
                send_request(c);
            else
                answered(c, &f);
        } else if (f.type == WIRE_ROWS) {
            c->taken += (uint32_t)used;
        } else if (f.type == WIRE_ERROR) {
            refused(&f);
        }
    }
    buf_consume(&c->in, at);
}

static int connect_all(const char *address)
{
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (poll < 0)
        fail(strerror(errno));
    for (unsigned i = 0; i < bench.n_clients; i++) {
        struct bench_client *c = &bench.clients[i];
        c->number = i + 1;
        buf_init(&c->in, WIRE_FRAME_MAX + RECV_BYTES);
        buf_init(&c->out, KIB(64));
        if (dial(address, clock_mono_ms() + DIAL_MS, NULL, &c->fd) != ERR_OK)
            fail(err_text());
        struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = c}};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &e) != 0)
            fail(strerror(errno));
    }
    return poll;
}

static void print_result(uint64_t took_ns)
{
    struct rusage use;
    (void)getrusage(RUSAGE_SELF, &use);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                 (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    const struct latencies *h = &bench.latency;
    double counted = (double)(bench.end_ns - bench.count_from_ns) / 1e9;
    (void)printf("ops=%llu rate=%.1f p50_us=%llu p90_us=%llu p99_us=%llu max_us=%llu cpu=%.3f\n",
                 (unsigned long long)h->count, (double)h->count / counted,
                 (unsigned long long)latencies_quantile(h, 0.50),
                 (unsigned long long)latencies_quantile(h, 0.90),
                 (unsigned long long)latencies_quantile(h, 0.99), (unsigned long long)h->max,
                 cpu / ((double)took_ns / 1e9));
}

static void set_times(uint64_t now)
{
    bench.end_ns = now + (uint64_t)(bench.seconds * 1e9);
    bench.count_from_ns = now + (uint64_t)(bench.seconds * 0.2e9);
}

static void run_clients(const char *address)
{
    struct epoll_event events[256];
    int poll = connect_all(address);
    uint64_t began = clock_mono_ns(), heard = began;
    set_times(began);
    for (unsigned i = 0; i < bench.n_clients; i++) {
        wire_put_hello(&bench.clients[i].out, "bench", "");
        flush(&bench.clients[i]);
    }
    while (clock_mono_ns() < bench.end_ns) {
        int n = epoll_wait(poll, events, 256, 100);
        if (n < 0 && errno != EINTR)
            fail(strerror(errno));
        for (int i = 0; i < n; i++)
            receive(events[i].data.ptr);
        if (n > 0)
            heard = clock_mono_ns();
        if (clock_mono_ns() - heard > SILENCE_MS * 1000000ull)
            fail("no answer for 30 s");
    }
    print_result(clock_mono_ns() - began);
}

static void exec(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail(sqlite3_errmsg(db));
}

static void run_sqlite(const char *path, bool full)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    if (sqlite3_open(path, &db) != SQLITE_OK)
        fail(sqlite3_errmsg(db));
    exec(db, "PRAGMA journal_mode = WAL");
    exec(db, full ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
    exec(db, "CREATE TABLE IF NOT EXISTS bench(id INTEGER PRIMARY KEY, client INT, n INT, "
             "text TEXT)");
    if (sqlite3_prepare_v2(db, SQL_INSERT, -1, &stmt, NULL) != SQLITE_OK)
        fail(sqlite3_errmsg(db));
    uint64_t began = clock_mono_ns(), before = began;
    set_times(began);
    for (int64_t i = 1; before < bench.end_ns; i++) {
        (void)sqlite3_bind_int64(stmt, 1, 1);
        (void)sqlite3_bind_int64(stmt, 2, i);
        (void)sqlite3_bind_text(stmt, 3, bench.text, TEXT_BYTES, SQLITE_STATIC);
        if (sqlite3_step(stmt) != SQLITE_DONE)
            fail(sqlite3_errmsg(db));
        (void)sqlite3_reset(stmt);
        uint64_t now = clock_mono_ns();
        if (before >= bench.count_from_ns && now < bench.end_ns)
            latencies_add(&bench.latency, (now - before) / 1000);
        before = now;
    }
    print_result(clock_mono_ns() - began);
    (void)sqlite3_finalize(stmt);
    (void)sqlite3_close(db);
}

static enum wire_level level_of(const char *name)
{
    static const char *const names[] = {"any", "bounded", "session", "strong"};
    for (unsigned i = 0; i < 4; i++)
        if (strcmp(names[i], name) == 0)
            return (enum wire_level)i;
    fail("--level is any, bounded, session or strong");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"clients", 1, NULL, 'c'},
                                            {"seconds", 1, NULL, 's'},
                                            {"level", 1, NULL, 'l'},
                                            {"sync", 1, NULL, 'y'},
                                            {NULL, 0, NULL, 0}};
    bool full = true;
    bench.n_clients = 1;
    bench.seconds = 5;
    bench.level = WIRE_SESSION;
    bench.rng.state = clock_mono_ns();
    memset(bench.text, 'x', sizeof bench.text);
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 'c')
            bench.n_clients = (unsigned)strtoul(optarg, NULL, 10);
        else if (o == 's')
            bench.seconds = strtod(optarg, NULL);
        else if (o == 'l')
            bench.level = level_of(optarg);
        else if (o == 'y')
            full = strcmp(optarg, "normal") != 0;
        else
            return 2;
    }
    if (argc - optind != 2 || bench.n_clients < 1 || bench.n_clients > CLIENTS_MAX ||
        !(bench.seconds > 0))
        fail("usage: bench [--clients N] [--seconds S] [--level L] [--sync full|normal] "
             "insert|select|sqlite HOST:PORT|FILE");
    const char *what = argv[optind], *where = argv[optind + 1];
    bench.reads = strcmp(what, "select") == 0;
    if (strcmp(what, "sqlite") == 0)
        run_sqlite(where, full);
    else if (bench.reads || strcmp(what, "insert") == 0)
        run_clients(where);
    else
        fail("insert, select or sqlite");
    return 0;
}
