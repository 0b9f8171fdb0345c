/* Room: client.   Thread: any, under the lock of the session's cluster.   Owns: sessions.
 *
 * A session has no connection of its own: it is a stream (client/stream.h) on its cluster's links,
 * plus what SQLite's interface keeps for a connection: the last error, changes, the time limit.
 *
 * Handles carry a magic word. A session that was closed is freed memory, as in SQLite; of finalized
 * statements and batches the last GRAVES_MAX shells stay as long as the session, so that the usual
 * mistakes end in LECTERN_MISUSE.
 *
 * Invariants: cluster, once set, is set for life; the lock is held while anything else is read, but
 * for `interrupted` and `interrupts`.
 * Not here: statements (statement.c), waiting (run.c). */
#include "client/handle.h"

#include "base/check.h"
#include "base/clock.h"
#include "client/batch.h"
#include "client/codes.h"
#include "client/statement.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MAX_MS 86400000

/* --- handles --- */

bool session_enter(struct lectern *db)
{
    if (db == NULL || db->magic != SESSION_ALIVE || db->cluster == NULL)
        return false;
    cluster_lock(db->cluster);
    return true;
}

void session_leave(struct lectern_cluster *c)
{
    cluster_unlock(c);
}

bool handle_enter(struct handle *h, uint32_t magic, uint32_t dead)
{
    if (h == NULL || (h->magic != magic && h->magic != dead) || !session_enter(h->db))
        return false;
    if (h->magic == magic)
        return true;
    (void)session_fail(h->db, LECTERN_MISUSE, "the statement or batch was finalized already");
    session_leave(h->db->cluster);
    return false;
}

void handle_bury(struct handle *h, uint32_t magic)
{
    struct lectern *db = h->db;
    h->magic = magic;
    list_remove(&h->link);
    list_push_back(&db->graves, &h->link);
    if (++db->n_graves > GRAVES_MAX) {
        db->n_graves--;
        free(LIST_ENTRY(list_pop_front(&db->graves), struct handle, link));
    }
}

/* --- the last error --- */

static void set_error(struct lectern *db, int code, int offset)
{
    free(db->message);
    db->message = NULL;
    db->short_message[0] = '\0';
    db->code = code;
    db->offset = offset;
}

int session_ok(struct lectern *db)
{
    set_error(db, LECTERN_OK, -1);
    return LECTERN_OK;
}

int session_is(struct lectern *db, int code)
{
    set_error(db, code, -1);
    return code;
}

int session_fail(struct lectern *db, int code, const char *format, ...)
{
    set_error(db, code, -1);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(db->short_message, sizeof db->short_message, format, args);
    va_end(args);
    return code_primary(code);
}

/* TEXT and what to do about it; cut when there is no memory for it. */
static void set_sentence(struct lectern *db, const char *text, const char *advice)
{
    const char *glue = advice[0] == '\0' ? "" : "; ";
    size_t n = strlen(text) + strlen(glue) + strlen(advice) + 1;
    char *to = db->short_message;
    if (n > sizeof db->short_message) {
        db->message = malloc(n);
        to = db->message != NULL ? db->message : to;
        n = db->message != NULL ? n : sizeof db->short_message;
    }
    (void)snprintf(to, n, "%s%s%s", text, glue, advice);
}

int session_fail_err(struct lectern *db, enum err e)
{
    int code = code_of(e, 0);
    set_error(db, code, -1);
    set_sentence(db, e == ERR_NOMEM ? code_text(code) : err_text(), code_advice(code));
    return code_primary(code);
}

/* Where another try would end as this one did. */
static const char *advice_for(const struct lectern *db, const struct run *r)
{
    if (r->code == LECTERN_TIMEOUT && r->kind == CALL_READ && r->rows_seen)
        return "the rows before it are right, the rest was not read: fetch them without a pause "
               "of 10 seconds, or take fewer at a time";
    if (r->code == LECTERN_TIMEOUT && r->kind != CALL_WRITE && stream_is_ahead(db->stream))
        return "no node told of so new a transaction as lectern_set_position was given: is it of "
               "another cluster, or forged? lectern_set_position(db, 0) takes it back";
    return code_advice(r->code);
}

int session_ended(struct lectern *db, const struct run *r)
{
    int code = r->code;
    if (!r->ended) /* the loop itself failed */
        return session_fail_err(db, ERR_IO);
    set_error(db, code, r->offset);
    if (code != LECTERN_OK)
        set_sentence(db, r->message == NULL ? code_text(code) : r->message, advice_for(db, r));
    return code_primary(code);
}

void last_error_set(struct last_error *e, int code)
{
    free(e->message);
    *e = (struct last_error){.code = code, .offset = -1};
}

void session_save_error(struct lectern *db, struct last_error *e)
{
    *e = (struct last_error){.code = db->code, .offset = db->offset};
    e->message = db->message != NULL ? db->message : strdup(db->short_message);
    db->message = NULL;
    set_error(db, LECTERN_OK, -1);
}

void session_copy_error(const struct lectern *db, struct last_error *e)
{
    const char *text = db->message != NULL ? db->message : db->short_message;
    last_error_set(e, db->code);
    e->offset = db->offset;
    e->message = text[0] == '\0' ? NULL : strdup(text);
}

int session_restore_error(struct lectern *db, struct last_error *e)
{
    set_error(db, e->code, e->offset);
    db->message = e->message;
    *e = (struct last_error){0};
    return code_primary(db->code);
}

/* A sum of what nodes say: it may be nonsense, and goes round. */
void session_changed(struct lectern *db, int64_t rows)
{
    db->changes = rows;
    db->total_changes = (int64_t)((uint64_t)db->total_changes + (uint64_t)rows);
}

/* Without the lock when there is no cluster: then nobody else can know DB. */
static bool alive(const struct lectern *db)
{
    return db != NULL && db->magic == SESSION_ALIVE;
}

int lectern_extended_errcode(lectern *db)
{
    if (db == NULL)
        return LECTERN_NOMEM; /* as SQLite: there is no handle when there was no memory for it */
    if (!alive(db))
        return LECTERN_MISUSE;
    bool entered = session_enter(db);
    int code = db->code;
    if (entered)
        session_leave(db->cluster);
    return code;
}

int lectern_errcode(lectern *db)
{
    return code_primary(lectern_extended_errcode(db));
}

const char *lectern_errmsg(lectern *db)
{
    if (!alive(db))
        return code_text(lectern_errcode(db));
    bool entered = session_enter(db);
    const char *text = db->message;
    if (text == NULL || text[0] == '\0')
        text = db->short_message[0] != '\0' ? db->short_message : code_text(db->code);
    if (entered)
        session_leave(db->cluster);
    return text;
}

int lectern_error_offset(lectern *db)
{
    if (!session_enter(db))
        return -1;
    int offset = db->code == LECTERN_OK ? -1 : db->offset;
    session_leave(db->cluster);
    return offset;
}

/* --- the life of a session --- */

struct lectern *session_alloc(void)
{
    struct lectern *db = calloc(1, sizeof *db);
    if (db == NULL)
        return NULL;
    db->magic = SESSION_ALIVE;
    db->offset = -1;
    list_init(&db->link);
    list_init(&db->statements);
    list_init(&db->batches);
    list_init(&db->runs);
    list_init(&db->graves);
    return db;
}

enum err session_join(struct lectern *db, struct lectern_cluster *c)
{
    const struct url *url = cluster_url(c);
    TRY(stream_new(c, &db->stream));
    db->timeout_ms = url->timeout_ms;
    db->level = url->level;
    db->bound_ms = url->bound_ms;
    db->cluster = c;
    list_push_back(&face_of(c)->sessions, &db->link);
    return ERR_OK;
}

void session_free(struct lectern *db)
{
    CHECK(db->n_runs == 0);
    CHECK(list_empty(&db->statements) && list_empty(&db->batches));
    if (db->stream != NULL)
        stream_free(db->stream);
    list_remove(&db->link);
    for (struct list *l; (l = list_pop_front(&db->graves)) != NULL;)
        free(LIST_ENTRY(l, struct handle, link));
    free(db->message);
    free(db->info);
    db->magic = SESSION_DEAD;
    free(db);
}

/* A cluster of its own. Without one, DB is only good for lectern_errmsg. */
static enum err connect_alone(struct lectern *db, const char *text)
{
    struct url *url = malloc(sizeof *url);
    if (url == NULL)
        return err_fail(ERR_NOMEM, "no memory for a URL");
    struct lectern_cluster *c = NULL;
    enum err e = url_parse(text, url);
    if (e == ERR_OK)
        e = cluster_new(url, &c);
    free(url);
    TRY(e);
    e = face_new(c);
    if (e == ERR_OK)
        e = session_join(db, c);
    if (e != ERR_OK) {
        face_free(c);
        cluster_free(c);
        return e;
    }
    db->owns_cluster = true;
    return ERR_OK;
}

/* Waits for the first answer of any node: then addresses, names and versions are right. */
static int greet(struct lectern *db)
{
    struct run *r;
    enum err e = run_new(db, WIRE_STATUS, CALL_READ, db, &r);
    if (e != ERR_OK)
        return session_fail_err(db, e);
    run_start(r);
    if (!run_wait_end(r))
        return session_fail(db, LECTERN_MISUSE, "closed while it was opened");
    if (r->code == LECTERN_UNAVAILABLE || r->code == LECTERN_TIMEOUT || r->code == LECTERN_IOERR)
        r->code = LECTERN_CANTOPEN;
    int code = session_ended(db, r);
    run_release(r);
    return code;
}

int lectern_open(const char *url, lectern **out)
{
    if (out == NULL)
        return LECTERN_MISUSE;
    struct lectern *db = *out = session_alloc();
    if (db == NULL)
        return LECTERN_NOMEM;
    if (url == NULL)
        return session_fail(db, LECTERN_MISUSE, "the URL is NULL");
    enum err e = connect_alone(db, url);
    if (e != ERR_OK) {
        (void)session_fail_err(db, e);
        if (e == ERR_CONFIG || e == ERR_NOT_FOUND)
            db->code = LECTERN_CANTOPEN;
        return code_primary(db->code);
    }
    cluster_lock(db->cluster);
    int code = greet(db);
    session_leave(db->cluster);
    return code;
}

/* Those that were closed do not count: what they asked was cancelled, and ends soon. */
static bool others_use_cluster(const struct lectern *db)
{
    LIST_EACH(l, &face_of(db->cluster)->sessions) {
        const struct lectern *other = LIST_ENTRY(l, struct lectern, link);
        if (other != db && !other->closing)
            return true;
    }
    return false;
}

/* The last session of its cluster: both go. */
static void close_alone(struct lectern *db)
{
    struct lectern_cluster *c = db->cluster;
    while (db->n_runs > 0 || cluster_sessions(c) > 1)
        if (face_turn_alone(c) != ERR_OK)
            break;
    if (db->n_runs > 0 || cluster_sessions(c) > 1) {
        cluster_unlock(c); /* the loop is broken: better to leak than to free what it points to */
        return;
    }
    session_free(db);
    /* What the stream's end put into the links leaves now, or with the connection. */
    enum err flushed = face_turn(c);
    (void)flushed;
    face_free(c);
    cluster_unlock(c);
    cluster_free(c);
}

int lectern_close(lectern *db)
{
    if (db == NULL)
        return LECTERN_OK;
    if (!alive(db))
        return LECTERN_MISUSE;
    if (db->cluster == NULL) {
        session_free(db);
        return LECTERN_OK;
    }
    struct lectern_cluster *c = db->cluster;
    cluster_lock(c);
    int code = LECTERN_OK;
    if (!list_empty(&db->statements) || !list_empty(&db->batches))
        code = session_fail(db, LECTERN_BUSY,
                            "unable to close due to unfinalized statements or batches");
    else if (db->calls > 0)
        code = session_fail(db, LECTERN_BUSY, "a call of this session is under way");
    else if (db->owns_cluster && others_use_cluster(db))
        code = session_fail(db, LECTERN_BUSY, "other sessions use this one's cluster");
    else if (db->owns_cluster && face_tells_here(face_of(c)))
        code = session_fail(db, LECTERN_MISUSE,
                            "a session of lectern_open cannot be closed in its own callback");
    else if (db->owns_cluster && face_is_in_use(face_of(c)))
        code = session_fail(db, LECTERN_BUSY, "another thread uses this session's cluster");
    if (code != LECTERN_OK) {
        session_leave(c);
        return code;
    }
    db->closing = true;
    if (db->owns_cluster) {
        close_alone(db);
        return LECTERN_OK;
    }
    db->magic = SESSION_DEAD;
    if (db->n_runs == 0)
        session_free(db); /* else when the last run has ended */
    session_leave(c);
    return LECTERN_OK;
}

/* --- settings and facts --- */

int lectern_timeout(lectern *db, int64_t ms)
{
    if (!session_enter(db))
        return LECTERN_MISUSE;
    int code;
    if (ms < 1 || ms > TIMEOUT_MAX_MS) {
        code = session_fail(db, LECTERN_MISUSE, "a time limit is 1 to %d milliseconds",
                            TIMEOUT_MAX_MS);
    } else {
        db->timeout_ms = (uint64_t)ms;
        code = session_ok(db);
    }
    session_leave(db->cluster);
    return code;
}

int lectern_read_level(lectern *db, int level, int64_t bound_ms)
{
    static const enum wire_level levels[] = {
        [LECTERN_READ_ANY] = WIRE_ANY,
        [LECTERN_READ_BOUNDED] = WIRE_BOUNDED,
        [LECTERN_READ_SESSION] = WIRE_SESSION,
        [LECTERN_READ_STRONG] = WIRE_STRONG,
    };
    if (!session_enter(db))
        return LECTERN_MISUSE;
    int code;
    if (level < LECTERN_READ_ANY || level > LECTERN_READ_STRONG) {
        code = session_fail(db, LECTERN_MISUSE, "there is no read level %d", level);
    } else if (bound_ms < 0 || bound_ms > UINT32_MAX) {
        code = session_fail(db, LECTERN_MISUSE, "a bound is 0 to %" PRIu32 " milliseconds",
                            UINT32_MAX);
    } else {
        db->level = levels[level];
        db->bound_ms = level == LECTERN_READ_BOUNDED ? (uint32_t)bound_ms : 0;
        code = session_ok(db);
    }
    session_leave(db->cluster);
    return code;
}

void lectern_interrupt(lectern *db)
{
    if (!alive(db) || db->cluster == NULL)
        return;
    atomic_store(&db->interrupted, true);
    atomic_store(&face_of(db->cluster)->interrupted, true);
    loop_wake(cluster_loop(db->cluster));
}

void session_heed_interrupt(struct lectern *db)
{
    if (!atomic_exchange(&db->interrupted, false))
        return;
    db->interrupts++;
    LIST_EACH(l, &db->statements) {
        statement_interrupt(
            (struct lectern_stmt *)LIST_ENTRY(l, struct handle, link)); /* handle is first */
    }
    LIST_EACH(l, &db->batches) {
        batch_interrupt(batch_of_link(l));
    }
    LIST_EACH(l, &db->runs) {
        run_cancel(LIST_ENTRY(l, struct run, link));
    }
}

bool session_pause(struct lectern *db, uint64_t until_ms)
{
    unsigned interrupts = db->interrupts;
    enum err e = ERR_OK;
    struct waiter w;
    waiter_begin(&w, db->cluster);
    db->calls++;
    while (e == ERR_OK && clock_mono_ms() < until_ms && db->interrupts == interrupts)
        e = waiter_wait(&w, until_ms);
    db->calls--;
    waiter_end(&w);
    return e == ERR_OK && db->interrupts == interrupts;
}

bool session_may_run(struct lectern *db)
{
    if (!db->lost_in_body)
        return true;
    (void)session_fail(db, LECTERN_TXN_LOST,
                       "the transaction was lost: return from its function, it is begun again");
    return false;
}

/* What an int64 of DB is, 0 for no session. */
#define SESSION_NUMBER(type, name, expr)                                                           \
    type name(lectern *db)                                                                         \
    {                                                                                              \
        if (!session_enter(db))                                                                    \
            return 0;                                                                              \
        type v = (expr);                                                                           \
        session_leave(db->cluster);                                                                \
        return v;                                                                                  \
    }

SESSION_NUMBER(int64_t, lectern_changes, db->changes)
SESSION_NUMBER(int64_t, lectern_total_changes, db->total_changes)
SESSION_NUMBER(int64_t, lectern_last_insert_rowid, stream_last_insert_rowid(db->stream))
SESSION_NUMBER(int, lectern_get_autocommit, !stream_in_transaction(db->stream))
SESSION_NUMBER(uint64_t, lectern_position, stream_position(db->stream))

int lectern_set_position(lectern *db, uint64_t position)
{
    if (!session_enter(db))
        return LECTERN_MISUSE;
    stream_set_position(db->stream, position);
    int code = session_ok(db);
    session_leave(db->cluster);
    return code;
}

/* In NUMBER's room, or where another session's turn may change it. */
static const char *info_of(const struct lectern *db, int what, char number[24])
{
    uint64_t n = 0;
    number[0] = '\0';
    switch (what) {
    case LECTERN_INFO_ADDRESS:
        return stream_address(db->stream);
    case LECTERN_INFO_NODE:
        n = stream_node(db->stream);
        if (n != 0)
            (void)snprintf(number, 24, "%" PRIu64, n);
        return number;
    case LECTERN_INFO_SERVER:
        return stream_server_version(db->stream);
    case LECTERN_INFO_SQLITE:
        return stream_sqlite_version(db->stream);
    case LECTERN_INFO_CLUSTER:
        n = cluster_id(db->cluster);
        if (n != 0)
            (void)snprintf(number, 24, "%016" PRIx64, n);
        return number;
    default:
        return number;
    }
}

const char *lectern_info(lectern *db, int what)
{
    char number[24];
    if (!session_enter(db))
        return "";
    free(db->info);
    db->info = strdup(info_of(db, what, number));
    const char *text = db->info == NULL ? "" : db->info;
    session_leave(db->cluster);
    return text;
}

_Static_assert(LECTERN_VERSION_NUMBER == 1000, "lectern_libversion says so, too");

const char *lectern_libversion(void)
{
    return "0.1.0";
}
