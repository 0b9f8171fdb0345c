/* Room: client.   Thread: one at a time; conn_cancel from any, also from a signal handler.
 * Owns: the socket, the bytes on their way in and out, the last error.
 *
 * Invariants: one request is outstanding at most; after an answer that is not whole the socket is
 * closed, so no later answer is ever mistaken for another's; a statement goes out a second time
 * only when the first cannot have changed anything.
 *
 * Not here: addresses and waiting (dial.c), frames (wire.c), what a statement is
 * (statement_kind.c). */
#include "client/connection.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/sizes.h"
#include "client/dial.h"
#include "client/statement_kind.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES   KIB(64)
#define KEEP_BYTES   MIB(1) /* an input buffer above this is given back after its frame */
#define MESSAGE_MAX  KIB(64)
#define VERSION_TEXT 64
#define STREAM       1u

struct conn {
    char *list; /* the addresses below point into it */
    const char *addresses[CONN_ADDRESSES_MAX];
    size_t n_addresses, at;
    char *client;
    uint32_t connect_ms, silence_ms;
    int fd, wake_fd;
    struct buf in, out;
    size_t in_at, out_at; /* what was taken out of each */
    uint32_t request;
    uint64_t seq, node_id, cluster_id;
    bool in_transaction, no_foreign_keys;
    int64_t last_insert_rowid;
    uint32_t taken; /* bytes of ROWS since the last CREDIT */
    char server[VERSION_TEXT], sqlite[VERSION_TEXT];
    struct conn_error error;
    struct buf message;
};

/* One request and what has happened to it. */
struct exchange {
    uint32_t request;
    const struct conn_query *query;     /* one of the two, or none: STATUS */
    const struct wire_cluster *cluster; /* its timeout is set */
    enum statement_kind kind;
    uint32_t silence_ms;
    const struct conn_handler *h;
    struct wire_done *done;
    struct wire_value *values; /* one row; n_columns of them */
    uint32_t n_columns;
    uint64_t deadline;
    bool sent_whole; /* the server may have it all, and may run it */
    bool handed_on;  /* the handler has seen something */
    bool answered;   /* DONE or ERROR came: the outcome is known */
    bool cancelled;
    enum err stopped; /* the handler's error: the rest of the answer is dropped */
};

static struct wire_id the_id(const struct exchange *x)
{
    return (struct wire_id){.stream = STREAM, .request = x->request};
}

/* --- errors ----------------------------------------------------------------------------------- */

static enum err keep_error(struct conn *c, enum err code, int32_t sqlite_code, int32_t offset,
                           const char *text, size_t n)
{
    buf_reset(&c->message);
    buf_put(&c->message, text, n < MESSAGE_MAX - 1 ? n : MESSAGE_MAX - 1);
    buf_put_u8(&c->message, 0);
    c->error = (struct conn_error){
        .code = code,
        .sqlite_code = sqlite_code,
        .offset = offset,
        .message = buf_status(&c->message) == ERR_OK ? (const char *)c->message.data
                                                     : err_default_text((int)code),
    };
    return err_fail(code, "%s", c->error.message);
}

/* An error that was found here: this thread's sentence. */
static enum err keep_own(struct conn *c, enum err code)
{
    char text[ERR_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s", err_text());
    return keep_error(c, code, 0, -1, text, strlen(text));
}

/* --- connecting ------------------------------------------------------------------------------- */

static void drop(struct conn *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
    buf_reset(&c->in);
    buf_reset(&c->out);
    c->in_at = c->out_at = 0;
    c->node_id = 0;
}

static enum err flush(struct conn *c)
{
    while (c->out_at < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at, MSG_NOSIGNAL);
        if (n >= 0)
            c->out_at += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return ERR_OK;
        else if (errno != EINTR)
            return err_fail(ERR_CLOSED, "send: %s", strerror(errno));
    }
    buf_reset(&c->out);
    c->out_at = 0;
    return ERR_OK;
}

static enum err fill(struct conn *c)
{
    if (c->in_at > 0) {
        buf_consume(&c->in, c->in_at);
        c->in_at = 0;
        if (c->in.len == 0 && c->in.cap > KEEP_BYTES) {
            size_t max = c->in.max;
            buf_fini(&c->in);
            buf_init(&c->in, max);
        }
    }
    size_t got;
    return dial_receive(c->fd, &c->in, READ_BYTES, "the server", &got);
}

static enum err next_frame(struct conn *c, struct wire_frame *f, bool *got)
{
    size_t used;
    *got = false;
    if (c->in_at == c->in.len)
        return ERR_OK;
    TRY(wire_next(c->in.data + c->in_at, c->in.len - c->in_at, WIRE_FRAME_MAX, f, &used));
    c->in_at += used;
    *got = used != 0;
    return ERR_OK;
}

static void keep_text(char *to, size_t room, const char *from, size_t n)
{
    (void)snprintf(to, room, "%.*s", (int)(n < room ? n : room - 1), n == 0 ? "" : from);
}

static enum err take_welcome(struct conn *c, struct wire_frame *f)
{
    struct wire_welcome w;
    struct wire_error e;
    if (f->type == WIRE_ERROR) {
        TRY(wire_get_error(f, &e));
        return err_fail(e.code, "%.*s", (int)(e.message_len < 400 ? e.message_len : 400),
                        e.message);
    }
    if (f->type != WIRE_WELCOME)
        return err_fail(ERR_PROTOCOL, "the server did not say WELCOME");
    TRY(wire_get_welcome(f, &w));
    /* Sequences of two clusters have nothing to do with each other. */
    if (c->cluster_id != 0 && w.cluster_id != c->cluster_id)
        return err_fail(ERR_CONFIG, "belongs to another cluster than the node before");
    c->cluster_id = w.cluster_id;
    c->node_id = w.node_id;
    keep_text(c->server, sizeof c->server, w.server, w.server_len);
    keep_text(c->sqlite, sizeof c->sqlite, w.sqlite, w.sqlite_len);
    return ERR_OK;
}

static enum err handshake(struct conn *c, uint64_t deadline)
{
    struct wire_frame f;
    bool got = false;
    short ready;
    wire_put_hello(&c->out, c->client, "");
    TRY(buf_status(&c->out));
    for (;;) {
        TRY(flush(c));
        TRY(next_frame(c, &f, &got));
        if (got)
            return take_welcome(c, &f);
        short events = (short)(c->out.len > 0 ? POLLIN | POLLOUT : POLLIN);
        TRY(dial_wait(c->fd, events, c->wake_fd, deadline, &ready));
        if ((ready & ~POLLOUT) != 0)
            TRY(fill(c));
    }
}

/* Tries every address once, the current one first. The sentence names what each said. */
static enum err connect_any(struct conn *c)
{
    char said[ERR_TEXT_MAX] = "";
    enum err err = ERR_CLOSED;
    for (size_t i = 0; i < c->n_addresses; i++) {
        const char *address = c->addresses[c->at];
        uint64_t deadline = clock_mono_ms() + c->connect_ms;
        err = dial(address, deadline, c->wake_fd, &c->fd);
        if (err == ERR_OK)
            err = handshake(c, deadline);
        if (err == ERR_OK)
            return ERR_OK;
        drop(c);
        if (err == ERR_CANCELLED)
            return err;
        size_t used = strlen(said);
        bool named = strncmp(err_text(), address, strlen(address)) == 0;
        (void)snprintf(said + used, sizeof said - used, "%s%s%s%s", i == 0 ? "" : "; ",
                       named ? "" : address, named ? "" : ": ", err_text());
        c->at = (c->at + 1) % c->n_addresses;
    }
    if (err != ERR_VERSION && err != ERR_CONFIG)
        err = ERR_CLOSED;
    return err_fail(err, "no node can be reached: %s", said);
}

static enum err split_list(struct conn *c)
{
    char *rest = c->list, *one;
    while ((one = strsep(&rest, ",")) != NULL) {
        one += strspn(one, " ");
        one[strcspn(one, " ")] = '\0';
        if (*one == '\0')
            continue;
        if (c->n_addresses == CONN_ADDRESSES_MAX)
            return err_fail(ERR_CONFIG, "more than %d addresses", CONN_ADDRESSES_MAX);
        c->addresses[c->n_addresses++] = one;
    }
    return c->n_addresses > 0 ? ERR_OK : err_fail(ERR_CONFIG, "no address");
}

enum err conn_open(const struct conn_options *o, struct conn **out)
{
    struct conn *c = *out = calloc(1, sizeof *c);
    if (c == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    c->fd = -1;
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->list = strdup(o->addresses);
    c->client = strdup(o->client);
    c->connect_ms = o->connect_ms != 0 ? o->connect_ms : CONN_CONNECT_MS;
    c->silence_ms = o->silence_ms != 0 ? o->silence_ms : CONN_SILENCE_MS;
    buf_init(&c->in, WIRE_FRAME_MAX + WIRE_LENGTH_BYTES + READ_BYTES);
    buf_init(&c->out, WIRE_FRAME_MAX + KIB(1));
    buf_init(&c->message, MESSAGE_MAX);
    if (c->wake_fd < 0 || c->list == NULL || c->client == NULL) {
        conn_close(c);
        *out = NULL;
        return err_fail(ERR_NOMEM, "out of memory or file descriptors");
    }
    enum err err = split_list(c);
    if (err == ERR_OK)
        err = connect_any(c);
    return err == ERR_OK ? ERR_OK : keep_own(c, err);
}

void conn_close(struct conn *c)
{
    if (c == NULL)
        return;
    drop(c);
    if (c->wake_fd >= 0)
        (void)close(c->wake_fd);
    buf_fini(&c->in);
    buf_fini(&c->out);
    buf_fini(&c->message);
    free(c->list);
    free(c->client);
    free(c);
}

/* --- one request ------------------------------------------------------------------------------ */

void conn_cancel(struct conn *c)
{
    uint64_t one = 1;
    int saved = errno; /* we may be in a signal handler */
    ssize_t n = write(c->wake_fd, &one, sizeof one);
    (void)n; /* a full counter is a cancel that is already there */
    errno = saved;
}

static bool take_cancel(struct conn *c)
{
    uint64_t count;
    return read(c->wake_fd, &count, sizeof count) == (ssize_t)sizeof count;
}

static void ask_to_cancel(struct conn *c, struct exchange *x)
{
    x->cancelled = true;
    x->deadline = clock_mono_ms() + CONN_GRACE_MS;
    wire_put_cancel(&c->out, the_id(x));
}

/* What the handler says about an answer's part; its first error ends the request. */
static void heard(struct conn *c, struct exchange *x, enum err err)
{
    x->handed_on = true;
    if (err == ERR_OK)
        return;
    x->stopped = keep_own(c, err);
    if (!x->cancelled)
        ask_to_cancel(c, x);
}

static enum err take_columns(struct conn *c, struct exchange *x, struct rd *r)
{
    uint32_t n = rd_u32(r);
    if (x->n_columns != 0 || n == 0 || n > rd_left(r) / 8)
        return err_fail(ERR_PROTOCOL, "COLUMNS that make no sense");
    struct conn_column *columns = calloc(n, sizeof *columns);
    x->values = calloc(n, sizeof *x->values);
    enum err err = ERR_OK;
    if (columns == NULL || x->values == NULL)
        err = err_fail(ERR_NOMEM, "out of memory for %u columns", n);
    for (uint32_t i = 0; err == ERR_OK && i < n; i++) {
        columns[i].name = rd_str(r, &columns[i].name_len);
        columns[i].type = rd_str(r, &columns[i].type_len);
    }
    if (err == ERR_OK && (r->failed || rd_left(r) != 0))
        err = err_fail(ERR_PROTOCOL, "COLUMNS of a wrong length");
    if (err == ERR_OK) {
        x->n_columns = n;
        if (x->stopped == ERR_OK && x->h != NULL && x->h->columns != NULL)
            heard(c, x, x->h->columns(x->h->arg, columns, n));
    }
    free(columns);
    return err;
}

static enum err take_rows(struct conn *c, struct exchange *x, struct rd *r)
{
    uint32_t rows = rd_u32(r);
    if (x->n_columns == 0)
        return err_fail(ERR_PROTOCOL, "ROWS before COLUMNS");
    for (uint32_t i = 0; i < rows; i++) {
        for (uint32_t k = 0; k < x->n_columns; k++)
            TRY(wire_get_value(r, &x->values[k]));
        if (x->stopped == ERR_OK && x->h != NULL && x->h->row != NULL)
            heard(c, x, x->h->row(x->h->arg, x->values, x->n_columns));
    }
    if (r->failed || rd_left(r) != 0)
        return err_fail(ERR_PROTOCOL, "ROWS of a wrong length");
    return ERR_OK;
}

static enum err take_error(struct conn *c, struct exchange *x, struct wire_frame *f)
{
    struct wire_error e;
    bool ours = f->id.request == x->request;
    TRY(wire_get_error(f, &e));
    /* Request 0 is about the connection, and says nothing about what became of ours. */
    if (!ours)
        return err_fail(ERR_CLOSED, "the server ended the connection: %.*s",
                        (int)(e.message_len < 400 ? e.message_len : 400), e.message);
    x->answered = true;
    c->in_transaction = (e.flags & WIRE_IN_TRANSACTION) != 0;
    c->seq = e.seq > c->seq ? e.seq : c->seq; /* a constraint's error tells what is stored */
    if (x->stopped != ERR_OK)
        return x->stopped;
    if (e.message_len == 0)
        return keep_error(c, e.code, e.sqlite_code, e.offset, err_default_text((int)e.code),
                          strlen(err_default_text((int)e.code)));
    return keep_error(c, e.code, e.sqlite_code, e.offset, e.message, e.message_len);
}

/* The server may send so many more bytes. */
static enum err give_credit(struct conn *c)
{
    if (c->taken < WIRE_WINDOW / 2)
        return ERR_OK;
    wire_put_credit(&c->out, STREAM, c->taken);
    c->taken = 0;
    return flush(c);
}

static enum err take_frame(struct conn *c, struct exchange *x, struct wire_frame *f)
{
    struct wire_done d;
    if (f->type == WIRE_ERROR && (f->id.request == x->request || f->id.request == 0))
        return take_error(c, x, f);
    if (f->id.request != x->request)
        return err_fail(ERR_PROTOCOL, "an answer to request %u, we wait for %u", f->id.request,
                        x->request);
    if (f->type == WIRE_COLUMNS)
        return take_columns(c, x, &f->body);
    if (f->type == WIRE_ROWS) {
        c->taken += (uint32_t)rd_left(&f->body) + WIRE_HEAD_BYTES;
        TRY(take_rows(c, x, &f->body));
        return give_credit(c);
    }
    if (f->type != WIRE_DONE)
        return err_fail(ERR_PROTOCOL, "a frame of type %d from a server", (int)f->type);
    TRY(wire_get_done(f, &d));
    x->answered = true;
    c->in_transaction = (d.flags & WIRE_IN_TRANSACTION) != 0;
    c->no_foreign_keys = (d.flags & WIRE_NO_FOREIGN_KEYS) != 0;
    c->last_insert_rowid = x->query != NULL ? d.last_insert_rowid : c->last_insert_rowid;
    c->seq = d.seq > c->seq ? d.seq : c->seq;
    if (x->done != NULL)
        *x->done = d;
    return x->stopped;
}

static enum err wait_some(struct conn *c, struct exchange *x)
{
    short ready;
    short events = (short)(c->out.len > 0 ? POLLIN | POLLOUT : POLLIN);
    enum err err = dial_wait(c->fd, events, c->wake_fd, x->deadline, &ready);
    if (err == ERR_CANCELLED && take_cancel(c) && !x->cancelled) {
        ask_to_cancel(c, x);
        return flush(c);
    }
    TRY(err);
    /* First what the server says: it may explain why it does not take more. But a flood of rows
     * must not keep a CANCEL back. */
    if ((ready & ~POLLOUT) != 0)
        TRY(fill(c));
    if ((ready & POLLOUT) != 0)
        TRY(flush(c));
    if (!x->cancelled)
        x->deadline = clock_mono_ms() + x->silence_ms;
    return ERR_OK;
}

/* Sends what is in `out` and takes the answer. Unless x->answered, the connection is of no more
 * use. */
static enum err talk(struct conn *c, struct exchange *x)
{
    struct wire_frame f;
    bool got;
    x->deadline = clock_mono_ms() + x->silence_ms;
    TRY(buf_status(&c->out));
    TRY(flush(c));
    while (!x->answered) {
        x->sent_whole = x->sent_whole || c->out.len == 0;
        TRY(next_frame(c, &f, &got));
        if (!got)
            TRY(wait_some(c, x));
        else if (f.type == WIRE_ERROR || f.type == WIRE_DONE)
            return take_frame(c, x, &f);
        else
            TRY(take_frame(c, x, &f));
    }
    return ERR_OK;
}

/* The socket ended while nothing was asked: find out before a request goes into the void. */
static bool gone(struct conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    return c->fd >= 0 && poll(&p, 1, 0) > 0; /* data without a request is no good either */
}

static enum err be_connected(struct conn *c)
{
    if (gone(c))
        drop(c);
    if (c->fd >= 0)
        return ERR_OK;
    if (c->in_transaction) {
        c->in_transaction = false;
        return err_fail(ERR_TXN_LOST,
                        "the connection to %s was lost, and with it the open "
                        "transaction; nothing of it was written",
                        c->addresses[c->at]);
    }
    return connect_any(c);
}

/* The connection is lost in the middle of X: what may the caller believe? */
static enum err explain_loss(struct conn *c, const struct exchange *x, enum err cause)
{
    char why[ERR_TEXT_MAX];
    const char *address = c->addresses[c->at];
    bool in_transaction = c->in_transaction;
    (void)snprintf(why, sizeof why, "%.300s", err_text());
    c->in_transaction = false;
    if (x->sent_whole && x->kind == STATEMENT_COMMIT && in_transaction)
        return err_fail(ERR_UNKNOWN,
                        "the connection to %s was lost during COMMIT (%s): the "
                        "transaction may or may not be written; look before you "
                        "repeat it",
                        address, why);
    if (in_transaction)
        return err_fail(ERR_TXN_LOST,
                        "the connection to %s was lost (%s), and with it the open "
                        "transaction; nothing of it was written",
                        address, why);
    if (x->sent_whole && x->kind == STATEMENT_WRITE)
        return err_fail(ERR_UNKNOWN,
                        "the connection to %s was lost (%s): the statement may or may "
                        "not be done; look before you repeat it",
                        address, why);
    return err_fail(cause, "%s: %s", address, why);
}

static bool may_repeat(const struct conn *c, const struct exchange *x, enum err err)
{
    if (c->in_transaction || x->handed_on || x->cancelled)
        return false;
    if (x->answered && x->cluster != NULL && err == ERR_STOPPED)
        return true; /* a node that failed, or was removed: others may know the leader */
    if (x->answered)
        return err_retry_class((int)err) == ERR_RETRY_LEADER;
    return err == ERR_CLOSED &&
           (!x->sent_whole || x->kind == STATEMENT_READ || x->kind == STATEMENT_BEGIN);
}

static void put_request(struct conn *c, const struct exchange *x)
{
    const struct conn_query *q = x->query;
    if (x->cluster != NULL) {
        wire_put_cluster(&c->out, the_id(x), x->cluster);
    } else if (q == NULL) {
        wire_put_status(&c->out, the_id(x));
    } else {
        struct wire_query w = {.level = q->level,
                               .bound_ms = q->bound_ms,
                               .timeout_ms = q->timeout_ms,
                               .min_seq = q->level == WIRE_SESSION ? c->seq : 0,
                               .last_insert_rowid = c->last_insert_rowid,
                               .flags = c->no_foreign_keys ? WIRE_FOREIGN_KEYS_OFF : 0};
        size_t begun = wire_begin_query(&c->out, WIRE_QUERY, the_id(x), &w);
        size_t statement = wire_begin_statement(&c->out, 0, q->sql, q->sql_len);
        for (uint32_t i = 0; i < q->n_params; i++)
            wire_put_param(&c->out, q->params[i].name, &q->params[i].value);
        wire_end_statement(&c->out, statement, q->n_params);
        wire_end_query(&c->out, begun, 1);
    }
}

/* Runs a request, at other addresses too where that is safe. */
static enum err run(struct conn *c, struct exchange *plan)
{
    for (size_t tries = 1;; tries++) {
        struct exchange x = *plan;
        enum err err = be_connected(c);
        if (err != ERR_OK)
            return keep_own(c, err);
        x.request = c->request = c->request % UINT32_MAX + 1;
        put_request(c, &x);
        if (buf_status(&c->out) != ERR_OK) {
            err = err_fail(buf_status(&c->out), "the statement and its values are too large");
            buf_reset(&c->out);
            return keep_own(c, err);
        }
        err = talk(c, &x);
        free(x.values);
        bool again = err != ERR_OK && tries < c->n_addresses + 1 && may_repeat(c, &x, err);
        if (x.answered && !again && x.sent_whole)
            return err;
        if (!x.answered && !again)
            err = x.stopped != ERR_OK && !c->in_transaction ? x.stopped /* kept already */
                                                            : keep_own(c, explain_loss(c, &x, err));
        drop(c);
        if (!again)
            return err;
        c->at = (c->at + 1) % c->n_addresses;
    }
}

enum err conn_query(struct conn *c, const struct conn_query *q, const struct conn_handler *h,
                    struct wire_done *done)
{
    struct exchange x = {
        .query = q, .kind = statement_kind(q->sql, q->sql_len), .h = h, .done = done};
    if (q->timeout_ms == 0)
        x.silence_ms = c->silence_ms;
    else /* the server ends it first, if it is there */
        x.silence_ms =
            q->timeout_ms < UINT32_MAX - CONN_GRACE_MS ? q->timeout_ms + CONN_GRACE_MS : UINT32_MAX;
    (void)take_cancel(c); /* one that came too late for its request */
    /* The server would close the connection over these. */
    if (q->n_params > SQL_PARAMS_MAX)
        return keep_own(c, err_fail(ERR_TOO_BIG, "%u parameters; the limit is %u", q->n_params,
                                    SQL_PARAMS_MAX));
    if (q->sql_len > SQL_TEXT_MAX)
        return keep_own(c, err_fail(ERR_TOO_BIG, "a statement of %zu bytes; the limit is %llu",
                                    q->sql_len, SQL_TEXT_MAX));
    return run(c, &x);
}

enum err conn_status(struct conn *c, const struct conn_handler *h)
{
    struct exchange x = {.kind = STATEMENT_READ, .h = h, .silence_ms = CONN_GRACE_MS};
    (void)take_cancel(c);
    return run(c, &x);
}

enum err conn_cluster(struct conn *c, const struct wire_cluster *w, const struct conn_handler *h)
{
    struct exchange x = {
        .cluster = w, .kind = STATEMENT_WRITE, .h = h, .silence_ms = w->timeout_ms + CONN_GRACE_MS};
    (void)take_cancel(c);
    return run(c, &x);
}

const struct conn_error *conn_error(const struct conn *c)
{
    return &c->error;
}

bool conn_in_transaction(const struct conn *c)
{
    return c->in_transaction;
}

uint64_t conn_seq(const struct conn *c)
{
    return c->seq;
}

const char *conn_address(const struct conn *c)
{
    return c->fd < 0 ? "" : c->addresses[c->at];
}

uint64_t conn_node(const struct conn *c)
{
    return c->node_id;
}

const char *conn_server_version(const struct conn *c)
{
    return c->server;
}

const char *conn_sqlite_version(const struct conn *c)
{
    return c->sqlite;
}
