/* Room: tests.   Thread: one for each server; it serves one connection after the other.
 * Owns: its socket and its SQLite handle.
 *
 * It uses the server's side of client/wire.h, so both sides are tested against each other; the
 * bytes themselves are tested by wire_test.c and by lectern_client.py. */
#include "tests/unit/client/shell_server.h"

#include "base/sizes.h"
#include "client/wire.h"
#include "tests/lib/test.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
    struct server_options o;
    pthread_t thread;
    int listener, stop_fd, fd;
    char address[32];
    uint16_t port;
    sqlite3 *db;
    struct buf in, out;
    size_t current;       /* bytes of the frame that is being answered, first in `in` */
    struct wire_id id;    /* of that frame */
    bool cancelled, over; /* over: the connection is to be closed */
    uint64_t seq;
    atomic_uint connections, statements, faults_done;
    atomic_ullong min_seq;
};

/* --- bytes ------------------------------------------------------------------------------------ */

/* False: stop, or the client is gone. */
static bool wait_for(struct server *s, short events)
{
    struct pollfd p[2] = {{.fd = s->fd, .events = events}, {.fd = s->stop_fd, .events = POLLIN}};
    return poll(p, 2, 60000) > 0 && p[1].revents == 0;
}

static void send_out(struct server *s)
{
    size_t at = 0;
    EXPECT_OK(buf_status(&s->out));
    while (at < s->out.len && !s->over) {
        ssize_t n = send(s->fd, s->out.data + at, s->out.len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            at += (size_t)n;
        else if (!wait_for(s, POLLOUT) || n == 0)
            s->over = true;
    }
    buf_reset(&s->out);
}

static bool receive(struct server *s, int flags)
{
    void *to = buf_extend(&s->in, 65536);
    EXPECT(to != NULL);
    ssize_t n = recv(s->fd, to, 65536, flags);
    s->in.len -= 65536 - (n > 0 ? (size_t)n : 0);
    return n > 0;
}

/* The first frame that lies OFFSET bytes into the input. */
static bool next(struct server *s, size_t offset, struct wire_frame *f, size_t *used)
{
    EXPECT_OK(wire_next(s->in.data + offset, s->in.len - offset, WIRE_FRAME_MAX, f, used));
    return *used > 0;
}

/* Called by SQLite while a statement runs: has a CANCEL for it come? */
static int on_progress(void *arg)
{
    struct server *s = arg;
    struct pollfd p[2] = {{.fd = s->fd, .events = POLLIN}, {.fd = s->stop_fd, .events = POLLIN}};
    struct wire_frame f;
    size_t used;
    if (poll(p, 2, 0) <= 0)
        return 0;
    if (p[1].revents != 0 || (p[0].revents != 0 && !receive(s, MSG_DONTWAIT))) {
        s->over = true;
        return 1;
    }
    if (!next(s, s->current, &f, &used) || f.type != WIRE_CANCEL)
        return 0;
    s->cancelled = f.id.stream == s->id.stream && f.id.request == s->id.request;
    return s->cancelled;
}

/* --- answers ---------------------------------------------------------------------------------- */

static uint8_t flags(const struct server *s)
{
    return sqlite3_get_autocommit(s->db) ? 0 : WIRE_IN_TRANSACTION;
}

static void answer_error(struct server *s, enum err code, int sqlite_code, int offset,
                         const char *text)
{
    struct wire_error e = {.code = code,
                           .sqlite_code = sqlite_code,
                           .offset = offset,
                           .flags = flags(s),
                           .message = text,
                           .message_len = strlen(text)};
    wire_put_error(&s->out, s->id, &e);
    send_out(s);
}

static void answer_sqlite(struct server *s)
{
    if (s->cancelled)
        answer_error(s, ERR_CANCELLED, SQLITE_INTERRUPT, -1, "interrupted");
    else
        answer_error(s, ERR_SQL, sqlite3_extended_errcode(s->db), sqlite3_error_offset(s->db),
                     sqlite3_errmsg(s->db));
}

static void put_columns(struct server *s, sqlite3_stmt *stmt)
{
    size_t begun = wire_begin(&s->out, WIRE_COLUMNS, s->id);
    buf_put_u32(&s->out, (uint32_t)sqlite3_column_count(stmt));
    for (int i = 0; i < sqlite3_column_count(stmt); i++) {
        const char *type = sqlite3_column_decltype(stmt, i);
        buf_put_cstr(&s->out, sqlite3_column_name(stmt, i));
        buf_put_cstr(&s->out, type == NULL ? "" : type);
    }
    wire_end(&s->out, begun);
}

static void put_cell(struct buf *b, sqlite3_stmt *stmt, int i)
{
    struct wire_value v = {.type = WIRE_NULL};
    switch (sqlite3_column_type(stmt, i)) {
    case SQLITE_INTEGER:
        v = (struct wire_value){.type = WIRE_INTEGER, .integer = sqlite3_column_int64(stmt, i)};
        break;
    case SQLITE_FLOAT:
        v = (struct wire_value){.type = WIRE_FLOAT, .real = sqlite3_column_double(stmt, i)};
        break;
    case SQLITE_TEXT:
    case SQLITE_BLOB:
        v.type = sqlite3_column_type(stmt, i) == SQLITE_TEXT ? WIRE_TEXT : WIRE_BLOB;
        v.text.bytes = sqlite3_column_blob(stmt, i);
        v.text.len = (uint32_t)sqlite3_column_bytes(stmt, i);
        break;
    default:
        break;
    }
    wire_put_value(b, &v);
}

static bool faulty(struct server *s, const char *text, const char *sql)
{
    if (text == NULL || strstr(sql, text) == NULL || (s->o.faults.once && s->faults_done > 0))
        return false;
    s->faults_done++;
    return true;
}

/* Streams the rows; the result code of the last step. */
static int put_rows(struct server *s, sqlite3_stmt *stmt, bool half)
{
    int rc;
    do {
        uint32_t rows = 0;
        size_t begun = wire_begin(&s->out, WIRE_ROWS, s->id);
        buf_put_u32(&s->out, 0);
        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
            for (int i = 0; i < sqlite3_column_count(stmt); i++)
                put_cell(&s->out, stmt, i);
            rows++;
            if (s->out.len - begun > WIRE_ROWS_BLOCK || half)
                break;
        }
        buf_patch_u32(&s->out, begun + WIRE_HEAD_BYTES, rows);
        wire_end(&s->out, begun);
        send_out(s);
        s->over = s->over || half;
    } while (rc == SQLITE_ROW && !s->over);
    return rc;
}

static void bind_params(sqlite3_stmt *stmt, struct wire_statement *q)
{
    int position = 0;
    for (uint32_t i = 0; i < q->n_params; i++) {
        const char *name;
        char copy[64];
        size_t n;
        struct wire_value v;
        EXPECT_OK(wire_get_param(&q->params, &name, &n, &v));
        EXPECT(n < sizeof copy);
        memcpy(copy, name, n);
        copy[n] = '\0';
        int at = n == 0 ? ++position : sqlite3_bind_parameter_index(stmt, copy);
        if (v.type == WIRE_INTEGER)
            (void)sqlite3_bind_int64(stmt, at, v.integer);
        else if (v.type == WIRE_FLOAT)
            (void)sqlite3_bind_double(stmt, at, v.real);
        else if (v.type == WIRE_TEXT)
            (void)sqlite3_bind_text(stmt, at, v.text.bytes, (int)v.text.len, SQLITE_TRANSIENT);
        else if (v.type == WIRE_BLOB)
            (void)sqlite3_bind_blob(stmt, at, v.text.bytes, (int)v.text.len, SQLITE_TRANSIENT);
    }
}

static void run(struct server *s, struct wire_statement *q, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    bool half = faulty(s, s->o.faults.half_and_drop, sql);
    bool drop = faulty(s, s->o.faults.run_and_drop, sql);
    int64_t before = sqlite3_total_changes64(s->db);
    s->cancelled = false;
    int rc = sqlite3_prepare_v2(s->db, q->sql, (int)q->sql_len, &stmt, NULL);
    if (rc == SQLITE_OK && stmt != NULL) {
        bind_params(stmt, q);
        if (sqlite3_column_count(stmt) > 0 && !drop) {
            put_columns(s, stmt);
            rc = put_rows(s, stmt, half);
        } else {
            while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
                ;
        }
    }
    s->over = s->over || drop;
    if (s->over) {
        buf_reset(&s->out);
    } else if (rc != SQLITE_DONE && stmt != NULL) {
        answer_sqlite(s);
    } else if (rc != SQLITE_OK && stmt == NULL) {
        answer_sqlite(s);
    } else {
        bool reads = stmt == NULL || sqlite3_stmt_readonly(stmt);
        s->seq += reads ? 0 : 1;
        struct wire_done d = {.seq = s->seq,
                              .changes = sqlite3_total_changes64(s->db) - before,
                              .last_insert_rowid = sqlite3_last_insert_rowid(s->db)};
        (void)sqlite3_finalize(stmt);
        stmt = NULL;
        d.flags = flags(s);
        wire_put_done(&s->out, s->id, &d);
        send_out(s);
    }
    (void)sqlite3_finalize(stmt);
}

static void on_query(struct server *s, struct wire_frame *f)
{
    const struct server_faults *bad = &s->o.faults;
    struct wire_query q;
    struct wire_statement statement;
    EXPECT_OK(wire_get_query(f, &q));
    EXPECT_OK(wire_get_statement(&q.statements, &statement));
    char *sql = strndup(statement.sql, statement.sql_len);
    s->statements++;
    if (q.min_seq > s->min_seq)
        s->min_seq = q.min_seq;
    if (faulty(s, bad->drop, sql)) {
        s->over = true;
    } else if (faulty(s, bad->silent, sql)) {
        char c;
        while (wait_for(s, POLLIN) && recv(s->fd, &c, 1, 0) > 0)
            ;
        s->over = true;
    } else if (faulty(s, bad->not_leader, sql)) {
        answer_error(s, ERR_NOT_LEADER, 0, -1, "this node is not the leader");
    } else if (faulty(s, bad->lose_txn, sql)) {
        (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        answer_error(s, ERR_TXN_LOST, 0, -1, "the leader was lost");
    } else if (faulty(s, bad->goodbye, sql)) {
        s->id = (struct wire_id){0};
        answer_error(s, ERR_STOPPED, 0, -1, "this node is going down");
        s->over = true;
    } else if (faulty(s, bad->garbage, sql)) {
        buf_put(&s->out, "\xff\xff\xff\xff garbage", 12);
        send_out(s);
        s->over = true;
    } else {
        run(s, &statement, sql);
    }
    free(sql);
}

static void on_status(struct server *s)
{
    static const char *const names[] = {"node", "address", "role", "term", "seq", "lag", "state"};
    wire_put_columns(&s->out, s->id, names, 7);
    size_t begun = wire_begin(&s->out, WIRE_ROWS, s->id);
    buf_put_u32(&s->out, 2);
    for (int64_t node = 1; node <= 2; node++) {
        const char *texts[] = {node == 1 ? "follower" : "leader", "serving"};
        const char *address = node == 1 ? s->address : "10.0.0.2:7701";
        struct wire_value v[] = {
            {.type = WIRE_INTEGER, .integer = node},
            {.type = WIRE_TEXT, .text = {address, (uint32_t)strlen(address)}},
            {.type = WIRE_TEXT, .text = {texts[0], (uint32_t)strlen(texts[0])}},
            {.type = WIRE_INTEGER, .integer = 7},
            {.type = WIRE_INTEGER, .integer = (int64_t)s->seq},
            {.type = WIRE_NULL},
            {.type = WIRE_TEXT, .text = {texts[1], (uint32_t)strlen(texts[1])}},
        };
        for (int i = 0; i < 7; i++)
            wire_put_value(&s->out, &v[i]);
    }
    wire_end(&s->out, begun);
    wire_put_done(&s->out, s->id, &(struct wire_done){.seq = s->seq});
    send_out(s);
}

/* --- the thread ------------------------------------------------------------------------------- */

static void on_hello(struct server *s, struct wire_frame *f)
{
    struct wire_hello h;
    EXPECT_OK(wire_get_hello(f, &h));
    s->connections++;
    if (s->o.faults.refuse) {
        answer_error(s, ERR_STOPPED, 0, -1, "this node does not serve");
        s->over = true;
        return;
    }
    struct wire_welcome w = {.version = WIRE_VERSION,
                             .node_id = s->o.node_id,
                             .cluster_id = s->o.cluster_id,
                             .seq = s->seq,
                             .server = "0.1-test",
                             .server_len = 8,
                             .sqlite = sqlite3_libversion(),
                             .sqlite_len = strlen(sqlite3_libversion())};
    wire_put_welcome(&s->out, &w);
    send_out(s);
}

static void serve(struct server *s)
{
    struct wire_frame f;
    size_t used;
    s->over = false;
    buf_reset(&s->in);
    buf_reset(&s->out);
    while (!s->over) {
        while (s->in.len == 0 || !next(s, 0, &f, &used))
            if (!wait_for(s, POLLIN) || !receive(s, 0))
                return;
        s->id = f.id;
        s->current = used;
        if (f.type == WIRE_HELLO)
            on_hello(s, &f);
        else if (f.type == WIRE_QUERY)
            on_query(s, &f);
        else if (f.type == WIRE_STATUS)
            on_status(s);
        buf_consume(&s->in, used);
    }
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    for (;;) {
        s->fd = s->listener;
        if (!wait_for(s, POLLIN))
            return NULL;
        s->fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (s->fd < 0)
            continue;
        serve(s);
        if (!sqlite3_get_autocommit(s->db))
            (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        (void)close(s->fd);
    }
}

struct server *server_start(const struct server_options *o)
{
    struct server *s = calloc(1, sizeof *s);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(o->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int on = 1;
    EXPECT(s != NULL);
    s->o = *o;
    buf_init(&s->in, WIRE_FRAME_MAX + MIB(1));
    buf_init(&s->out, WIRE_FRAME_MAX + MIB(1));
    EXPECT(sqlite3_open(o->database == NULL ? ":memory:" : o->database, &s->db) == SQLITE_OK);
    (void)sqlite3_busy_timeout(s->db, 5000);
    sqlite3_progress_handler(s->db, 1000, on_progress, s);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    EXPECT(bind(s->listener, (struct sockaddr *)&at, sizeof at) == 0);
    EXPECT(listen(s->listener, 16) == 0);
    EXPECT(getsockname(s->listener, (struct sockaddr *)&at, &size) == 0);
    s->port = ntohs(at.sin_port);
    (void)snprintf(s->address, sizeof s->address, "127.0.0.1:%u", s->port);
    s->stop_fd = eventfd(0, EFD_CLOEXEC);
    EXPECT(pthread_create(&s->thread, NULL, server_main, s) == 0);
    return s;
}

void server_stop(struct server *s)
{
    uint64_t one = 1;
    EXPECT(write(s->stop_fd, &one, sizeof one) == (ssize_t)sizeof one);
    EXPECT(pthread_join(s->thread, NULL) == 0);
    (void)close(s->listener);
    (void)close(s->stop_fd);
    EXPECT(sqlite3_close(s->db) == SQLITE_OK);
    buf_fini(&s->in);
    buf_fini(&s->out);
    free(s);
}

uint16_t server_port(const struct server *s)
{
    return s->port;
}

const char *server_address(const struct server *s)
{
    return s->address;
}

unsigned server_connections(struct server *s)
{
    return s->connections;
}

unsigned server_statements(struct server *s)
{
    return s->statements;
}

uint64_t server_min_seq(struct server *s)
{
    return s->min_seq;
}
