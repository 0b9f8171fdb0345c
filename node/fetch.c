/* Room: node. Thread: the fetching thread, but what is marked ON_LOOP.
 * Owns: the connection to the other node, the half-made database (repl_fetch), the thread.
 * Invariants: everything that comes from the other node is checked where it is used, and the whole
 *   by its checksum before it is called complete; nothing is called main.db here. `lock` guards the
 *   sources and the progress, nothing else is shared. The wake_fd, once written, ends every wait.
 *
 * One attempt, with one source:
 *
 *     connect -> IMAGE_BEGIN -> rounds: hashes of all pages, then the pages that differ, while the
 *     other node's database changes -> little differs: IMAGE_BEGIN (pinned), a last round from that
 *     one state -> close the connection -> verify -> COMPLETE
 *
 * After any error the next source is tried, and what was fetched is made use of: each attempt
 * begins with hashes. Never given up, for a node without its database has nothing better to do.
 *
 * Not here: the files (replication/fetch.c), what is done with them (startup.c). */
#include "node/fetch.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "client/image_client.h"
#include "node/config.h"
#include "node/record.h"
#include "replication/replication.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LAST_ROUND_BYTES MIB(64) /* so little is left that one pinned image may serve it */
#define ROUNDS_MAX       8       /* and then the last one, however much is left */
#define VERIFIES_MAX     3       /* with one source */
#define PAUSE_MIN_MS     200
#define PAUSE_MAX_MS     10000
#define FULL_PAUSE_MS    2000 /* between two looks at a full disk */
#define LOG_EVERY_MS     5000

/* A source as the thread sees it. */
struct candidate {
    struct fetch_source source;
    uint64_t not_before_ms, pause_ms; /* after an error */
};

struct fetch {
    struct letter letter; /* first: LOOP_FETCHED */
    struct fetch_config config;
    char *path, *contacts;
    pthread_t thread;
    int wake_fd;

    pthread_mutex_t lock;
    struct candidate candidates[FETCH_SOURCES_MAX];
    unsigned n_candidates;
    struct fetch_progress progress;

    _Atomic bool cancelled;
    enum err result;
    char sentence[ERR_TEXT_MAX];

    /* The thread's. */
    struct repl_fetch *files; /* NULL: not begun */
    uint32_t page_size;       /* of `files` */
    struct image_client *client;
    uint64_t bytes_before, logged_ms; /* of earlier connections */
    uint32_t *differing;              /* page numbers */
    size_t n_differing, room;
};

/* --- progress --------------------------------------------------------------------------------- */

static void set_phase(struct fetch *f, enum fetch_phase phase, unsigned round, uint32_t pages)
{
    (void)pthread_mutex_lock(&f->lock);
    f->progress.phase = phase;
    f->progress.round = round;
    f->progress.pages = pages;
    f->progress.pages_done = 0;
    (void)pthread_mutex_unlock(&f->lock);
}

static void set_done(struct fetch *f, uint32_t done)
{
    uint64_t now = clock_mono_ms();
    (void)pthread_mutex_lock(&f->lock);
    f->progress.pages_done = done;
    f->progress.bytes = f->bytes_before + (f->client == NULL ? 0 : image_client_bytes(f->client));
    struct fetch_progress p = f->progress;
    (void)pthread_mutex_unlock(&f->lock);
    if (now < f->logged_ms + LOG_EVERY_MS)
        return;
    f->logged_ms = now;
    log_info("fetch", "progress from=%" PRIu64 " phase=%d round=%u done=%u of=%u bytes=%" PRIu64,
             p.from, (int)p.phase, p.round, p.pages_done, p.pages, p.bytes);
}

static bool on_hashing(void *ctx, uint32_t done, uint32_t total)
{
    struct fetch *f = ctx;
    (void)pthread_mutex_lock(&f->lock);
    f->progress.pages = total;
    (void)pthread_mutex_unlock(&f->lock);
    set_done(f, done);
    return !f->cancelled;
}

void fetch_get_progress(struct fetch *f, struct fetch_progress *out)
{
    (void)pthread_mutex_lock(&f->lock);
    *out = f->progress;
    (void)pthread_mutex_unlock(&f->lock);
}

void fetch_describe(struct fetch *f, char *sentence)
{
    struct fetch_progress p;
    char from[40] = "another node";
    fetch_get_progress(f, &p);
    if (p.from != 0)
        (void)snprintf(from, sizeof from, "node %" PRIu64, p.from);
    unsigned percent = p.pages == 0 ? 0 : (unsigned)((uint64_t)p.pages_done * 100 / p.pages);
    switch (p.phase) {
    case FETCH_SEARCHES:
        (void)snprintf(
            sentence, ERR_TEXT_MAX,
            "this node is fetching the database: it looks for a node to fetch it from%s%s",
            p.problem[0] == 0 ? "" : "; ", p.problem);
        return;
    case FETCH_LOOKS:
        (void)snprintf(sentence, ERR_TEXT_MAX,
                       "this node is fetching the database from %s: %u %% of what was here is "
                       "looked at",
                       from, percent);
        return;
    case FETCH_ROUND:
    case FETCH_LAST_ROUND:
        (void)snprintf(sentence, ERR_TEXT_MAX,
                       "this node is fetching the database from %s: %u %% of round %u, %u of %u "
                       "pages, %" PRIu64 " bytes%s",
                       from, percent, p.round, p.pages_done, p.pages, p.bytes,
                       p.phase == FETCH_LAST_ROUND ? ", the last round" : "");
        return;
    case FETCH_VERIFIES:
        (void)snprintf(sentence, ERR_TEXT_MAX,
                       "this node is fetching the database from %s: all %u pages are here and are "
                       "read back",
                       from, p.pages);
        return;
    }
}

/* --- one attempt ------------------------------------------------------------------------------ */

/* The image is of our database, and of a state that our log can go on from. */
static enum err judge_image(const struct fetch *f, const struct wire_image *w)
{
    if (w->database_id != f->config.database_id)
        return err_fail(ERR_CONFIG, "it has another database (id %" PRIu64 ")", w->database_id);
    if (w->index < f->config.index_min)
        return err_fail(ERR_NOT_FOUND,
                        "it is too far behind: at entry %" PRIu64 ", %" PRIu64 " is needed",
                        w->index, f->config.index_min);
    return ERR_OK;
}

/* The old database goes out of the way, once; pages of another size are of no use. */
static enum err open_files(struct fetch *f, uint32_t page_size)
{
    if (f->files != NULL && f->page_size == page_size)
        return ERR_OK;
    repl_fetch_close(f->files);
    f->files = NULL;
    set_phase(f, FETCH_LOOKS, 0, 0);
    TRY(repl_fetch_open(f->path, f->config.database_id, page_size, on_hashing, f, &f->files));
    f->page_size = page_size;
    return ERR_OK;
}

/* Which of the first PAGES pages differ from the other node's? */
static enum err scan(struct fetch *f, uint32_t pages)
{
    f->n_differing = 0;
    TRY(repl_fetch_expect(f->files, pages)); /* so a false number is no reason to take memory */
    uint64_t *hashes = mem_alloc(WIRE_IMAGE_HASHES_MAX * sizeof *hashes);
    enum err e = ERR_OK;
    for (uint64_t first = 1; e == ERR_OK && first <= pages; first += WIRE_IMAGE_HASHES_MAX) {
        uint64_t left = pages - first + 1;
        uint32_t n = (uint32_t)(left < WIRE_IMAGE_HASHES_MAX ? left : WIRE_IMAGE_HASHES_MAX);
        e = image_client_hashes(f->client, (uint32_t)first, n, hashes);
        if (e != ERR_OK)
            break;
        if (f->room < f->n_differing + n) {
            f->room = f->n_differing + n;
            f->differing = mem_realloc(f->differing, f->room * sizeof *f->differing);
        }
        f->n_differing +=
            repl_fetch_differ(f->files, (uint32_t)first, n, hashes, f->differing + f->n_differing);
        CHECK(f->n_differing <= f->room);
    }
    free(hashes);
    return e;
}

static enum err take_page(void *ctx, uint32_t page_no, const uint8_t *page)
{
    struct fetch *f = ctx;
    return repl_fetch_write(f->files, page_no, page);
}

/* The pages that scan found. */
static enum err pull(struct fetch *f)
{
    uint32_t chunk = wire_image_pages_max(f->page_size);
    for (size_t at = 0; at < f->n_differing;) {
        size_t left = f->n_differing - at;
        uint32_t n = left < chunk ? (uint32_t)left : chunk;
        struct wire_image_pages p;
        if (f->cancelled)
            return err_fail(ERR_CANCELLED, "interrupted");
        TRY(image_client_pages(f->client, f->differing + at, n, f->page_size, &p));
        TRY(wire_each_image_page(&p, f->differing + at, n, take_page, f));
        at += n;
        set_done(f, (uint32_t)at);
    }
    return ERR_OK;
}

/* Rounds over the changing database, until little differs. */
static enum err rounds(struct fetch *f, unsigned *round)
{
    for (*round = 1; *round < ROUNDS_MAX; (*round)++) {
        struct wire_image w;
        TRY(image_client_begin(f->client, false, &w));
        TRY(judge_image(f, &w));
        TRY(open_files(f, w.page_size));
        TRY(scan(f, w.pages));
        log_info("fetch", "round=%u from=%" PRIu64 " seq=%" PRIu64 " pages=%u differing=%zu",
                 *round, image_client_node(f->client), w.seq, w.pages, f->n_differing);
        if (f->n_differing * (uint64_t)f->page_size <= LAST_ROUND_BYTES)
            return ERR_OK;
        set_phase(f, FETCH_ROUND, *round, (uint32_t)f->n_differing);
        TRY(pull(f));
    }
    return ERR_OK;
}

/* The record that came with the image must be of exactly that image. */
static enum err judge_record(const struct wire_image *w)
{
    struct cns_snapshot s;
    struct lane_mark m;
    TRY(record_get(w->record, w->record_len, &s));
    enum err e = note_decode(&s, &m);
    cns_payload_unref(s.members);
    TRY(e);
    if (m.index != w->index || m.seq != w->seq || m.checksum != w->checksum ||
        m.pages != w->pages || m.page_size != w->page_size)
        return err_fail(ERR_PROTOCOL, "an image and a record of different states");
    return ERR_OK;
}

static void drop_client(struct fetch *f)
{
    if (f->client != NULL)
        f->bytes_before += image_client_bytes(f->client);
    image_client_close(f->client);
    f->client = NULL;
}

static enum err complete(struct fetch *f, const struct wire_image *w, const uint8_t *record)
{
    struct repl_image_head head = {.database_id = w->database_id,
                                   .seq = w->seq,
                                   .checksum = w->checksum,
                                   .pages = w->pages,
                                   .page_size = w->page_size};
    uint64_t sum = repl_fetch_checksum(f->files, w->pages);
    if (sum != w->checksum)
        return err_fail(ERR_DIVERGED,
                        "the pages have checksum %016" PRIx64 ", the image %016" PRIx64, sum,
                        w->checksum);
    enum err e = repl_fetch_complete(f->files, &head, record, w->record_len);
    /* What our own disk does to the pages: no other node helps. */
    return e == ERR_CORRUPT ? err_fail(ERR_IO, "%s", err_text()) : e;
}

/* One consistent image; *pinned says that it was asked for. */
static enum err last_round(struct fetch *f, unsigned round)
{
    struct wire_image w;
    TRY(image_client_begin(f->client, true, &w));
    TRY(judge_image(f, &w));
    TRY(judge_record(&w));
    uint8_t *record = mem_alloc(w.record_len);
    memcpy(record, w.record, w.record_len);
    w.record = NULL; /* the next answer overwrites it */
    enum err e = open_files(f, w.page_size);
    if (e == ERR_OK)
        e = scan(f, w.pages);
    set_phase(f, FETCH_LAST_ROUND, round, (uint32_t)f->n_differing);
    if (e == ERR_OK)
        e = pull(f);
    if (e == ERR_OK) {
        log_info("fetch", "round=%u from=%" PRIu64 " seq=%" PRIu64 " pages=%u fetched=%zu pinned",
                 round, image_client_node(f->client), w.seq, w.pages, f->n_differing);
        set_phase(f, FETCH_VERIFIES, round, w.pages);
        e = complete(f, &w, record);
    }
    free(record);
    return e;
}

static enum err fetch_from(struct fetch *f, const struct fetch_source *s)
{
    unsigned round;
    char name[80];
    (void)snprintf(name, sizeof name, "lecternd %s node %" PRIu64, LECTERN_VERSION,
                   f->config.own_id);
    struct dial_stop stop = {.wake_fd = f->wake_fd};
    TRY(image_client_open(s->address, name, f->config.cluster_id, &stop, &f->client));
    if (image_client_node(f->client) == f->config.own_id)
        return err_fail(ERR_CONFIG, "that is this node itself");
    (void)pthread_mutex_lock(&f->lock);
    f->progress.from = image_client_node(f->client);
    (void)pthread_mutex_unlock(&f->lock);
    log_info("fetch", "begins from=%" PRIu64 " address=%s", image_client_node(f->client),
             s->address);
    for (unsigned tries = 1;; tries++) {
        TRY(rounds(f, &round));
        enum err e = last_round(f, round);
        if (e != ERR_DIVERGED || tries == VERIFIES_MAX)
            return e;
        log_warn("fetch", "again reason=\"%s\"", err_text());
    }
}

/* --- whom to ask ------------------------------------------------------------------------------ */

static bool is_better(const struct candidate *a, const struct candidate *b)
{
    if (a->source.leads != b->source.leads)
        return !a->source.leads;
    return a->source.lag < b->source.lag;
}

/* A follower before the leader, the one that is least behind first; none that failed just now. */
static bool choose(struct fetch *f, struct fetch_source *out, uint64_t *wait_ms)
{
    uint64_t now = clock_mono_ms();
    const struct candidate *best = NULL;
    *wait_ms = PAUSE_MAX_MS;
    (void)pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_candidates; i++) {
        const struct candidate *c = &f->candidates[i];
        if (now < c->not_before_ms) {
            *wait_ms = c->not_before_ms - now < *wait_ms ? c->not_before_ms - now : *wait_ms;
            continue;
        }
        if (best == NULL || is_better(c, best))
            best = c;
    }
    if (best != NULL)
        *out = best->source;
    else if (f->n_candidates == 0)
        *wait_ms = PAUSE_MIN_MS;
    (void)pthread_mutex_unlock(&f->lock);
    return best != NULL;
}

/* After an error: the others first, and this one after a growing pause. */
static void put_off(struct fetch *f, const char *address, const char *why)
{
    (void)pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_candidates; i++) {
        struct candidate *c = &f->candidates[i];
        if (strcmp(c->source.address, address) != 0)
            continue;
        c->pause_ms = c->pause_ms == 0 ? PAUSE_MIN_MS : 2 * c->pause_ms;
        if (c->pause_ms > PAUSE_MAX_MS)
            c->pause_ms = PAUSE_MAX_MS;
        c->not_before_ms = clock_mono_ms() + c->pause_ms;
    }
    (void)snprintf(f->progress.problem, sizeof f->progress.problem, "%.199s", why);
    f->progress.from = 0;
    (void)pthread_mutex_unlock(&f->lock);
}

void fetch_sources(struct fetch *f, const struct fetch_source *sources, unsigned n)
{
    struct candidate old[FETCH_SOURCES_MAX];
    (void)pthread_mutex_lock(&f->lock);
    unsigned n_old = f->n_candidates;
    memcpy(old, f->candidates, n_old * sizeof *old);
    f->n_candidates = 0;
    for (unsigned i = 0; i < n && i < FETCH_SOURCES_MAX; i++) {
        struct candidate *c = &f->candidates[f->n_candidates++];
        *c = (struct candidate){.source = sources[i]};
        for (unsigned k = 0; k < n_old; k++) {
            if (strcmp(old[k].source.address, c->source.address) != 0)
                continue;
            c->not_before_ms = old[k].not_before_ms;
            c->pause_ms = old[k].pause_ms;
        }
    }
    (void)pthread_mutex_unlock(&f->lock);
}

/* "host:port,host:port": all that a node knows that has not been a member yet. */
static void take_contacts(struct fetch *f)
{
    char *rest = f->contacts, *one;
    while (rest != NULL && (one = strsep(&rest, ",")) != NULL) {
        if (*one == 0 || f->n_candidates == FETCH_SOURCES_MAX)
            continue;
        struct candidate *c = &f->candidates[f->n_candidates++];
        (void)snprintf(c->source.address, sizeof c->source.address, "%s", one);
    }
}

/* --- the thread ------------------------------------------------------------------------------- */

static void pause_for(struct fetch *f, uint64_t ms)
{
    struct pollfd p = {.fd = f->wake_fd, .events = POLLIN};
    (void)poll(&p, 1, (int)ms);
}

/* Errors of our own disk: no other node helps. */
static bool is_own(enum err e)
{
    return e == ERR_IO || e == ERR_LOCKED;
}

/* False: it is over, and `result` says how. */
static bool try_once(struct fetch *f)
{
    struct fetch_source s;
    uint64_t wait_ms;
    if (!choose(f, &s, &wait_ms)) {
        set_phase(f, FETCH_SEARCHES, 0, 0);
        pause_for(f, wait_ms);
        return true;
    }
    enum err e = fetch_from(f, &s);
    char why[ERR_TEXT_MAX];
    (void)snprintf(why, sizeof why, "%s", e == ERR_OK ? "" : err_text());
    drop_client(f);
    if (e == ERR_OK || e == ERR_CANCELLED || is_own(e)) {
        f->result = e;
        (void)snprintf(f->sentence, sizeof f->sentence, "%s", why);
        return false;
    }
    log_warn("fetch", "failed from=%s error=%s reason=\"%s\"", s.address, err_name((int)e), why);
    put_off(f, s.address, why);
    if (e == ERR_FULL)
        pause_for(f, FULL_PAUSE_MS);
    return true;
}

static void *fetch_main(void *arg)
{
    struct fetch *f = arg;
    thread_become(THREAD_ANY);
    f->result = ERR_CANCELLED;
    while (!f->cancelled && try_once(f))
        continue;
    repl_fetch_close(f->files);
    f->files = NULL;
    f->letter.kind = LOOP_FETCHED;
    mail_send(f->config.loop, &f->letter.link);
    return NULL;
}

/* --- the door --------------------------------------------------------------------------------- */

enum err fetch_start(const struct fetch_config *c, struct fetch **out)
{
    *out = NULL;
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0)
        return err_fail(ERR_IO, "no file descriptor to fetch with");
    struct fetch *f = MEM_NEW(struct fetch);
    f->config = *c;
    f->path = mem_strdup(c->path);
    f->contacts = c->contacts == NULL ? NULL : mem_strdup(c->contacts);
    f->wake_fd = wake_fd;
    list_init(&f->letter.link);
    int rc = pthread_mutex_init(&f->lock, NULL);
    CHECK(rc == 0);
    take_contacts(f);
    enum err e = thread_start(&f->thread, "fetch", fetch_main, f);
    if (e != ERR_OK) {
        (void)close(wake_fd);
        (void)pthread_mutex_destroy(&f->lock);
        free(f->path);
        free(f->contacts);
        free(f);
        return e;
    }
    *out = f;
    return ERR_OK;
}

void fetch_cancel(struct fetch *f)
{
    uint64_t one = 1;
    f->cancelled = true;
    ssize_t n = write(f->wake_fd, &one, sizeof one);
    (void)n; /* a full counter is a cancel that is already there */
}

enum err fetch_result(struct fetch *f, char *sentence)
{
    (void)snprintf(sentence, ERR_TEXT_MAX, "%s", f->sentence);
    return f->result;
}

void fetch_free(struct fetch *f)
{
    if (f == NULL)
        return;
    (void)pthread_join(f->thread, NULL);
    (void)close(f->wake_fd);
    (void)pthread_mutex_destroy(&f->lock);
    free(f->differing);
    free(f->path);
    free(f->contacts);
    free(f);
}
